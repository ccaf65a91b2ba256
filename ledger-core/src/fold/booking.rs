//! Bookings: how credits are taken, how they are given, and the entries of both.

use rustc_hash::FxHashMap;
use smallvec::smallvec;

use super::{Applied, Entry, EntryType, LotChange, LotChanges};
use crate::account::Core;
use crate::account::lot::{Draws, Lot, default_priority};
use crate::account::overdraft::Stretch;
use crate::account::withdrawal::Repayment;
use crate::event::LotSource;
use crate::fold::pages::Pages;
use crate::value::credits::{Credits, add, sub};
use crate::value::id::{EventId, GrantId};
use crate::value::time::Time;

/// Operations that events and crossings share.
pub(super) trait Booking {
    fn parts(&mut self) -> (&mut Core, &mut Pages, &mut Applied);
    fn stamp(&self) -> Stamp;

    /// Books an entry; the caller updates figures and totals.
    fn book(
        &mut self,
        entry_type: EntryType,
        event_id: EventId,
        lots: LotChanges,
        overdraft: Credits,
    ) -> Credits {
        let stamp = self.stamp();
        let (core, _, applied) = self.parts();
        let amount = sub(lots.iter().fold(Credits::ZERO, |sum, change| add(sum, change.amount)), overdraft);
        core.totals.turnover = add(core.totals.turnover, amount.abs());
        let entry = Entry {
            seq: applied.next_seq(),
            entry_type,
            amount,
            balance_after: core.settled(),
            credit_balance_after: core.lots.paid(),
            event_id,
            recorded_at: stamp.recorded_at,
            occurred_at: stamp.occurred_at,
            lots,
            overdraft,
        };
        applied.entries.push(entry);
        amount
    }

    /// Withdraws credits: draws lots in burn order and leaves the rest as overdraft.
    fn take(&mut self, amount: Credits, usage: bool) -> (Draws, Option<Stretch>) {
        let (core, pages, _) = self.parts();
        let draws = core.lots.draw(amount, |lot| pages.put(lot));
        let mut drawn = Credits::ZERO;
        for draw in &draws {
            drawn = add(drawn, draw.amount);
            if usage && draw.is_paid() {
                core.totals.spent = add(core.totals.spent, draw.amount);
            }
            if draw.source == LotSource::Plan {
                core.allowance_drawn = add(core.allowance_drawn, draw.amount);
            }
            if !pages.touched.contains(&draw.grant_id) {
                pages.touched.insert(draw.grant_id.clone());
            }
        }
        let short = sub(amount, drawn);
        let line = short.is_positive().then(|| core.overdraft.take(short, usage));
        (draws, line)
    }

    /// Repays overdraft from drawable credits, oldest withdrawal first, in burn order; returns the draws.
    fn settle_overdraft(&mut self) -> Draws {
        let (core, pages, _) = self.parts();
        let amount = core.overdraft.total().min(core.lots.drawable());
        if !amount.is_positive() {
            return Draws::new();
        }
        let draws = core.lots.draw(amount, |lot| pages.put(lot));
        let pieces = core.overdraft.repay(amount);
        let mut pieces = pieces.into_iter();
        let mut piece = pieces.next();
        for draw in &draws {
            pages.touched.insert(draw.grant_id.clone());
            if draw.source == LotSource::Plan {
                core.allowance_drawn = add(core.allowance_drawn, draw.amount);
            }
            let mut left = draw.amount;
            while left.is_positive() {
                let Some(owed) = &mut piece else { break };
                let paid = left.min(owed.stretch.length());
                let end = add(owed.stretch.start, paid);
                let stretch = Stretch { start: owed.stretch.start, end };
                let repayment = Repayment { stretch, grant_id: draw.grant_id.clone() };
                pages.repayments.insert(stretch.start, repayment.clone());
                pages.new_repayments.push(repayment);
                if owed.usage && draw.is_paid() {
                    core.totals.spent = add(core.totals.spent, paid);
                }
                left = sub(left, paid);
                owed.stretch.start = end;
                if owed.stretch.length().is_zero() {
                    piece = pieces.next();
                }
            }
        }
        draws
    }

    /// Stores a lot: in the core if it has credits left, otherwise in the pages.
    fn keep(&mut self, lot: Lot) {
        let now = self.stamp().recorded_at;
        let (core, pages, _) = self.parts();
        pages.touched.insert(lot.grant_id.clone());
        if lot.remaining.is_positive() {
            core.lots.insert(lot, now);
        } else {
            pages.put(lot);
        }
    }

    /// Adds a lot to the account and repays overdraft from it; returns the entry's changes of lots and overdraft.
    fn put_lot(&mut self, lot: Lot) -> (LotChanges, Credits) {
        let mut changes = Netting::default();
        changes.add(&lot.grant_id, lot.source, lot.remaining);
        self.keep(lot);
        let overdraft = self.settle_into(&mut changes);
        (changes.into_changes(), overdraft)
    }

    /// Repays overdraft and nets the draws into an entry's changes; returns the change of the overdraft.
    fn settle_into(&mut self, changes: &mut Netting) -> Credits {
        let mut repaid = Credits::ZERO;
        for draw in self.settle_overdraft() {
            changes.add(&draw.grant_id, draw.source, draw.amount.negated());
            repaid = add(repaid, draw.amount);
        }
        repaid.negated()
    }

    /// Grants the open period's allowance.
    fn give_allowance(&mut self, now: Time, event_id: &EventId) {
        let offset = self.stamp().offset;
        let (core, _, applied) = self.parts();
        let amount = core.plan.allowance;
        let grant_id = period_lot_id("plan", core.period.index);
        let made_at = (offset, applied.next_seq());
        let lot = Lot {
            expires_at: Some(core.period.ends_at),
            ..new_lot(grant_id, LotSource::Plan, amount, now, event_id, made_at)
        };
        core.allowance_drawn = Credits::ZERO;
        core.figures.added = add(core.figures.added, amount);
        core.figures.granted = add(core.figures.granted, amount);
        core.totals.granted = add(core.totals.granted, amount);
        let (changes, overdraft) = self.put_lot(lot);
        if amount.is_positive() {
            self.book(EntryType::Granted, event_id.clone(), changes, overdraft);
        }
    }
}

/// Time and order of an entry.
pub(super) struct Stamp {
    pub recorded_at: Time,
    pub occurred_at: Time,
    pub offset: i64,
}

/// Changes that are searched one by one; beyond that, an index finds a lot.
const SEARCHED_MAX: usize = 16;

/// An entry's changes of lots, one for each lot, in the order of their first change.
#[derive(Default)]
pub(super) struct Netting {
    changes: LotChanges,
    /// Place of each lot, once there are too many to search.
    places: FxHashMap<GrantId, usize>,
}

impl Netting {
    /// Adds a signed change of a lot.
    pub fn add(&mut self, grant_id: &GrantId, source: LotSource, amount: Credits) {
        match self.place(grant_id).and_then(|place| self.changes.get_mut(place)) {
            Some(change) => change.amount = add(change.amount, amount),
            None => {
                if !self.places.is_empty() {
                    self.places.insert(grant_id.clone(), self.changes.len());
                }
                self.changes.push(LotChange { grant_id: grant_id.clone(), source, amount });
            }
        }
    }

    fn place(&mut self, grant_id: &GrantId) -> Option<usize> {
        if self.changes.len() <= SEARCHED_MAX {
            return self.changes.iter().position(|change| change.grant_id == *grant_id);
        }
        if self.places.is_empty() {
            let places = self.changes.iter().enumerate();
            self.places = places.map(|(place, change)| (change.grant_id.clone(), place)).collect();
        }
        self.places.get(grant_id).copied()
    }

    pub fn into_changes(self) -> LotChanges {
        self.changes
    }
}

/// The change of one lot.
pub(super) fn change_of(grant_id: &GrantId, source: LotSource, amount: Credits) -> LotChanges {
    smallvec![LotChange { grant_id: grant_id.clone(), source, amount }]
}

/// A lot with its source's defaults; `made_at` is the journal offset and the order in the event that creates it.
pub(super) fn new_lot(
    grant_id: GrantId,
    source: LotSource,
    amount: Credits,
    now: Time,
    event_id: &EventId,
    made_at: (i64, i32),
) -> Lot {
    Lot {
        grant_id,
        source,
        amount,
        remaining: amount,
        lapsed: Credits::ZERO,
        refunded: Credits::ZERO,
        priority: default_priority(source),
        effective_at: now,
        expires_at: None,
        granted_at: now,
        voided_at: None,
        event_id: event_id.clone(),
        payment_id: None,
        price: None,
        reason: None,
        offset: made_at.0,
        seq: made_at.1,
    }
}

pub(super) fn period_lot_id(kind: &str, index: i64) -> GrantId {
    GrantId::new(&format!("{kind}:{index}")).expect("a kind and a number are a well-formed id")
}
