//! Grants, adjustments and voids.

use super::booking::{Booking, change_of};
use super::step::{Decision, Step, is_fold_lot};
use super::{EntryType, Error, Reason};
use crate::account::lot::{Lot, OPEN_LOTS_MAX, default_priority};
use crate::event::{Adjust, Grant, LotSource, VoidGrant};
use crate::fold::pages::Missing;
use crate::value::credits::{Credits, add, sub};
use crate::value::id::GrantId;

impl Step<'_> {
    pub(super) fn grant(&mut self, grant: &Grant) -> Decision {
        let now = self.core.ledger_time;
        if let Err(reason) = self.check_new(&grant.grant_id)? {
            return Ok(Err(reason));
        }
        if grant.expires_at.is_some_and(|expires| expires <= now.max(grant.effective_at.unwrap_or(now))) {
            return Ok(Err(Reason::GrantExpired));
        }
        if self.core.lots.len() >= OPEN_LOTS_MAX {
            return Ok(Err(Reason::TooManyLots));
        }
        let source = grant.source.into();
        let lot = Lot {
            priority: grant.priority.unwrap_or_else(|| default_priority(source)),
            effective_at: grant.effective_at.unwrap_or(now),
            expires_at: grant.expires_at,
            reason: grant.reason.clone(),
            ..self.new_lot(grant.grant_id.clone(), source, grant.amount)
        };
        if lot.effective_at > now {
            self.pages.touched.insert(lot.grant_id.clone());
            self.core.lots.insert(lot, now);
        } else {
            self.core.totals.granted = add(self.core.totals.granted, grant.amount);
            self.add_lot(EntryType::Granted, lot);
        }
        Ok(Ok(()))
    }

    /// Refuses a new lot's id that a lot or a payment of the account has: ended or not, they share one id space.
    pub(super) fn check_new(&self, id: &GrantId) -> Result<Result<(), Reason>, Error> {
        if is_fold_lot(id) {
            return Ok(Err(Reason::GrantReserved));
        }
        let payment = id.as_payment();
        let paid = self.pages.payments.get(&payment).ok_or(Missing::Payment(payment))?;
        let exists = paid.is_some() || self.find_lot(id)?.is_some();
        Ok(if exists { Err(Reason::GrantExists) } else { Ok(()) })
    }

    /// A signed correction: a new lot with the event's id, or a withdrawal.
    pub(super) fn adjust(&mut self, adjustment: &Adjust) -> Decision {
        let amount = adjustment.amount;
        if amount.is_positive() {
            let Ok(grant_id) = GrantId::new(self.fact.event.id.as_str()) else {
                return Ok(Err(Reason::GrantIdMalformed));
            };
            if let Err(reason) = self.check_new(&grant_id)? {
                return Ok(Err(reason));
            }
            if self.core.lots.len() >= OPEN_LOTS_MAX {
                return Ok(Err(Reason::TooManyLots));
            }
            let reason = Some(adjustment.reason.clone());
            let lot = Lot { reason, ..self.new_lot(grant_id, LotSource::Adjustment, amount) };
            self.core.totals.adjusted = add(self.core.totals.adjusted, amount);
            self.add_lot(EntryType::Adjusted, lot);
        } else {
            let taken = amount.negated();
            self.core.totals.adjusted = sub(self.core.totals.adjusted, taken);
            self.core.figures.added = sub(self.core.figures.added, taken);
            let (draws, line) = self.take(taken, false);
            self.book_withdrawal(EntryType::Adjusted, draws, line);
        }
        Ok(Ok(()))
    }

    pub(super) fn void(&mut self, void: &VoidGrant) -> Decision {
        let now = self.core.ledger_time;
        let id = &void.grant_id;
        let Some(lot) = self.find_lot(id)? else { return Ok(Err(Reason::GrantUnknown)) };
        if lot.is_of_plan() || lot.is_closed(now) {
            return Ok(Err(Reason::GrantNotVoidable));
        }
        let waiting = self.core.lots.is_waiting(id);
        let mut lot = self.take_lot(id);
        let taken = std::mem::take(&mut lot.remaining);
        lot.voided_at = Some(now);
        lot.lapsed = add(lot.lapsed, taken);
        let source = lot.source;
        self.keep(lot);
        if taken.is_positive() && !waiting {
            self.core.figures.added = sub(self.core.figures.added, taken);
            self.core.totals.voided = add(self.core.totals.voided, taken);
            let changes = change_of(id, source, taken.negated());
            self.book(EntryType::Voided, self.fact.event.id.clone(), changes, Credits::ZERO);
        }
        Ok(Ok(()))
    }
}
