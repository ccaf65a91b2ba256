//! Changes: the table rows that a batch writes, collected event by event.

use std::collections::BTreeMap;

use engine::fold::{Reversed, lot_changes};
use ledger_core::account::Core;
use ledger_core::event::{Data, Usage, wire};
use ledger_core::fold::{Applied, Fact, Outcome, Reason};
use ledger_core::policy::alert::Firing;
use ledger_core::value::id::{AccountId, AlertId, CallId};
use ledger_core::value::period::Period;
use platform::pg::Rows;

use super::notify_from::Notified;
use crate::delivery::{About, OutboxRow};
use crate::top_ups::Decided;

const FIRINGS_MAX: usize = 5_000;

/// The firings of one event.
#[derive(Debug)]
pub struct Fired<'a> {
    pub fact: &'a Fact,
    pub applied: &'a Applied,
    pub notified: Notified,
    /// The number of firings collected so far.
    pub count: i32,
}

/// Everything that a batch writes, except accounts, lots and users, whose final state is known only at its end.
#[derive(Debug, Default)]
pub struct Changes {
    pub events: Rows,
    /// Rows of `firing`, in chunks of one statement each.
    pub firings: Vec<Rows>,
    pub outbox: Vec<OutboxRow>,
    /// Reversed usage events, and the times of their reversals.
    pub reversed: Vec<Reversed>,
    pub top_ups: Decided,
    /// Accounts that entered a period, with the index of the open one: pages of earlier periods are no longer needed.
    pub entered: BTreeMap<AccountId, i64>,
}

impl Changes {
    /// Collects the row of a folded event, if it is the first of its id.
    pub fn folded(&mut self, fact: &Fact, applied: &Applied) {
        match applied.outcome {
            // A duplicate of another usage of its call is the first event of its own id.
            Outcome::Duplicate if applied.duplicate_of.is_some() => self.push_event(fact, applied),
            Outcome::Duplicate | Outcome::Conflict | Outcome::Rejected(Reason::AccountNotOpen) => {}
            Outcome::Applied | Outcome::Rejected(_) => self.push_event(fact, applied),
        }
        self.reversed.extend(Reversed::of(fact, applied));
    }

    /// Records that an account has ended a period.
    pub fn enter(&mut self, core: &Core, applied: &Applied) {
        if !applied.closed.is_empty() {
            self.entered.insert(core.account.clone(), core.period.index);
        }
    }

    fn push_event(&mut self, fact: &Fact, applied: &Applied) {
        let event = &*fact.event;
        let usage = if let Data::UsageRecorded(usage) = &event.data { Some(usage) } else { None };
        // The event's own withdrawal: a reversal also carries that of the usage it reverses.
        let withdrawal = usage.and(applied.usage.as_ref()).map(|change| &change.withdrawal);
        let is_taken_back = takes_back(&event.data) && applied.outcome == Outcome::Applied;
        let taken = is_taken_back.then_some(&applied.draws);
        let draws = withdrawal.map(|withdrawal| &withdrawal.draws).or(taken);
        let line = withdrawal.map_or(taken.and(applied.line), |withdrawal| withdrawal.line);
        self.events
            .row()
            .text(event.account.as_str())
            .text(event.id.as_str())
            .text(event.source.as_str())
            .text(event.data.type_name())
            .text(applied.outcome.as_str())
            .bytes(&fact.content.0)
            .time(event.occurred_at)
            .time(event.recorded_at)
            .text(event.actor.as_str())
            .json_text(&what_undoing_needs(&event.data))
            .bigint(applied.period_index)
            .maybe_amount(withdrawal.map(|withdrawal| withdrawal.credits))
            .maybe_json(draws.map(lot_changes).as_ref())
            .maybe_amount(line.map(|line| line.start))
            .maybe_amount(line.map(|line| line.end))
            .maybe_text(withdrawal.and(usage).and_then(|usage| usage.call_id.as_ref()).map(CallId::as_str));
    }

    /// Collects firings in order, with their notifications.
    pub fn fired(&mut self, core: &Core, fired: &mut Fired<'_>, firings: impl Iterator<Item = Firing>) {
        for firing in firings {
            self.push_firing(&core.account, fired.fact.offset, fired.count, &firing);
            fired.count += 1;
            metrics::counter!("ledger_firings_total", "kind" => firing.kind.as_str()).increment(1);
            if fired.notified != Notified::Nobody {
                let about = about(core, fired.applied, &firing);
                let is_from_before = fired.notified == Notified::Perhaps;
                self.outbox.push(OutboxRow {
                    account_id: core.account.clone(),
                    firing,
                    about,
                    is_from_before,
                });
            }
        }
    }

    fn push_firing(&mut self, account: &AccountId, offset: i64, seq: i32, firing: &Firing) {
        if self.firings.last().is_none_or(|rows| rows.len() == FIRINGS_MAX) {
            self.firings.push(Rows::default());
        }
        let Some(rows) = self.firings.last_mut() else { return };
        rows.row()
            .text(account.as_str())
            .bigint(offset)
            .int(seq)
            .uuid(firing.firing_id)
            .text(firing.kind.as_str())
            .maybe_text(firing.alert_id.as_ref().map(AlertId::as_str))
            .text(firing.subject.as_str())
            .amount(firing.threshold)
            .int(i32::try_from(firing.threshold_version).unwrap_or(i32::MAX))
            .bigint(firing.period_index)
            .amount(firing.figure)
            .time(firing.fired_at)
            .text(firing.event_id.as_str());
    }
}

/// Returns whether the event takes a payment back, which another event may undo.
fn takes_back(data: &Data) -> bool {
    matches!(data, Data::DisputeOpened(_) | Data::CreditsRefunded(_))
}

/// Returns the part of an event that its reversal needs: of usage, the amounts to subtract from its user's page.
fn what_undoing_needs(data: &Data) -> Vec<u8> {
    if let Data::UsageRecorded(usage) = data {
        let (user_id, feature) = (usage.user_id.clone(), usage.feature.clone());
        let slim = Usage { user_id, feature, credits: usage.credits, ..Usage::default() };
        wire::data_json(&Data::UsageRecorded(slim))
    } else if takes_back(data) {
        wire::data_json(data)
    } else {
        b"{}".to_vec()
    }
}

/// Returns what a notice needs to know about the account at the time of the firing.
fn about(core: &Core, applied: &Applied, firing: &Firing) -> About {
    let period = period_of(core, applied, firing.period_index);
    let alert = firing.alert_id.as_ref().and_then(|id| core.org_alerts.get(id));
    About {
        name: core.name.clone(),
        unit: core.unit,
        timezone: core.periods.schedule.timezone,
        period_starts_at: period.starts_at,
        period_ends_at: period.ends_at,
        basis: alert.map(|alert| alert.basis),
    }
}

/// One event may cross several boundaries, with firings at each.
fn period_of(core: &Core, applied: &Applied, index: i64) -> Period {
    let closed = applied.closed.iter().map(|closed| closed.period);
    closed.chain([core.period]).find(|period| period.index == index).unwrap_or(core.period)
}
