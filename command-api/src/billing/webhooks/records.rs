//! Records: the events that follow from what webhooks report about a payment.

use ledger_core::event::{Data, Dispute, Event, FailRefund, FailTopUp, Purchase, Refund, TopUp, derive};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, EventId, Label, NameError, RefundId, Source, Text};
use ledger_core::value::time::Time;

use super::payment::{LedgerEffect, Payment};

/// An effect as it goes into the journal.
#[derive(Debug, Clone)]
pub struct Record {
    pub kind: Kind,
    /// In the account's unit; zero if nothing moves.
    pub amount: Credits,
    pub event: Event,
}

/// What an effect does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Paid,
    Failed,
    Refunded,
    RefundFailed,
    DisputeOpened,
    DisputeWon,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Paid => "paid",
            Kind::Failed => "failed",
            Kind::Refunded => "refunded",
            Kind::RefundFailed => "refund_failed",
            Kind::DisputeOpened => "dispute_opened",
            Kind::DisputeWon => "dispute_won",
        }
    }

    /// Returns whether a refusal by the fold needs a person. A failure that is reported after the payment is refused, and
    /// rightly.
    pub fn is_followed(self) -> bool {
        self != Kind::Failed
    }
}

/// Makes the records of a payment's due effects, in order; none while its account is unknown.
pub fn due(payment: &mut Payment, at: Time, actor: &Label) -> Result<Vec<Record>, NameError> {
    let Some(account) = payment.account.clone() else { return Ok(Vec::new()) };
    let due = payment.due();
    due.iter().filter_map(|effect| record(payment, &account, effect, at, actor).transpose()).collect()
}

/// Makes the record of an effect; none of a failure that is no attempt's.
fn record(
    payment: &Payment,
    account: &AccountId,
    effect: &LedgerEffect,
    at: Time,
    actor: &Label,
) -> Result<Option<Record>, NameError> {
    let (kind, amount) = match effect {
        LedgerEffect::Paid { amount } => (Kind::Paid, *amount),
        LedgerEffect::Failed { .. } => (Kind::Failed, Credits::ZERO),
        LedgerEffect::Refunded { amount, .. } => (Kind::Refunded, *amount),
        LedgerEffect::RefundFailed { amount, .. } => (Kind::RefundFailed, *amount),
        LedgerEffect::Opened { amount, .. } => (Kind::DisputeOpened, *amount),
        LedgerEffect::Won { amount, .. } => (Kind::DisputeWon, *amount),
    };
    let Some((source, id, data)) = content(payment, account, effect)? else { return Ok(None) };
    let event = Event {
        id,
        source: Source::new(source)?,
        account: account.clone(),
        occurred_at: at,
        recorded_at: at,
        actor: actor.clone(),
        data,
    };
    Ok(Some(Record { kind, amount, event }))
}

type Content = (&'static str, EventId, Data);

fn content(
    payment: &Payment,
    account: &AccountId,
    effect: &LedgerEffect,
) -> Result<Option<Content>, NameError> {
    let payment_id = payment.journal_id().clone();
    Ok(Some(match effect {
        LedgerEffect::Paid { amount } => match payment.attempt.clone() {
            Some(attempt_id) => (
                derive::TOP_UPS,
                derive::topped_up_id(account, &attempt_id),
                Data::CreditsToppedUp(TopUp {
                    attempt_id,
                    payment_id,
                    amount: *amount,
                    price: payment.price(),
                }),
            ),
            None => {
                let event_id = payment_id.as_event();
                (
                    derive::GRANTS,
                    event_id,
                    Data::CreditsPurchased(Purchase { payment_id, amount: *amount, price: payment.price() }),
                )
            }
        },
        LedgerEffect::Failed { reason } => {
            let Some(attempt_id) = payment.attempt.clone() else { return Ok(None) };
            let event_id = derive::top_up_failed_id(account, &attempt_id);
            let reason = Text::new(reason)?;
            (derive::TOP_UPS, event_id, Data::TopUpFailed(FailTopUp { attempt_id, reason }))
        }
        LedgerEffect::Refunded { amount, name, is_named } => {
            // A kind of its own: no caller's Idempotency-Key names it.
            let refund = RefundId::new(name)?;
            let event_id = derive::refunded_id(account, &refund);
            let reason = Text::new("refunded at the payment provider").ok();
            let refund_id = is_named.then_some(refund);
            (
                derive::API,
                event_id,
                Data::CreditsRefunded(Refund { payment_id, refund_id, amount: *amount, reason }),
            )
        }
        LedgerEffect::RefundFailed { amount, name } => {
            let (refund_id, amount) = (RefundId::new(name)?, *amount);
            let event_id = derive::refund_failed_id(account, &refund_id);
            (derive::API, event_id, Data::RefundFailed(FailRefund { payment_id, refund_id, amount }))
        }
        LedgerEffect::Opened { dispute, amount } => {
            let (dispute_id, amount) = (dispute.clone(), *amount);
            let data = Data::DisputeOpened(Dispute { payment_id, dispute_id, amount });
            (derive::DISPUTES, derive::dispute_opened_id(account, dispute), data)
        }
        LedgerEffect::Won { dispute, amount } => {
            let (dispute_id, amount) = (dispute.clone(), *amount);
            let data = Data::DisputeWon(Dispute { payment_id, dispute_id, amount });
            (derive::DISPUTES, derive::dispute_won_id(account, dispute), data)
        }
    }))
}
