//! Applies one event to an account; each type of event has its rules in a neighbouring module.

use super::booking::{Booking, Netting, Stamp, new_lot};
use super::{Applied, EntryType, Error, Fact, Outcome, Reason};
use crate::account::Core;
use crate::account::lot::{Draws, Lot};
use crate::account::overdraft::Stretch;
use crate::event::{Data, LotSource};
use crate::fold::pages::{Missing, Pages};
use crate::value::credits::{Credits, add};
use crate::value::id::GrantId;

/// Bound on the sum of all amounts ever booked on an account: keeps every sum far inside `Credits` and
/// `numeric(38,9)`.
pub const TURNOVER_MAX: Credits = Credits::from_units(10_000_000_000_000_000_000_000_000_000 * 1_000_000_000);

pub(super) struct Step<'a> {
    pub core: &'a mut Core,
    pub pages: &'a mut Pages,
    pub fact: &'a Fact,
    pub applied: &'a mut Applied,
}

impl Booking for Step<'_> {
    fn parts(&mut self) -> (&mut Core, &mut Pages, &mut Applied) {
        (self.core, self.pages, self.applied)
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            recorded_at: self.core.ledger_time,
            occurred_at: self.fact.event.occurred_at,
            offset: self.fact.offset,
        }
    }
}

/// The outer error is missing pages; the inner one is a rejection.
pub(super) type Decision = Result<Result<(), Reason>, Error>;

/// Applies an event, unless a rule rejects it.
///
/// Errors: pages are missing; then nothing has changed.
pub(super) fn decide(
    core: &mut Core,
    pages: &mut Pages,
    fact: &Fact,
    applied: &mut Applied,
) -> Result<Outcome, Error> {
    if core.closed.as_ref().is_some_and(|closing| closing.refuses(fact)) {
        return Ok(Outcome::Rejected(Reason::AccountClosed));
    }
    if core.totals.turnover > TURNOVER_MAX && !matches!(fact.event.data, Data::PeriodReset(_)) {
        return Ok(Outcome::Rejected(Reason::OutOfRange));
    }
    let mut step = Step { core, pages, fact, applied };
    if let Some(first) = step.first_of_call()? {
        step.applied.duplicate_of = Some(first);
        return Ok(Outcome::Duplicate);
    }
    let result = match &fact.event.data {
        Data::UsageRecorded(usage) => step.use_credits(usage),
        Data::UsageReversed(reversal) => step.reverse(reversal)?,
        Data::CreditsGranted(grant) => step.grant(grant)?,
        Data::GrantVoided(void) => step.void(void)?,
        Data::CreditsAdjusted(adjustment) => step.adjust(adjustment)?,
        Data::CreditsPurchased(purchase) => step.purchase(purchase)?,
        Data::CreditsToppedUp(top_up) => step.top_up(top_up)?,
        Data::CreditsRefunded(refund) => step.take_payment(&refund.payment_id, refund.amount)?,
        Data::DisputeOpened(dispute) => step.take_payment(&dispute.payment_id, dispute.amount)?,
        Data::DisputeWon(dispute) => step.win(dispute)?,
        Data::RefundFailed(failure) => step.fail_refund(failure)?,
        Data::AutoTopUpSet(settings) => {
            step.core.top_ups.save(settings);
            Ok(())
        }
        Data::TopUpStarted(start) => step.start_top_up(start),
        Data::TopUpFailed(failure) => step.fail_top_up(failure),
        Data::TopUpRefused(refusal) => step.refuse_top_up(refusal),
        Data::PlanChanged(change) => step.change_plan(change)?,
        Data::AccountChanged(change) => step.change_account(change),
        Data::PeriodReset(reset) => step.reset(reset),
        Data::ClockAdvanced(_) => Ok(()),
        Data::AccountClosed(closing) => step.close(closing),
        Data::LimitsSet(limits) => step.set_limits(limits),
        Data::UserLimitSet(set) => step.set_user_limit(set),
        Data::OrgAlertSet(alert) => step.set_org_alert(alert),
        Data::OrgAlertRemoved(removal) => step.remove_org_alert(removal),
        Data::UserAlertSet(alert) => step.set_user_alert(alert),
        Data::AccountOpened(_) => Err(Reason::AccountExists),
    };
    Ok(match result {
        Ok(()) => Outcome::Applied,
        Err(reason) => Outcome::Rejected(reason),
    })
}

impl Step<'_> {
    /// Finds a lot, in the core or among the pages.
    pub(super) fn find_lot(&self, id: &GrantId) -> Result<Option<&Lot>, Missing> {
        match self.core.lots.get(id) {
            Some(lot) => Ok(Some(lot)),
            None => self.pages.lot(id),
        }
    }

    /// Removes a found lot; [`Booking::keep`] puts it back.
    pub(super) fn take_lot(&mut self, id: &GrantId) -> Lot {
        let paged = || self.pages.lots.get(id).cloned().flatten();
        self.core.lots.remove(id).or_else(paged).expect("`find_lot` has found it")
    }

    /// Makes a lot of this event, in effect from now on.
    pub(super) fn new_lot(&self, grant_id: GrantId, source: LotSource, amount: Credits) -> Lot {
        let made_at = (self.fact.offset, self.applied.next_seq());
        new_lot(grant_id, source, amount, self.core.ledger_time, &self.fact.event.id, made_at)
    }

    /// Adds a lot that starts now, with its entry.
    pub(super) fn add_lot(&mut self, entry_type: EntryType, lot: Lot) {
        self.core.figures.added = add(self.core.figures.added, lot.amount);
        self.core.figures.granted = add(self.core.figures.granted, lot.amount);
        let (changes, overdraft) = self.put_lot(lot);
        self.book(entry_type, self.fact.event.id.clone(), changes, overdraft);
    }

    /// Books a withdrawal other than usage, and keeps its draws so that it can be undone.
    pub(super) fn book_withdrawal(
        &mut self,
        entry_type: EntryType,
        draws: Draws,
        line: Option<Stretch>,
    ) -> Credits {
        let mut changes = Netting::default();
        for draw in &draws {
            changes.add(&draw.grant_id, draw.source, draw.amount.negated());
        }
        let overdraft = line.map_or(Credits::ZERO, |line| line.length());
        self.applied.draws = draws;
        self.applied.line = line;
        self.book(entry_type, self.fact.event.id.clone(), changes.into_changes(), overdraft)
    }
}

/// Returns whether only the fold creates lots with this id.
pub(super) fn is_fold_lot(id: &GrantId) -> bool {
    id.as_str().starts_with("plan:") || id.as_str().starts_with("rollover:")
}
