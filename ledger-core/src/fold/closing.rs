//! The end of an account, and what a closed account still takes.
//!
//! Its last period stays open: boundaries no longer end it. Lots still start and end, so that no credits outlive their time.

use super::step::Step;
use super::{Fact, Reason};
use crate::account::Closing;
use crate::event::{CloseAccount, Data};

impl Step<'_> {
    pub(super) fn close(&mut self, closing: &CloseAccount) -> Result<(), Reason> {
        self.core.closed = Some(Closing { at: self.core.ledger_time, reason: closing.reason.clone() });
        Ok(())
    }
}

impl Closing {
    /// Returns whether a closed account refuses an event. What was recorded before the closing was on its way and
    /// applies; so does usage that settles a hold, and money that has moved.
    pub(super) fn refuses(&self, fact: &Fact) -> bool {
        let is_late = fact.event.recorded_at >= self.at;
        match &fact.event.data {
            Data::UsageRecorded(usage) => is_late && usage.held.is_none(),
            Data::CreditsGranted(_)
            | Data::AccountChanged(_)
            | Data::PlanChanged(_)
            | Data::LimitsSet(_)
            | Data::UserLimitSet(_)
            | Data::OrgAlertSet(_)
            | Data::OrgAlertRemoved(_)
            | Data::UserAlertSet(_)
            | Data::AutoTopUpSet(_) => is_late,
            Data::AccountClosed(_) | Data::TopUpStarted(_) | Data::TopUpRefused(_) => true,
            Data::AccountOpened(_)
            | Data::ClockAdvanced(_)
            | Data::PeriodReset(_)
            | Data::UsageReversed(_)
            | Data::GrantVoided(_)
            | Data::CreditsAdjusted(_)
            | Data::CreditsPurchased(_)
            | Data::CreditsToppedUp(_)
            | Data::TopUpFailed(_)
            | Data::CreditsRefunded(_)
            | Data::RefundFailed(_)
            | Data::DisputeOpened(_)
            | Data::DisputeWon(_) => false,
        }
    }
}
