//! Top-up attempts that start or fail, and refusals. `payments` credits an attempt that was paid.

use super::Reason;
use super::step::Step;
use super::want::{Want, refused_id, want};
use crate::account::top_up::Attempt;
use crate::event::{FailTopUp, RefuseTopUp, StartTopUp, derive};

impl Step<'_> {
    /// Uses up an attempt's number, and opens the attempt if it is still wanted.
    pub(super) fn start_top_up(&mut self, start: &StartTopUp) -> Result<(), Reason> {
        let number = self.core.top_ups.numbers_used + 1;
        if start.attempt_id != derive::attempt_id(&self.core.account, number) {
            return Err(Reason::AttemptOutOfOrder);
        }
        let StartTopUp { attempt_id, amount, payment_method } = start.clone();
        let attempt = Attempt { attempt_id, number, amount, payment_method };
        let is_wanted = want(self.core) == Want::Start(attempt.clone());
        let top_ups = &mut self.core.top_ups;
        top_ups.numbers_used = number;
        if !is_wanted {
            return Err(Reason::TopUpNotDue);
        }
        top_ups.last = Some(attempt);
        top_ups.is_open = true;
        Ok(())
    }

    pub(super) fn fail_top_up(&mut self, failure: &FailTopUp) -> Result<(), Reason> {
        if !self.core.top_ups.has_open(&failure.attempt_id) {
            return Err(Reason::AttemptNotOpen);
        }
        self.core.top_ups.fail(self.core.ledger_time);
        Ok(())
    }

    /// Has no effect if the period or the settings have changed since.
    pub(super) fn refuse_top_up(&mut self, refusal: &RefuseTopUp) -> Result<(), Reason> {
        if self.fact.event.id == refused_id(self.core, refusal.reason) {
            self.core.top_ups.refuse(self.core.period.index, refusal.reason);
        }
        Ok(())
    }
}
