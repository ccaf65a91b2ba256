//! The effects of time on an account at one instant: lots end, the period ends, the next begins, lots start.

use super::booking::{Booking, Stamp, change_of, new_lot, period_lot_id};
use super::{Applied, ClosedPeriod, EntryType, LotChanges, Moment, Observer};
use crate::account::Core;
use crate::account::lot::Lot;
use crate::event::{LotSource, OverdraftPolicy, RolloverMode, derive};
use crate::fold::pages::Pages;
use crate::value::credits::{Credits, add, sub};
use crate::value::id::{EventId, GrantId};
use crate::value::time::Time;

/// One crossed instant.
pub(super) struct Crossing<'a> {
    pub core: &'a mut Core,
    pub pages: &'a mut Pages,
    pub offset: i64,
    pub at: Time,
    pub applied: &'a mut Applied,
}

impl Booking for Crossing<'_> {
    fn parts(&mut self) -> (&mut Core, &mut Pages, &mut Applied) {
        (self.core, self.pages, self.applied)
    }

    fn stamp(&self) -> Stamp {
        Stamp { recorded_at: self.at, occurred_at: self.at, offset: self.offset }
    }
}

impl Crossing<'_> {
    fn seen_by(&self, observer: &mut impl Observer, event_id: &EventId, adds: bool) {
        observer.after(self.core, &Moment { at: self.at, event_id, applied: None, adds });
    }

    /// Ends a period and begins the next.
    pub(super) fn boundary(&mut self, observer: &mut impl Observer) {
        let index = self.core.next_period().1.index;
        let event_id = derive::reset_id(&self.core.account, index);
        let rolled_over = self.close_period_lots(&event_id);
        for id in self.core.lots.ending(self.at) {
            self.expire(&id, Credits::ZERO, &event_id);
        }
        let figures = std::mem::take(&mut self.core.figures);
        self.applied.closed.push(ClosedPeriod { period: self.core.period, figures, rolled_over });

        let (periods, period) = self.core.next_period();
        if let Some(plan) = self.core.next_plan.take() {
            self.core.plan = plan;
        }
        self.core.periods = periods;
        self.core.period = period;
        if rolled_over.is_positive() {
            self.roll_in(rolled_over, &event_id);
        }
        if self.core.overdraft_policy == OverdraftPolicy::ForgiveAtReset {
            self.forgive(&event_id);
        }
        self.core.figures.carried_in = self.core.settled();
        self.give_allowance(self.at, &event_id);
        self.seen_by(observer, &event_id, true);
    }

    /// Closes plan and rollover lots and returns what rolls over. The first in burn order expire.
    fn close_period_lots(&mut self, event_id: &EventId) -> Credits {
        let ids: Vec<(GrantId, Credits)> = self
            .core
            .lots
            .iter()
            .filter(|lot| lot.is_of_plan() && lot.expires_at.is_some_and(|end| end <= self.at))
            .map(|lot| (lot.grant_id.clone(), lot.remaining))
            .collect();
        let unused = ids.iter().fold(Credits::ZERO, |sum, (_, remaining)| add(sum, *remaining));
        let plan = &self.core.plan;
        let rolled_over = match plan.rollover.mode {
            RolloverMode::None => Credits::ZERO,
            RolloverMode::Capped => unused.min(plan.rollover.cap.unwrap_or(plan.allowance)),
            RolloverMode::Unlimited => unused,
        };
        let mut to_expire = sub(unused, rolled_over);
        for (id, remaining) in ids {
            let expired = remaining.min(to_expire);
            to_expire = sub(to_expire, expired);
            self.expire(&id, sub(remaining, expired), event_id);
        }
        rolled_over
    }

    /// Closes a lot: `rolled_out` of it rolls over, the rest expires.
    fn expire(&mut self, id: &GrantId, rolled_out: Credits, event_id: &EventId) {
        let waiting = self.core.lots.is_waiting(id);
        let Some(mut lot) = self.core.lots.remove(id) else { return };
        let expired = sub(lot.remaining, rolled_out);
        lot.remaining = Credits::ZERO;
        lot.lapsed = add(lot.lapsed, expired);
        let source = lot.source;
        self.pages.touched.insert(id.clone());
        self.pages.put(lot);
        if waiting {
            return;
        }
        // Both parts have already left the lot, so the first entry's balance has to add back the second part.
        if expired.is_positive() {
            self.core.figures.expired = add(self.core.figures.expired, expired);
            self.core.totals.expired = add(self.core.totals.expired, expired);
            self.book_out(EntryType::Expired, id, source, expired, event_id);
            if let Some(entry) = self.applied.entries.last_mut() {
                entry.balance_after = add(entry.balance_after, rolled_out);
            }
        }
        if rolled_out.is_positive() {
            self.core.totals.rolled_out = add(self.core.totals.rolled_out, rolled_out);
            self.book_out(EntryType::RolledOut, id, source, rolled_out, event_id);
        }
    }

    fn book_out(
        &mut self,
        entry_type: EntryType,
        id: &GrantId,
        source: LotSource,
        amount: Credits,
        event_id: &EventId,
    ) {
        self.book(entry_type, event_id.clone(), change_of(id, source, amount.negated()), Credits::ZERO);
    }

    fn roll_in(&mut self, amount: Credits, event_id: &EventId) {
        let grant_id = period_lot_id("rollover", self.core.period.index);
        let made_at = (self.offset, self.applied.next_seq());
        let lot = Lot {
            expires_at: Some(self.core.period.ends_at),
            ..new_lot(grant_id, LotSource::Rollover, amount, self.at, event_id, made_at)
        };
        self.core.figures.granted = add(self.core.figures.granted, amount);
        self.core.totals.rolled_in = add(self.core.totals.rolled_in, amount);
        let (changes, overdraft) = self.put_lot(lot);
        self.book(EntryType::RolledIn, event_id.clone(), changes, overdraft);
    }

    fn forgive(&mut self, event_id: &EventId) {
        let forgiven = self.core.overdraft.forgive();
        if forgiven.is_positive() {
            self.core.totals.adjusted = add(self.core.totals.adjusted, forgiven);
            self.book(EntryType::Adjusted, event_id.clone(), LotChanges::new(), forgiven.negated());
        }
    }

    /// Closes the lots that end at this instant, in burn order.
    pub(super) fn end_lots(&mut self, observer: &mut impl Observer) {
        let ending = self.core.lots.ending(self.at);
        if ending.is_empty() {
            return;
        }
        let event_id = derive::tick_id(&self.core.account, self.at);
        for id in ending {
            self.expire(&id, Credits::ZERO, &event_id);
            self.seen_by(observer, &event_id, false);
        }
    }

    /// Activates the lots that start at this instant.
    pub(super) fn start_lots(&mut self, observer: &mut impl Observer) {
        for id in self.core.lots.starting(self.at) {
            let Some(lot) = self.core.lots.remove(&id) else { continue };
            let event_id = lot.event_id.clone();
            self.core.figures.added = add(self.core.figures.added, lot.amount);
            self.core.figures.granted = add(self.core.figures.granted, lot.amount);
            self.core.totals.granted = add(self.core.totals.granted, lot.amount);
            let (changes, overdraft) = self.put_lot(lot);
            self.book(EntryType::Granted, event_id.clone(), changes, overdraft);
            self.seen_by(observer, &event_id, true);
        }
    }
}
