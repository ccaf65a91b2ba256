//! Usage, and the credits that a reversal or a won dispute returns.

use std::sync::Arc;

use smallvec::SmallVec;

use super::booking::{Booking, change};
use super::step::{Decision, Step};
use super::{EntryType, Error, LotChanges, Reason, UsageChange};
use crate::account::withdrawal::Withdrawal;
use crate::event::key::{DedupeKey, dedupe_key};
use crate::event::{Data, ReverseUsage, Usage};
use crate::fold::pages::Missing;
use crate::value::credits::{Credits, add, sub};
use crate::value::id::GrantId;

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
        let returns = self.returns_of(&withdrawal)?;
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
    pub(super) fn undo(
        &mut self,
        withdrawal: &Withdrawal,
        returns: SmallVec<[(GrantId, Credits); 2]>,
    ) -> Credits {
        let is_usage = matches!(withdrawal.event.data, Data::UsageRecorded(_));
        let mut changes = LotChanges::new();
        for (grant_id, amount) in returns {
            self.give_back(&grant_id, amount, is_usage, &mut changes);
        }
        let cancelled = withdrawal.line.map_or(Credits::ZERO, |line| self.core.overdraft.cancel(&line));
        let repaid = self.settle_into(&mut changes);
        let overdraft = sub(repaid, cancelled);
        self.book(EntryType::Reversed, self.fact.event.id.clone(), changes, overdraft)
    }

    /// Lists the credits to return to each lot: its draws, and its repayments of the withdrawal's overdraft. Errors:
    /// all the lots that are not loaded.
    pub(super) fn returns_of(
        &self,
        withdrawal: &Withdrawal,
    ) -> Result<SmallVec<[(GrantId, Credits); 2]>, Error> {
        let mut returns: SmallVec<[(GrantId, Credits); 2]> =
            withdrawal.draws.iter().map(|draw| (draw.grant_id.clone(), draw.amount)).collect();
        if let Some(line) = withdrawal.line {
            let covered = self.pages.covered.iter().any(|c| c.start <= line.start && line.end <= c.end);
            if !covered {
                return Err(Missing::Repayments(line).into());
            }
            for repayment in self.pages.repayments.range(..line.end).map(|(_, repayment)| repayment) {
                if let Some(both) = repayment.stretch.overlap(&line) {
                    returns.push((repayment.grant_id.clone(), both.length()));
                }
            }
        }
        let unknown = |(id, _): &&(GrantId, Credits)| self.find_lot(id).is_err();
        let missing = returns.iter().filter(unknown).map(|(id, _)| Missing::Lot(id.clone()));
        let missing: Vec<Missing> = missing.collect();
        if missing.is_empty() { Ok(returns) } else { Err(Error::Missing(missing)) }
    }

    /// Returns credits to an open lot; those of a closed one count as lapsed.
    fn give_back(&mut self, grant_id: &GrantId, amount: Credits, is_usage: bool, changes: &mut LotChanges) {
        let now = self.core.ledger_time;
        let in_core = self.core.lots.remove(grant_id);
        let Some(mut lot) = in_core.or_else(|| self.pages.lots.get(grant_id).cloned().flatten()) else {
            return;
        };
        if is_usage && lot.is_paid() {
            self.core.totals.spent = sub(self.core.totals.spent, amount);
        }
        self.pages.touched.insert(grant_id.clone());
        if lot.is_closed(now) {
            lot.lapsed = add(lot.lapsed, amount);
            self.pages.put(lot);
        } else {
            lot.remaining = add(lot.remaining, amount);
            change(changes, grant_id, lot.source, amount);
            self.core.lots.insert(lot, now);
        }
    }
}
