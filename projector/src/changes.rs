//! Changes: the table rows that a batch writes, collected event by event.

use engine::fold::{Reversed, lot_changes};
use ledger_core::account::Core;
use ledger_core::account::lot::Lot;
use ledger_core::event::{Clock, Data, Event, Usage};
use ledger_core::fold::{Applied, ClosedPeriod, Entry, Fact, Outcome, Reason};
use ledger_core::value::id::{AccountId, CallId, MessageId, ReservationId, UserId};
use ledger_core::value::time::Time;
use platform::kafka::Record;
use platform::pg::Rows;
use serde::Serialize;

use crate::counters::Counters;
use crate::own_limits::OwnLimits;

/// An account writes a snapshot at each event number that is a multiple of this, so that `as_of` folds fewer events.
pub const SNAPSHOT_EVERY: u64 = 1_000;

/// Everything that a batch writes, except accounts and lots, whose final state is known only at its end.
#[derive(Debug, Default)]
pub struct Changes {
    pub events: Rows,
    pub refused: Rows,
    pub entries: Rows,
    pub periods: Rows,
    pub snapshots: Rows,
    pub ended_holds: Rows,
    pub dead_letters: Rows,
    /// Reversed usage events, and the times of their reversals.
    pub reversed: Vec<Reversed>,
    pub counters: Counters,
    pub own_limits: OwnLimits,
}

/// The whole state of an account, read back as `account::Snapshot`.
#[derive(Serialize)]
struct SnapshotBody<'a> {
    core: &'a Core,
    lots: Vec<&'a Lot>,
}

impl Changes {
    pub fn folded(&mut self, fact: &Fact, applied: &Applied, core: Option<&Core>) {
        let event = &*fact.event;
        let ledger_time = applied.ledger_time.unwrap_or(event.recorded_at);
        match applied.outcome {
            // A duplicate of another usage of its call is the first event of its own id.
            Outcome::Duplicate if applied.duplicate_of.is_some() => {
                self.push_event(fact, applied, ledger_time)
            }
            Outcome::Duplicate | Outcome::Conflict | Outcome::Rejected(Reason::AccountNotOpen) => {
                self.push_refused(fact, applied, ledger_time);
            }
            Outcome::Applied | Outcome::Rejected(_) => self.push_event(fact, applied, ledger_time),
        }
        for entry in &applied.entries {
            self.push_entry(&event.account, fact.offset, entry);
        }
        for closed in &applied.closed {
            self.push_period(&event.account, closed);
        }
        self.reversed.extend(Reversed::of(fact, applied));
        let Some(core) = core else { return };
        if let Some(usage) = &applied.usage {
            self.counters.count(core, usage);
        }
        if applied.outcome == Outcome::Applied
            && let Some(limits) = &core.limits
        {
            self.own_limits.collect(&core.account, limits, &event.data);
        }
        if leaves_snapshot(event, applied, core) {
            self.push_snapshot(fact.offset, core);
        }
    }

    /// Collects a record that is not an event of its account.
    pub fn dead_letter(&mut self, record: &Record, reason: &str) {
        let row = self.dead_letters.row();
        row.int(record.position.partition)
            .bigint(record.position.offset)
            .time(record.appended_at)
            .text(reason);
        row.maybe_bytes(record.key.as_deref()).bytes(record.value_bytes());
    }

    fn push_event(&mut self, fact: &Fact, applied: &Applied, ledger_time: Time) {
        let event = &*fact.event;
        let usage = if let Data::UsageRecorded(usage) = &event.data { Some(usage) } else { None };
        if let Some(reservation) = usage.and_then(|usage| usage.reservation_id.as_ref())
            && applied.outcome == Outcome::Applied
        {
            self.push_ended_hold(event, reservation);
        }
        // The event's own withdrawal: a reversal also carries that of the usage it reverses.
        let withdrawal = usage.and(applied.usage.as_ref()).map(|change| &change.withdrawal);
        let draws = withdrawal
            .map(|withdrawal| &withdrawal.draws)
            .or_else(|| taken(applied).then_some(&applied.draws));
        let line = withdrawal.map_or(applied.line, |withdrawal| withdrawal.line);
        let row = self.events.row();
        row.text(event.account.as_str())
            .bigint(fact.offset)
            .text(event.id.as_str())
            .text(event.source.as_str())
            .text(event.data.type_name())
            .text(applied.outcome.as_str())
            .maybe_text(applied.outcome.reason().map(|reason| reason.code()))
            .bytes(&fact.content.0)
            .time(event.occurred_at)
            .time(event.recorded_at)
            .time(fact.appended_at)
            .time(ledger_time)
            .text(event.actor.as_str())
            .json_text(&ledger_core::event::wire::data_json(&event.data))
            .bigint(applied.period_index)
            .maybe_text(usage.and_then(|usage| usage.user_id.as_ref()).map(UserId::as_str))
            .maybe_text(usage.and_then(|usage| usage.message_id.as_ref()).map(MessageId::as_str))
            .maybe_amount(withdrawal.map(|withdrawal| withdrawal.credits));
        row.maybe_json(draws.map(lot_changes).as_ref())
            .maybe_amount(line.map(|line| line.start))
            .maybe_amount(line.map(|line| line.end))
            .maybe_amount(withdrawal.map(|_| applied.balance_after))
            .maybe_amount(withdrawal.map(|_| applied.credit_balance_after))
            .maybe_int(withdrawal.map(|_| applied.next_seq()))
            .maybe_text(charged_call(usage, applied))
            .maybe_text(applied.duplicate_of.as_ref().map(|(_, id)| id.as_str()))
            .maybe_text(applied.duplicate_of.as_ref().map(|(source, _)| source.as_str()));
    }

    fn push_ended_hold(&mut self, event: &Event, reservation: &ReservationId) {
        let row = self.ended_holds.row();
        row.text(event.account.as_str()).text(reservation.as_str()).text(event.id.as_str());
    }

    fn push_refused(&mut self, fact: &Fact, applied: &Applied, ledger_time: Time) {
        let event = &*fact.event;
        self.refused
            .row()
            .text(event.account.as_str())
            .bigint(fact.offset)
            .text(event.id.as_str())
            .text(event.source.as_str())
            .text(event.data.type_name())
            .text(applied.outcome.as_str())
            .maybe_text(applied.outcome.reason().map(|reason| reason.code()))
            .time(ledger_time)
            .json_text(&ledger_core::event::wire::data_json(&event.data));
    }

    fn push_entry(&mut self, account: &AccountId, offset: i64, entry: &Entry) {
        self.entries
            .row()
            .text(account.as_str())
            .bigint(offset)
            .int(entry.seq)
            .text(entry.entry_type.as_str())
            .amount(entry.amount)
            .amount(entry.balance_after)
            .amount(entry.credit_balance_after)
            .text(entry.event_id.as_str())
            .time(entry.recorded_at)
            .time(entry.occurred_at)
            .json(&entry.lots)
            .amount(entry.overdraft);
    }

    fn push_period(&mut self, account: &AccountId, closed: &ClosedPeriod) {
        self.periods
            .row()
            .text(account.as_str())
            .bigint(closed.period.index)
            .time(closed.period.starts_at)
            .time(closed.period.ends_at)
            .amount(closed.figures.used)
            .amount(closed.figures.granted)
            .amount(closed.figures.expired)
            .amount(closed.rolled_over)
            .amount(closed.figures.maximum());
    }

    fn push_snapshot(&mut self, offset: i64, core: &Core) {
        let body = SnapshotBody { core, lots: core.lots.iter().collect() };
        self.snapshots.row().text(core.account.as_str()).bigint(offset).time(core.ledger_time).jsonb(&body);
    }
}

/// Returns the call that a usage charges, if it applied.
fn charged_call<'a>(usage: Option<&'a Usage>, applied: &Applied) -> Option<&'a str> {
    let usage = usage.filter(|_| applied.outcome == Outcome::Applied)?;
    usage.call_id.as_ref().map(CallId::as_str)
}

pub fn clock_name(clock: Clock) -> &'static str {
    match clock {
        Clock::Live => "live",
        Clock::Test => "test",
    }
}

fn taken(applied: &Applied) -> bool {
    !applied.draws.is_empty() || applied.line.is_some()
}

fn leaves_snapshot(event: &Event, applied: &Applied, core: &Core) -> bool {
    let opened = matches!(event.data, Data::AccountOpened(_)) && applied.outcome == Outcome::Applied;
    opened || !applied.closed.is_empty() || core.events.is_multiple_of(SNAPSHOT_EVERY)
}
