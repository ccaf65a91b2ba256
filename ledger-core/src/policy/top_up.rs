//! Auto top-up: the events by which an attempt starts, ends or is refused.

use crate::account::Core;
use crate::account::top_up::Attempt;
use crate::event::derive::{self, TOP_UPS};
use crate::event::{Brake, Data, Event, FailTopUp, Price, RefuseTopUp, StartTopUp, TopUp};
use crate::fold::refused_id;
pub use crate::fold::{Want, want};
use crate::value::credits::Credits;
use crate::value::id::{AccountId, AttemptId, EventId, Label, PaymentId, Source, Text};
use crate::value::time::Time;

/// Makes the event that starts an attempt.
pub fn started(account: &AccountId, attempt: &Attempt, at: Time) -> Event {
    let Attempt { attempt_id, amount, payment_method, .. } = attempt.clone();
    let id = attempt_id.as_event();
    event(account, id, at, Data::TopUpStarted(StartTopUp { attempt_id, amount, payment_method }))
}

/// Makes the event that records a brake's refusal in the open period under the current settings.
pub fn refused(core: &Core, brake: Brake, at: Time) -> Event {
    let id = refused_id(core, brake);
    event(&core.account, id, at, Data::TopUpRefused(RefuseTopUp { reason: brake }))
}

/// Makes the event that credits a paid attempt.
pub fn succeeded(
    account: &AccountId,
    attempt_id: AttemptId,
    payment_id: PaymentId,
    amount: Credits,
    price: Option<Price>,
    at: Time,
) -> Event {
    let id = derive::topped_up_id(account, &attempt_id);
    event(account, id, at, Data::CreditsToppedUp(TopUp { attempt_id, payment_id, amount, price }))
}

/// Makes the event that ends an unpaid attempt.
pub fn failed(account: &AccountId, attempt_id: AttemptId, reason: Text, at: Time) -> Event {
    let id = derive::top_up_failed_id(account, &attempt_id);
    event(account, id, at, Data::TopUpFailed(FailTopUp { attempt_id, reason }))
}

fn event(account: &AccountId, id: EventId, at: Time, data: Data) -> Event {
    Event {
        id,
        source: Source::new(TOP_UPS).expect("a well-formed source"),
        account: account.clone(),
        occurred_at: at,
        recorded_at: at,
        actor: Label::new("auto-top-up").expect("a well-formed label"),
        data,
    }
}
