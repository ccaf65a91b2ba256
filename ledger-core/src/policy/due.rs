//! The events that the scheduler appends for an idle account, so that the log shows its boundaries.
//!
//! The fold crosses every boundary exactly, with or without these events. Their ids are derived, so any number of schedulers
//! may append them.

use crate::account::Core;
use crate::event::derive::{self, SCHEDULER};
use crate::event::{AdvanceClock, Data, Event, ResetPeriod};
use crate::fold::{Want, want};
use crate::value::id::{Label, Source};
use crate::value::time::Time;

/// Most boundaries of one account that one round covers; the next round continues from there.
pub const RESETS_MAX: usize = 100;

/// Returns the next instant at which the scheduler must act on an idle account: never once it is closed; else when time alone changes something, or a
/// failed top-up is to be retried.
pub fn next_due(core: &Core) -> Option<Time> {
    if core.closed.is_some() {
        return None;
    }
    let retry = match want(core) {
        Want::Wait(until) => Some(until),
        Want::Nothing | Want::Start(_) | Want::Refuse(_) | Want::Outcome(_) => None,
    };
    core.next_crossing().into_iter().chain(retry).min()
}

/// Returns the events due by `now`: a reset for each boundary passed, or a tick if only lots start or end.
///
/// `next_crossing` includes the account's lots; `core` may come without them.
pub fn due(core: &Core, next_crossing: Time, now: Time) -> Vec<Event> {
    if next_crossing > now || core.closed.is_some() {
        return Vec::new();
    }
    if core.period.ends_at > now {
        let data = Data::ClockAdvanced(AdvanceClock { advance_to: next_crossing });
        return vec![event(core, derive::tick_id(&core.account, next_crossing), next_crossing, data)];
    }
    let (mut periods, mut period) = (core.periods, core.period);
    let mut events = Vec::new();
    while period.ends_at <= now && period.ends_at < Time::MAX && events.len() < RESETS_MAX {
        let at = period.ends_at;
        // A waiting plan takes effect at the first boundary and stays.
        (periods, period) =
            if events.is_empty() { core.next_period() } else { (periods, periods.next(&period)) };
        let data = Data::PeriodReset(ResetPeriod { index: period.index });
        events.push(event(core, derive::reset_id(&core.account, period.index), at, data));
    }
    events
}

fn event(core: &Core, id: crate::value::id::EventId, at: Time, data: Data) -> Event {
    Event {
        id,
        source: Source::new(SCHEDULER).expect("a well-formed source"),
        account: core.account.clone(),
        occurred_at: at,
        recorded_at: at,
        actor: Label::new("scheduler").expect("a well-formed label"),
        data,
    }
}
