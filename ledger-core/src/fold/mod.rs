//! The fold: one pure function from the events of an account, in log order, to its balance and entries.
//!
//! `apply` works on an account's core and its loaded pages. It names missing pages before it changes anything, except
//! for the boundaries that time has crossed, whose effects it keeps for the next call. It refuses a result that does not
//! conserve credits, in every build. Two rules carry the money: a
//! withdrawal draws lots in burn order and leaves the rest as overdraft (`take`); an addition first repays overdraft,
//! oldest first (`settle_overdraft`). Both are in `booking`, the effects of time in `crossing`, and those of each type of
//! event in a module that `step` calls.

mod applied;
mod booking;
mod calls;
mod closing;
mod crossing;
mod error;
mod grants;
pub mod memory;
mod outcome;
pub mod pages;
mod payments;
mod settings;
mod step;
mod top_ups;
mod usage;
mod want;

use std::sync::Arc;

use crate::account::Core;
use crate::account::withdrawal::{Seen, Withdrawal};
use crate::event::{Clock, Data, OpenAccount};
use crate::fold::pages::{Missing, Pages};
use crate::value::time::Time;
pub use applied::{
    Applied, ClosedPeriod, Entry, EntryType, Fact, LotChange, LotChanges, Moment, Observer, UsageChange,
};
use booking::Booking;
use crossing::Crossing;
pub use error::Error;
pub use outcome::{Outcome, Reason};
pub use step::TURNOVER_MAX;
use step::{Step, decide};
pub use usage::RETURNS_MAX;
pub(crate) use want::refused_id;
pub use want::{Want, want};

/// Version of the rules, the time-zone data among them; fixed per generation of a read model.
pub const FOLD_VERSION: i32 = 5;
/// Most seconds that a live account's ledger time may be ahead of the broker's append time.
pub const AHEAD_OF_BROKER_MAX_SECONDS: i64 = 2;
/// Most boundaries, lot starts and lot ends that one move of a test clock may cross.
pub const CROSSINGS_MAX: i64 = 5_000;

/// Applies the next event of an account.
///
/// Errors: pages that have to be loaded first, or credits that are not conserved; see [`Error`].
pub fn apply(core: &mut Option<Core>, pages: &mut Pages, fact: &Fact) -> Result<Applied, Error> {
    apply_watched(core, pages, fact, &mut ())
}

/// Like [`apply`], with an observer. After missing pages, it does not repeat what the observer has already seen.
pub fn apply_watched(
    core: &mut Option<Core>,
    pages: &mut Pages,
    fact: &Fact,
    observer: &mut impl Observer,
) -> Result<Applied, Error> {
    let event = &*fact.event;
    if let Data::AccountOpened(opening) = &event.data
        && core.is_none()
    {
        return open(core, pages, fact, opening, observer);
    }
    let Some(core) = core else {
        return Ok(Applied { outcome: Outcome::Rejected(Reason::AccountNotOpen), ..Applied::default() });
    };
    let seen =
        pages.seen.get(&fact.key).ok_or_else(|| Missing::Event(event.source.clone(), event.id.clone()))?;
    let repeated = seen
        .as_ref()
        .map(|first| if first.content == fact.content { Outcome::Duplicate } else { Outcome::Conflict });

    let now = ledger_time(core, fact);
    if core.clock == Clock::Test && core.crosses(now) && core.crossings_until(now) > CROSSINGS_MAX {
        core.events += 1;
        if repeated.is_none() {
            remember(pages, fact, None);
        }
        let mut applied = Applied {
            outcome: repeated.unwrap_or(Outcome::Rejected(Reason::ClockJump)),
            ..Applied::default()
        };
        finish(core, &mut applied)?;
        return Ok(applied);
    }
    let mut applied = pages.unfinished.take().map_or_else(Applied::default, |unfinished| *unfinished);
    roll(core, pages, fact.offset, now, &mut applied, observer);
    core.ledger_time = now;

    let added = core.figures.added;
    let outcome = match repeated {
        Some(outcome) => Ok(outcome),
        None => decide(core, pages, fact, &mut applied),
    };
    match outcome {
        Ok(outcome) => applied.outcome = outcome,
        Err(error) => {
            pages.unfinished = Some(Box::new(applied));
            return Err(error);
        }
    }
    if repeated.is_none() {
        let withdrawal = withdrawal_of(core, fact, &applied);
        remember(pages, fact, withdrawal);
    }
    core.events += 1;
    finish(core, &mut applied)?;
    let effect = (applied.outcome == Outcome::Applied).then_some(&event.data);
    let adds = effect.is_some_and(is_addition) && core.figures.added > added;
    observer.after(core, &Moment { at: now, event_id: &event.id, applied: effect, adds });
    Ok(applied)
}

/// Returns whether an event of this type can add to the period's maximum. Credits returned by a reversal do not
/// count.
fn is_addition(data: &Data) -> bool {
    matches!(
        data,
        Data::CreditsGranted(_)
            | Data::CreditsPurchased(_)
            | Data::CreditsToppedUp(_)
            | Data::CreditsAdjusted(_)
            | Data::PlanChanged(_)
    )
}

/// Moves an account to `until`, crossing every boundary, lot start and lot end on the way.
///
/// For reads that need a state between two events.
pub fn roll_to(core: &mut Core, until: Time) {
    roll_with(core, &mut Pages::default(), until);
}

/// Like [`roll_to`], for a state that will be folded further: lots that leave the core are kept in `pages`.
pub fn roll_with(core: &mut Core, pages: &mut Pages, until: Time) {
    roll_watched(core, pages, until, &mut ());
}

/// Like [`roll_with`], with an observer.
pub fn roll_watched(core: &mut Core, pages: &mut Pages, until: Time, observer: &mut impl Observer) {
    roll(core, pages, 0, until, &mut Applied::default(), observer);
    core.ledger_time = core.ledger_time.max(until);
}

/// Ledger time of an event: its stamp, on live accounts clamped to the broker's time; it never goes back.
fn ledger_time(core: &Core, fact: &Fact) -> Time {
    core.ledger_time.max(stamped(core.clock, fact))
}

fn stamped(clock: Clock, fact: &Fact) -> Time {
    match clock {
        Clock::Live => fact.event.recorded_at.min(fact.appended_at.plus_seconds(AHEAD_OF_BROKER_MAX_SECONDS)),
        Clock::Test => fact.event.recorded_at,
    }
}

fn remember(pages: &mut Pages, fact: &Fact, withdrawal: Option<Arc<Withdrawal>>) {
    pages.seen.insert(fact.key, Some(Seen { content: fact.content, withdrawal, reversed: false }));
}

/// The withdrawal of an event that a later event may undo.
fn withdrawal_of(core: &Core, fact: &Fact, applied: &Applied) -> Option<Arc<Withdrawal>> {
    if applied.outcome != Outcome::Applied {
        return None;
    }
    match &fact.event.data {
        Data::UsageRecorded(_) => applied.usage.as_ref().map(|usage| usage.withdrawal.clone()),
        Data::DisputeOpened(dispute) => Some(Arc::new(Withdrawal {
            event: fact.event.clone(),
            period_index: core.period.index,
            credits: dispute.amount,
            draws: applied.draws.clone(),
            line: applied.line,
        })),
        Data::CreditsRefunded(refund) => Some(Arc::new(Withdrawal {
            event: fact.event.clone(),
            period_index: core.period.index,
            credits: refund.amount,
            draws: applied.draws.clone(),
            line: applied.line,
        })),
        Data::AccountOpened(_)
        | Data::AccountChanged(_)
        | Data::AccountClosed(_)
        | Data::PlanChanged(_)
        | Data::ClockAdvanced(_)
        | Data::UsageReversed(_)
        | Data::CreditsGranted(_)
        | Data::GrantVoided(_)
        | Data::CreditsAdjusted(_)
        | Data::CreditsPurchased(_)
        | Data::RefundFailed(_)
        | Data::PeriodReset(_)
        | Data::LimitsSet(_)
        | Data::UserLimitSet(_)
        | Data::OrgAlertSet(_)
        | Data::OrgAlertRemoved(_)
        | Data::UserAlertSet(_)
        | Data::AutoTopUpSet(_)
        | Data::TopUpStarted(_)
        | Data::TopUpFailed(_)
        | Data::TopUpRefused(_)
        | Data::CreditsToppedUp(_)
        | Data::DisputeWon(_) => None,
    }
}

/// Completes an event's result, and refuses one that made or lost credits: a wrong balance must never be stored.
fn finish(core: &Core, applied: &mut Applied) -> Result<(), Error> {
    applied.ledger_time = Some(core.ledger_time);
    applied.period_index = core.period.index;
    applied.balance_after = core.settled();
    applied.credit_balance_after = core.lots.paid();
    let (account, booked, settled) = (&core.account, core.conserved(), core.settled());
    if booked == settled {
        Ok(())
    } else {
        Err(Error::NotConserved { account: account.clone(), booked, settled })
    }
}

fn open(
    slot: &mut Option<Core>,
    pages: &mut Pages,
    fact: &Fact,
    opening: &OpenAccount,
    observer: &mut impl Observer,
) -> Result<Applied, Error> {
    let mut applied = Applied::default();
    let now = stamped(opening.clock.unwrap_or_default(), fact);
    let core = slot.insert(Core::open(fact.event.account.clone(), opening, now));
    let mut step = Step { core, pages, fact, applied: &mut applied };
    step.give_allowance(now, &fact.event.id.clone());
    remember(pages, fact, None);
    core.events += 1;
    finish(core, &mut applied)?;
    let event = &*fact.event;
    let moment = Moment { at: now, event_id: &event.id, applied: Some(&event.data), adds: true };
    observer.after(core, &moment);
    Ok(applied)
}

/// Crosses every instant at or before `until`, in order; at one instant first the lots that end, then the boundary,
/// then the lots that start.
fn roll(
    core: &mut Core,
    pages: &mut Pages,
    offset: i64,
    until: Time,
    applied: &mut Applied,
    observer: &mut impl Observer,
) {
    while let Some(at) = core.next_crossing().filter(|at| *at <= until) {
        let mut crossing = Crossing { core, pages, offset, at, applied };
        if crossing.core.next_boundary() == Some(at) {
            crossing.boundary(observer);
        } else {
            crossing.end_lots(observer);
        }
        crossing.start_lots(observer);
        core.ledger_time = core.ledger_time.max(at);
    }
}
