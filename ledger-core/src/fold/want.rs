//! Decides what an account's auto top-up does next.
//!
//! The journal decides: the fold accepts a `top_up.started` only if it is wanted at its own position in the log. So one attempt
//! is open at a time and no brake is exceeded, even in a race; and since only an accepted start is charged, a replay never
//! charges. A change here is a change of the fold (`FOLD_VERSION`).

use crate::account::Core;
use crate::account::top_up::{Attempt, AutoTopUp, RETRY_AFTER_SECONDS};
use crate::event::{Brake, TopUpBasis, derive};
use crate::value::credits::{Credits, add};
use crate::value::id::EventId;
use crate::value::time::Time;

/// The next action of the process that runs top-ups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Auto top-up is off, the figure is above the threshold, or a brake's refusal is already recorded.
    Nothing,
    Start(Attempt),
    /// A brake refuses; the refusal has to be recorded.
    Refuse(Brake),
    /// The next attempt has to wait until this time.
    Wait(Time),
    Outcome(Attempt),
}

pub fn want(core: &Core) -> Want {
    let top_ups = &core.top_ups;
    if let (true, Some(attempt)) = (top_ups.is_open, &top_ups.last) {
        return Want::Outcome(attempt.clone());
    }
    if core.closed.is_some() {
        return Want::Nothing;
    }
    let Some(settings) = top_ups.settings.as_ref().filter(|settings| settings.enabled) else {
        return Want::Nothing;
    };
    let (Some(threshold), Some(amount), Some(payment_method)) =
        (settings.threshold, settings.amount, &settings.payment_method)
    else {
        return Want::Nothing;
    };
    if figure(core, settings.basis) > threshold || top_ups.failures as usize > RETRY_AFTER_SECONDS.len() {
        return Want::Nothing;
    }
    if let Some(until) = top_ups.retry_at.filter(|until| *until > core.ledger_time) {
        return Want::Wait(until);
    }
    match brake(core, settings, amount) {
        Some(brake) if top_ups.has_refused(core.period.index, brake) => Want::Nothing,
        Some(brake) => Want::Refuse(brake),
        None => {
            let number = top_ups.numbers_used + 1;
            let attempt_id = derive::attempt_id(&core.account, number);
            Want::Start(Attempt { attempt_id, number, amount, payment_method: payment_method.clone() })
        }
    }
}

fn figure(core: &Core, basis: TopUpBasis) -> Credits {
    match basis {
        TopUpBasis::CreditBalance => core.lots.paid(),
        TopUpBasis::AvailableBalance => core.settled(),
    }
}

fn brake(core: &Core, settings: &AutoTopUp, amount: Credits) -> Option<Brake> {
    let succeeded = core.top_ups.succeeded_in(core.period.index);
    if succeeded.count >= settings.max_per_period {
        return Some(Brake::MaxPerPeriod);
    }
    let most = settings.max_amount_per_period?;
    (add(succeeded.amount, amount) > most).then_some(Brake::MaxAmountPerPeriod)
}

pub(crate) fn refused_id(core: &Core, brake: Brake) -> EventId {
    derive::top_up_refused_id(&core.account, brake, core.top_ups.version, core.period.index)
}
