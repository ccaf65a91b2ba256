//! Usage, and the credits that a reversal or a won dispute returns.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::booking::{Booking, Netting, change_of, period_lot_id};
use super::step::{Decision, Step};
use super::{EntryType, Error, Reason, UsageChange};
use crate::account::withdrawal::Withdrawal;
use crate::event::key::{DedupeKey, dedupe_key};
use crate::event::{Data, LotSource, ReverseUsage, Usage};
use crate::fold::pages::Missing;
use crate::value::credits::{Credits, add, sub};
use crate::value::id::GrantId;

/// Most lots to which one event returns credits: those that its usage drew, and those that repaid its overdraft. Bounds
/// the time and the memory of one event; what exceeds it is corrected by adjustments.
pub const RETURNS_MAX: usize = 50_000;

/// Credits to return to lots, one for each lot.
pub(super) type Returns = SmallVec<[(GrantId, Credits); 2]>;

impl Step<'_> {
    pub(super) fn use_credits(&mut self, usage: &Usage) -> Result<(), Reason> {
        let credits = usage.credits.filter(|credits| !credits.is_negative()).ok_or(Reason::UnpricedUsage)?;
        let (draws, line) = self.take(credits, true);
        let core = &mut *self.core;
        core.figures.used = add(core.figures.used, credits);
        core.totals.consumed = add(core.totals.consumed, credits);
        core.totals.turnover = add(core.totals.turnover, credits);
        let withdrawal = Withdrawal {
            event: self.fact.event.clone(),
            period_index: core.period.index,
            credits,
            draws,
            line,
        };
        self.applied.usage = Some(UsageChange { sign: 1, withdrawal: Arc::new(withdrawal) });
        if let Some(call) = &usage.call_id {
            self.charge_call(call);
        }
        Ok(())
    }

    /// Returns a usage's credits to their lots and cancels the rest of its overdraft.
    pub(super) fn reverse(&mut self, reversal: &ReverseUsage) -> Decision {
        let key = dedupe_key(&self.core.account, &reversal.source, &reversal.event_id);
        let missing = || Missing::Event(reversal.source.clone(), reversal.event_id.clone());
        let Some(seen) = self.pages.seen.get(&key).ok_or_else(missing)? else {
            return Ok(Err(Reason::EventUnknown));
        };
        if seen.reversed {
            return Ok(Err(Reason::AlreadyReversed));
        }
        let Some(withdrawal) = seen.withdrawal.clone() else { return Ok(Err(Reason::EventUnknown)) };
        let Some(returns) = self.returns_of(&withdrawal)? else { return Ok(Err(Reason::TooManyLots)) };
        let amount = self.undo(&withdrawal, returns);

        let core = &mut *self.core;
        core.totals.consumed = sub(core.totals.consumed, amount);
        if withdrawal.period_index == core.period.index {
            core.figures.used = sub(core.figures.used, withdrawal.credits);
            self.applied.usage = Some(UsageChange { sign: -1, withdrawal });
        } else {
            core.figures.added = add(core.figures.added, amount);
        }
        self.note_reversed(key);
        Ok(Ok(()))
    }

    pub(super) fn note_reversed(&mut self, key: DedupeKey) {
        if let Some(Some(seen)) = self.pages.seen.get_mut(&key) {
            seen.reversed = true;
        }
        self.applied.reversed = Some(key);
    }

    /// Returns a withdrawal's credits to lots, cancels the rest of its overdraft, and books both; returns the amount.
    pub(super) fn undo(&mut self, withdrawal: &Withdrawal, returns: Returns) -> Credits {
        let is_usage = matches!(withdrawal.event.data, Data::UsageRecorded(_));
        let mut changes = Netting::default();
        let mut kept_back = Credits::ZERO;
        for (grant_id, amount) in returns {
            kept_back = add(kept_back, self.give_back(&grant_id, amount, is_usage, &mut changes));
        }
        let cancelled = withdrawal.line.map_or(Credits::ZERO, |line| self.core.overdraft.cancel(&line));
        let repaid = self.settle_into(&mut changes);
        let overdraft = sub(repaid, cancelled);
        let event_id = self.fact.event.id.clone();
        let amount = self.book(EntryType::Reversed, event_id, changes.into_changes(), overdraft);
        if kept_back.is_positive() {
            self.book_kept_back(kept_back);
        }
        amount
    }

    /// Books the part of a reversal that the plan lot does not take back, because its allowance was lowered since.
    fn book_kept_back(&mut self, amount: Credits) {
        // It has not reached the lot, so the entry of the whole return has to show it in its balance.
        if let Some(entry) = self.applied.entries.last_mut() {
            entry.balance_after = add(entry.balance_after, amount);
        }
        let id = period_lot_id("plan", self.core.period.index);
        let taken = amount.negated();
        self.core.figures.added = add(self.core.figures.added, taken);
        self.core.totals.adjusted = add(self.core.totals.adjusted, taken);
        let changes = change_of(&id, LotSource::Plan, taken);
        self.book(EntryType::Adjusted, self.fact.event.id.clone(), changes, Credits::ZERO);
    }

    /// Lists the credits to return to each lot: its draws, and its repayments of the withdrawal's overdraft. `None` if
    /// there are too many. Errors: the repayments or all the lots that are not loaded.
    pub(super) fn returns_of(&self, withdrawal: &Withdrawal) -> Result<Option<Returns>, Error> {
        let mut parts: Returns =
            withdrawal.draws.iter().map(|draw| (draw.grant_id.clone(), draw.amount)).collect();
        if let Some(line) = withdrawal.line {
            let covered = self.pages.covered.iter().any(|c| c.start <= line.start && line.end <= c.end);
            if !covered {
                return Err(Missing::Repayments(line).into());
            }
            parts.extend(self.pages.repaid(&line));
        }
        if parts.len() > RETURNS_MAX {
            return Ok(None);
        }
        let returns = by_lot(parts);
        let unknown = |(id, _): &&(GrantId, Credits)| self.find_lot(id).is_err();
        let missing = returns.iter().filter(unknown).map(|(id, _)| Missing::Lot(id.clone()));
        let missing: Vec<Missing> = missing.collect();
        if missing.is_empty() { Ok(Some(returns)) } else { Err(Error::Missing(missing)) }
    }

    /// Returns credits to an open lot; those of a closed one count as lapsed. Returns what the lot does not take back.
    fn give_back(
        &mut self,
        grant_id: &GrantId,
        amount: Credits,
        is_usage: bool,
        changes: &mut Netting,
    ) -> Credits {
        let now = self.core.ledger_time;
        let in_core = self.core.lots.remove(grant_id);
        let Some(mut lot) = in_core.or_else(|| self.pages.lots.get(grant_id).cloned().flatten()) else {
            return Credits::ZERO;
        };
        if is_usage && lot.is_paid() {
            self.core.totals.spent = sub(self.core.totals.spent, amount);
        }
        self.pages.touched.insert(grant_id.clone());
        if lot.is_closed(now) {
            lot.lapsed = add(lot.lapsed, amount);
            self.pages.put(lot);
            return Credits::ZERO;
        }
        changes.add(grant_id, lot.source, amount);
        let mut left = add(lot.remaining, amount);
        if lot.source == LotSource::Plan {
            self.core.allowance_drawn = sub(self.core.allowance_drawn, amount);
            left = self.core.allowance_left(lot.amount);
        }
        let kept_back = sub(add(lot.remaining, amount), left);
        lot.remaining = left;
        self.keep(lot);
        kept_back
    }
}

/// Sums the parts of each lot, in the order of their first.
fn by_lot(parts: Returns) -> Returns {
    let mut places: FxHashMap<GrantId, usize> = FxHashMap::default();
    let mut sums = Returns::new();
    for (grant_id, amount) in parts {
        match places.get(&grant_id).and_then(|place| sums.get_mut(*place)) {
            Some((_, sum)) => *sum = add(*sum, amount),
            None => {
                places.insert(grant_id.clone(), sums.len());
                sums.push((grant_id, amount));
            }
        }
    }
    sums
}
