//! Event: the facts of the journal, how they are written, read and told apart.

pub mod bodies;
pub mod derive;
pub mod field_error;
pub mod key;
pub mod partition;
pub mod shape;
pub mod wire;

pub use bodies::*;

use crate::value::id::{EventId, Id, Label, Source};
use crate::value::time::Time;

/// A fact about one account, as recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The caller's id; unique per account and source.
    pub id: EventId,
    /// Who produced it.
    pub source: Source,
    /// The account it is about; the Kafka key.
    pub account: Id,
    /// When the thing happened.
    pub occurred_at: Time,
    /// When the service that appended it heard of it: ledger time before the clamp of live accounts.
    pub recorded_at: Time,
    /// Who caused it: a key id, `scheduler`, `auto-top-up`, `provider:stripe`.
    pub actor: Label,
    /// What happened.
    pub data: Data,
}

/// What happened, by type.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant is documented at its body")]
pub enum Data {
    AccountOpened(OpenAccount),
    AccountChanged(ChangeAccount),
    PlanChanged(ChangePlan),
    ClockAdvanced(AdvanceClock),
    UsageRecorded(Usage),
    UsageReversed(ReverseUsage),
    CreditsGranted(Grant),
    GrantVoided(VoidGrant),
    CreditsAdjusted(Adjust),
    CreditsPurchased(Purchase),
    CreditsRefunded(Refund),
    PeriodReset(ResetPeriod),
    LimitsSet(SetLimits),
    OrgAlertSet(SetOrgAlert),
    OrgAlertRemoved(RemoveOrgAlert),
    UserAlertSet(SetUserAlert),
    AutoTopUpSet(SetAutoTopUp),
    TopUpStarted(StartTopUp),
    TopUpFailed(FailTopUp),
    TopUpRefused(RefuseTopUp),
    CreditsToppedUp(TopUp),
    DisputeOpened(Dispute),
    DisputeWon(Dispute),
}

impl Data {
    /// Every event type this version knows, as in the envelope's `type`.
    pub const TYPES: [&'static str; 23] = [
        "ledger.account.opened.v1",
        "ledger.account.changed.v1",
        "ledger.plan.changed.v1",
        "ledger.clock.advanced.v1",
        "ledger.usage.recorded.v1",
        "ledger.usage.reversed.v1",
        "ledger.credits.granted.v1",
        "ledger.grant.voided.v1",
        "ledger.credits.adjusted.v1",
        "ledger.credits.purchased.v1",
        "ledger.credits.refunded.v1",
        "ledger.period.reset.v1",
        "ledger.limits.set.v1",
        "ledger.org_alert.set.v1",
        "ledger.org_alert.removed.v1",
        "ledger.user_alert.set.v1",
        "ledger.auto_top_up.set.v1",
        "ledger.top_up.started.v1",
        "ledger.top_up.failed.v1",
        "ledger.top_up.refused.v1",
        "ledger.credits.topped_up.v1",
        "ledger.dispute.opened.v1",
        "ledger.dispute.won.v1",
    ];

    /// Returns the envelope's `type`.
    pub fn type_name(&self) -> &'static str {
        let at = match self {
            Data::AccountOpened(_) => 0,
            Data::AccountChanged(_) => 1,
            Data::PlanChanged(_) => 2,
            Data::ClockAdvanced(_) => 3,
            Data::UsageRecorded(_) => 4,
            Data::UsageReversed(_) => 5,
            Data::CreditsGranted(_) => 6,
            Data::GrantVoided(_) => 7,
            Data::CreditsAdjusted(_) => 8,
            Data::CreditsPurchased(_) => 9,
            Data::CreditsRefunded(_) => 10,
            Data::PeriodReset(_) => 11,
            Data::LimitsSet(_) => 12,
            Data::OrgAlertSet(_) => 13,
            Data::OrgAlertRemoved(_) => 14,
            Data::UserAlertSet(_) => 15,
            Data::AutoTopUpSet(_) => 16,
            Data::TopUpStarted(_) => 17,
            Data::TopUpFailed(_) => 18,
            Data::TopUpRefused(_) => 19,
            Data::CreditsToppedUp(_) => 20,
            Data::DisputeOpened(_) => 21,
            Data::DisputeWon(_) => 22,
        };
        Self::TYPES[at]
    }
}
