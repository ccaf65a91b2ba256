//! The facts of the journal, and the table of every event type.

pub mod bodies;
pub mod derive;
pub mod differs;
pub mod field_error;
pub mod key;
pub mod partition;
pub mod rules_v1;
pub mod shape;
pub mod wire;

pub use bodies::*;

use serde::Serialize;

use crate::event::field_error::FieldError;
use crate::event::rules_v1::Rules;
use crate::event::shape::Object;
use crate::value::id::{AccountId, EventId, Label, Source};
use crate::value::time::Time;

/// A fact about one account, as recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The caller's id; unique per account and source.
    pub id: EventId,
    pub source: Source,
    /// The Kafka key.
    pub account: AccountId,
    pub occurred_at: Time,
    /// When the service received it: ledger time before the clamp of live accounts.
    pub recorded_at: Time,
    /// Who caused it: a key id, `scheduler`, `auto-top-up`, `provider:stripe`.
    pub actor: Label,
    pub data: Data,
}

/// Defines every event type in one table: its variant, its body, its name in the envelope.
macro_rules! events {
    ($($variant:ident($body:ty) = $name:literal,)*) => {
        /// What happened, by type; as JSON, the body alone.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(untagged)]
        #[allow(missing_docs, reason = "each variant is documented at its body")]
        pub enum Data {
            $($variant($body),)*
        }

        impl Data {
            /// Every event type this version knows, as in the envelope's `type`.
            pub const TYPES: [&'static str; [$($name),*].len()] = [$($name),*];

            pub fn type_name(&self) -> &'static str {
                match self {
                    $(Data::$variant(_) => $name,)*
                }
            }

            /// Returns the first rule that a recorded body breaks.
            fn check_recorded(&self) -> Result<(), FieldError> {
                let mut errors = Vec::new();
                match self {
                    $(Data::$variant(body) => body.check_recorded(&mut errors),)*
                }
                errors.into_iter().next().map_or(Ok(()), Err)
            }

            /// Reads the body of a type; `None` for a type that this version does not know.
            fn read(event_type: &str, json: &str) -> Option<Result<Data, serde_json::Error>> {
                match event_type {
                    $($name => Some(serde_json::from_str(json).map(|Object(body)| Data::$variant(body))),)*
                    _ => None,
                }
            }
        }
    };
}

events! {
    AccountOpened(OpenAccount) = "ledger.account.opened.v1",
    AccountChanged(ChangeAccount) = "ledger.account.changed.v1",
    AccountClosed(CloseAccount) = "ledger.account.closed.v1",
    PlanChanged(ChangePlan) = "ledger.plan.changed.v1",
    ClockAdvanced(AdvanceClock) = "ledger.clock.advanced.v1",
    UsageRecorded(Usage) = "ledger.usage.recorded.v1",
    UsageReversed(ReverseUsage) = "ledger.usage.reversed.v1",
    CreditsGranted(Grant) = "ledger.credits.granted.v1",
    GrantVoided(VoidGrant) = "ledger.grant.voided.v1",
    CreditsAdjusted(Adjust) = "ledger.credits.adjusted.v1",
    CreditsPurchased(Purchase) = "ledger.credits.purchased.v1",
    CreditsRefunded(Refund) = "ledger.credits.refunded.v1",
    RefundFailed(FailRefund) = "ledger.refund.failed.v1",
    PeriodReset(ResetPeriod) = "ledger.period.reset.v1",
    LimitsSet(SetLimits) = "ledger.limits.set.v1",
    UserLimitSet(SetUserLimit) = "ledger.user_limit.set.v1",
    OrgAlertSet(SetOrgAlert) = "ledger.org_alert.set.v1",
    OrgAlertRemoved(RemoveOrgAlert) = "ledger.org_alert.removed.v1",
    UserAlertSet(SetUserAlert) = "ledger.user_alert.set.v1",
    AutoTopUpSet(SetAutoTopUp) = "ledger.auto_top_up.set.v1",
    TopUpStarted(StartTopUp) = "ledger.top_up.started.v1",
    TopUpFailed(FailTopUp) = "ledger.top_up.failed.v1",
    TopUpRefused(RefuseTopUp) = "ledger.top_up.refused.v1",
    CreditsToppedUp(TopUp) = "ledger.credits.topped_up.v1",
    DisputeOpened(Dispute) = "ledger.dispute.opened.v1",
    DisputeWon(Dispute) = "ledger.dispute.won.v1",
}
