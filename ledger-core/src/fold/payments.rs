//! Purchases, refunds and disputes.

use super::booking::Booking;
use super::step::{Decision, Step};
use super::{EntryType, Reason};
use crate::account::lot::{Draw, Lot};
use crate::account::withdrawal::{Seen, Withdrawal};
use crate::event::key::dedupe_key;
use crate::event::{Data, Dispute, FailRefund, LotSource, PackExpiry, Price, Purchase, TopUp};
use crate::fold::pages::{Missing, opening_of, refunding_of};
use crate::value::credits::{Credits, add, sub};
use crate::value::id::{Currency, EventId, GrantId, PaymentId, Source};
use crate::value::money::Usd;

impl Step<'_> {
    pub(super) fn purchase(&mut self, purchase: &Purchase) -> Decision {
        let payment = &purchase.payment_id;
        let known = self.pages.payments.get(payment).ok_or_else(|| Missing::Payment(payment.clone()))?;
        if known.is_some() {
            return Ok(Err(Reason::PaymentExists));
        }
        let grant_id = payment.as_grant();
        if let Err(reason) = self.check_new(&grant_id)? {
            return Ok(Err(reason));
        }
        let lot = self.paid_lot(LotSource::Purchase, grant_id, payment, purchase.amount);
        let lot = Lot { price: purchase.price.clone().or(lot.price), ..lot };
        self.core.totals.purchased = add(self.core.totals.purchased, purchase.amount);
        self.core.top_ups.start_afresh();
        self.add_lot(EntryType::Purchased, lot);
        Ok(Ok(()))
    }

    /// Credits a paid attempt, even if it was recorded as failed before.
    pub(super) fn top_up(&mut self, top_up: &TopUp) -> Decision {
        let (grant_id, payment) = (top_up.attempt_id.as_grant(), &top_up.payment_id);
        let known = self.pages.payments.get(payment).ok_or_else(|| Missing::Payment(payment.clone()))?;
        if known.is_some() || self.find_lot(&grant_id)?.is_some_and(Lot::is_paid) {
            return Ok(Err(Reason::PaymentExists));
        }
        for id in [&grant_id, &payment.as_grant()] {
            if let Err(reason) = self.check_new(id)? {
                return Ok(Err(reason));
            }
        }
        let lot = self.paid_lot(LotSource::TopUp, grant_id, payment, top_up.amount);
        let lot = Lot { price: top_up.price.clone().or(lot.price), ..lot };
        let core = &mut *self.core;
        core.totals.topped_up = add(core.totals.topped_up, top_up.amount);
        core.top_ups.succeed(&top_up.attempt_id, top_up.amount, core.period.index);
        self.add_lot(EntryType::ToppedUp, lot);
        Ok(Ok(()))
    }

    /// Creates a paid lot that starts now, and registers its payment.
    fn paid_lot(
        &mut self,
        source: LotSource,
        grant_id: GrantId,
        payment: &PaymentId,
        amount: Credits,
    ) -> Lot {
        let expires_at = match self.core.plan.pack_expiry {
            PackExpiry::PeriodEnd => Some(self.core.period.ends_at),
            PackExpiry::Never => None,
        };
        self.pages.payments.insert(payment.clone(), Some(grant_id.clone()));
        let (payment_id, price) = (Some(payment.clone()), self.list_price(amount));
        Lot { expires_at, payment_id, price, ..self.new_lot(grant_id, source, amount) }
    }

    /// Returns the price of an amount at the account's value of a unit; `None` if it has none.
    fn list_price(&self, amount: Credits) -> Option<Price> {
        let price = Usd::price_of(amount, self.core.usd_per_unit?)?;
        Some(Price { amount: price.to_credits(), currency: Currency::usd() })
    }

    /// Takes a payment back: first from what remains of its lot, then from what lapsed (takes nothing), then what was
    /// spent, as an ordinary withdrawal.
    pub(super) fn take_payment(&mut self, payment: &PaymentId, amount: Credits) -> Decision {
        let known = self.pages.payments.get(payment).ok_or_else(|| Missing::Payment(payment.clone()))?;
        let Some(id) = known.clone() else { return Ok(Err(Reason::PaymentUnknown)) };
        let Some(lot) = self.find_lot(&id)? else { return Ok(Err(Reason::PaymentUnknown)) };
        if add(lot.refunded, amount) > lot.amount {
            return Ok(Err(Reason::RefundExceedsPayment));
        }
        let mut lot = self.take_lot(&id);
        let remaining = amount.min(lot.remaining);
        let lapsed = sub(amount, remaining).min(lot.lapsed);
        let spent = sub(sub(amount, remaining), lapsed);
        lot.remaining = sub(lot.remaining, remaining);
        lot.lapsed = sub(lot.lapsed, lapsed);
        lot.refunded = add(lot.refunded, amount);
        let own = Draw { grant_id: id.clone(), source: lot.source, amount: remaining };
        self.keep(lot);
        let (mut draws, line) = self.take(spent, false);
        if own.amount.is_positive() {
            draws.insert(0, own);
        }
        let moved = self.book_withdrawal(EntryType::Refunded, draws, line).negated();
        self.core.figures.added = sub(self.core.figures.added, moved);
        self.core.totals.refunded = add(self.core.totals.refunded, moved);
        Ok(Ok(()))
    }

    /// Undoes the withdrawal of a dispute that the account has won.
    pub(super) fn win(&mut self, dispute: &Dispute) -> Decision {
        let opened = opening_of(&self.core.account, dispute);
        self.undo_taking(opened, &dispute.payment_id, Reason::DisputeUnknown)
    }

    /// Undoes a refund whose money the provider could not give back.
    pub(super) fn fail_refund(&mut self, failure: &FailRefund) -> Decision {
        let refunded = refunding_of(&self.core.account, failure);
        self.undo_taking(refunded, &failure.payment_id, Reason::RefundUnknown)
    }

    /// Undoes the event that took a payment back, which has to be of this payment.
    fn undo_taking(
        &mut self,
        (source, id): (Source, EventId),
        payment_id: &PaymentId,
        unknown: Reason,
    ) -> Decision {
        let key = dedupe_key(&self.core.account, &source, &id);
        let seen = self.pages.seen.get(&key).ok_or(Missing::Event(source, id))?;
        let (withdrawal, is_undone) = match seen {
            Some(Seen { withdrawal: Some(withdrawal), reversed, .. }) => (withdrawal.clone(), *reversed),
            _ => return Ok(Err(unknown)),
        };
        if taken_payment(&withdrawal.event.data) != Some(payment_id) {
            return Ok(Err(unknown));
        }
        if is_undone {
            return Ok(Err(Reason::AlreadyReversed));
        }
        let payment =
            self.pages.payments.get(payment_id).ok_or_else(|| Missing::Payment(payment_id.clone()))?;
        let Some(id) = payment.clone() else { return Ok(Err(Reason::PaymentUnknown)) };
        if self.find_lot(&id)?.is_none() {
            return Ok(Err(Reason::PaymentUnknown));
        }
        let Some(returns) = self.returns_of(&withdrawal)? else { return Ok(Err(Reason::TooManyLots)) };
        self.uncontest(&id, &withdrawal);
        let amount = self.undo(&withdrawal, returns);
        self.core.figures.added = add(self.core.figures.added, amount);
        self.core.totals.refunded = sub(self.core.totals.refunded, amount);
        self.note_reversed(key);
        Ok(Ok(()))
    }

    /// Reverts a dispute's or refund's marks in its payment's lot: the refunded and the lapsed amounts.
    fn uncontest(&mut self, id: &GrantId, withdrawal: &Withdrawal) {
        let mut lot = self.take_lot(id);
        let moved = withdrawal.draws.iter().fold(Credits::ZERO, |sum, draw| add(sum, draw.amount));
        let moved = add(moved, withdrawal.line.map_or(Credits::ZERO, |line| line.length()));
        lot.lapsed = add(lot.lapsed, sub(withdrawal.credits, moved));
        lot.refunded = sub(lot.refunded, withdrawal.credits);
        self.keep(lot);
    }
}

/// Returns the payment that an event took back.
fn taken_payment(data: &Data) -> Option<&PaymentId> {
    if let Data::DisputeOpened(dispute) = data {
        Some(&dispute.payment_id)
    } else if let Data::CreditsRefunded(refund) = data {
        Some(&refund.payment_id)
    } else {
        None
    }
}
