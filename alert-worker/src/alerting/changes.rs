//! Changes: the rows that a batch leaves behind, collected event by event.

use std::collections::BTreeMap;

use engine::fold::{Reversed, lot_changes};
use ledger_core::account::Core;
use ledger_core::event::{Data, Usage, wire};
use ledger_core::fold::{Applied, Fact, Outcome, Reason};
use ledger_core::policy::alert::Firing;
use ledger_core::value::id::{AccountId, AlertId};
use ledger_core::value::period::Period;
use platform::pg::Rows;

use crate::delivery::{About, OutboxRow};
use crate::top_ups::Decided;

/// Firings that one statement writes.
const FIRINGS_MAX: usize = 5_000;

/// What fires as an event is folded.
#[derive(Debug)]
pub struct Fired<'a> {
    pub fact: &'a Fact,
    pub applied: &'a Applied,
    /// Whether people are notified of it.
    pub notifies: bool,
    /// How much of it is collected.
    pub count: i32,
}

/// Everything that a batch writes, besides accounts, lots and users, whose last state is known only at its end.
#[derive(Debug, Default)]
pub struct Changes {
    pub events: Rows,
    /// Rows of `firing`, so many to a statement.
    pub firings: Vec<Rows>,
    /// What people are to be notified of.
    pub outbox: Vec<OutboxRow>,
    /// Usage events that were reversed, and when.
    pub reversed: Vec<Reversed>,
    /// The steps of top-ups.
    pub top_ups: Decided,
    /// Accounts that entered a period, and the one that is open now: pages of those before are of no more use.
    pub entered: BTreeMap<AccountId, i64>,
}

impl Changes {
    /// Collects the row of one event that was folded, if it is the first of its id.
    pub fn folded(&mut self, fact: &Fact, applied: &Applied) {
        match applied.outcome {
            Outcome::Duplicate | Outcome::Conflict | Outcome::Rejected(Reason::AccountNotOpen) => {}
            Outcome::Applied | Outcome::Rejected(_) => self.push_event(fact, applied),
        }
        self.reversed.extend(Reversed::of(fact, applied));
    }

    /// Notes that an account has ended a period.
    pub fn enter(&mut self, core: &Core, applied: &Applied) {
        if !applied.closed.is_empty() {
            self.entered.insert(core.account.clone(), core.period.index);
        }
    }

    fn push_event(&mut self, fact: &Fact, applied: &Applied) {
        let event = &*fact.event;
        let usage = if let Data::UsageRecorded(usage) = &event.data { Some(usage) } else { None };
        // Its own withdrawal: a reversal also carries one, that of the usage it reverses.
        let withdrawal = usage.and(applied.usage.as_ref()).map(|change| &change.withdrawal);
        let is_dispute = matches!(event.data, Data::DisputeOpened(_)) && applied.outcome == Outcome::Applied;
        let disputed = is_dispute.then_some(&applied.draws);
        let draws = withdrawal.map(|withdrawal| &withdrawal.draws).or(disputed);
        let line = withdrawal.map_or(disputed.and(applied.line), |withdrawal| withdrawal.line);
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
            .maybe_amount(line.map(|line| line.end));
    }

    /// Collects what fired, in order, with what people are to be notified of.
    pub fn fired(&mut self, core: &Core, fired: &mut Fired<'_>, firings: impl Iterator<Item = Firing>) {
        for firing in firings {
            self.push_firing(&core.account, fired.fact.offset, fired.count, &firing);
            fired.count += 1;
            metrics::counter!("ledger_firings_total", "kind" => firing.kind.as_str()).increment(1);
            if fired.notifies {
                let about = about(core, fired.applied, &firing);
                self.outbox.push(OutboxRow { account_id: core.account.clone(), firing, about });
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

/// What undoing an event needs of it, and no more: of a usage what its reversal takes off its user's page.
fn what_undoing_needs(data: &Data) -> Vec<u8> {
    if let Data::UsageRecorded(usage) = data {
        let (user_id, feature) = (usage.user_id.clone(), usage.feature.clone());
        let slim = Usage { user_id, feature, credits: usage.credits, ..Usage::default() };
        wire::data_json(&Data::UsageRecorded(slim))
    } else if matches!(data, Data::DisputeOpened(_)) {
        wire::data_json(data)
    } else {
        b"{}".to_vec()
    }
}

/// What the words of a firing need to know of its account as it fired.
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

/// One event may cross several boundaries, and something may fire at each.
fn period_of(core: &Core, applied: &Applied, index: i64) -> Period {
    let closed = applied.closed.iter().map(|closed| closed.period);
    closed.chain([core.period]).find(|period| period.index == index).unwrap_or(core.period)
}
