//! The tables of holds, and what one statement reads of them: a model in memory of `control` and a generation.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ledger_core::account::Core;
use ledger_core::account::limit::OwnLimit;
use ledger_core::event::{Data, Limit};
use ledger_core::fold::memory::Memory;
use ledger_core::fold::{Fact, Outcome};
use ledger_core::policy::hold::{ByFeature, Gate, Hold, State, UserFigures};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{EventId, Label, ReservationId, UserId};
use ledger_core::value::time::Time;

/// A generation of the read model: the journal folded up to a position.
#[derive(Default)]
pub struct Projection {
    memory: Memory,
    /// How many records are folded.
    pub position: usize,
    core: Option<Rc<Core>>,
    used: BTreeMap<(i64, UserId), ByFeature>,
    /// Users' own limits in force, as a naive reader of the journal counts them.
    own: BTreeMap<UserId, Limit>,
    ended: BTreeSet<ReservationId>,
    outcomes: BTreeMap<EventId, Vec<Outcome>>,
}

impl Projection {
    /// Folds what comes next of the journal, as one batch.
    pub fn fold(&mut self, journal: &[Fact], records: usize) {
        let batch = &journal[self.position..journal.len().min(self.position.saturating_add(records))];
        for (fact, applied) in batch.iter().zip(self.memory.fold(batch)) {
            self.outcomes.entry(fact.event.id.clone()).or_default().push(applied.outcome);
            if let Some(change) = &applied.usage
                && let Data::UsageRecorded(usage) = &change.withdrawal.event.data
                && let Some(user) = &usage.user_id
            {
                let sums = self.used.entry((change.withdrawal.period_index, user.clone())).or_default();
                let sum = sums.entry(usage.feature.clone()).or_default();
                let by = change.withdrawal.credits;
                *sum = add(*sum, if change.sign < 0 { by.negated() } else { by });
            }
            if applied.outcome == Outcome::Applied {
                self.apply(&fact.event.data);
            }
        }
        self.position += batch.len();
        if !batch.is_empty() {
            self.core =
                self.memory.accounts.values().next().and_then(|account| account.core.clone()).map(Rc::new);
        }
    }

    fn apply(&mut self, data: &Data) {
        if let Data::UsageRecorded(usage) = data {
            self.ended.extend(usage.reservation_id.clone());
        }
        if let Data::LimitsSet(set) = data
            && let Some(custom) = &set.custom
        {
            self.own.clone_from(custom);
        }
        if let Data::UserLimitSet(set) = data {
            match set.limit {
                Some(limit) => drop(self.own.insert(set.user_id.clone(), limit)),
                None => drop(self.own.remove(&set.user_id)),
            }
        }
    }

    /// A user's own limit, as stored.
    pub fn own_limit(&self, user: &UserId) -> Option<OwnLimit> {
        self.memory.accounts.values().next()?.own_limits.get(user).copied()
    }

    pub fn core(&self) -> Rc<Core> {
        Rc::clone(self.core.as_ref().expect("the opening is folded"))
    }

    pub fn used_by(&self, user: &UserId) -> ByFeature {
        let period = self.core().period.index;
        self.used.get(&(period, user.clone())).cloned().unwrap_or_default()
    }

    /// How often an event has had its effect.
    pub fn effects(&self, event: &EventId) -> usize {
        let outcomes = self.outcomes.get(event).map_or(&[][..], Vec::as_slice);
        outcomes.iter().filter(|outcome| **outcome == Outcome::Applied).count()
    }
}

#[derive(Clone, Debug)]
pub struct Row {
    pub hold: Hold,
    /// Where the journal has the usage that settles it, once that is known.
    pub appended: Option<usize>,
}

/// The tables: rows as last noted, and the sums over those noted as held or settling.
#[derive(Clone, Default)]
pub struct Store {
    pub rows: BTreeMap<ReservationId, Row>,
    pub held: Credits,
    pub users: BTreeMap<(UserId, Option<Label>), Credits>,
}

/// The result of one statement.
pub struct Reading {
    pub core: Rc<Core>,
    pub position: usize,
    pub now: Time,
    /// Usage of the core's period.
    pub used: BTreeMap<UserId, ByFeature>,
    /// Users' own limits, as stored.
    pub own_limits: BTreeMap<UserId, OwnLimit>,
    /// Those in force.
    pub own: BTreeMap<UserId, Limit>,
    pub ended: BTreeSet<ReservationId>,
}

impl Reading {
    pub fn of(projection: &Projection, now: Time, users: &[UserId]) -> Self {
        let used = users.iter().map(|user| (user.clone(), projection.used_by(user))).collect();
        let stored = |user: &UserId| Some((user.clone(), projection.own_limit(user)?));
        Self {
            core: projection.core(),
            position: projection.position,
            now,
            used,
            own_limits: users.iter().filter_map(stored).collect(),
            own: projection.own.clone(),
            ended: projection.ended.clone(),
        }
    }
}

impl Store {
    /// Marks what has ended according to a reading, and releases what had no effect.
    pub fn sweep(&mut self, reading: &Reading) {
        let ids: Vec<ReservationId> = self.rows.keys().cloned().collect();
        for id in ids {
            let row = &self.rows[&id];
            let (mut hold, mut appended) = (row.hold.clone(), row.appended);
            if hold.state == State::Settling {
                if reading.ended.contains(&id) {
                    hold.state = State::Settled;
                } else if appended.is_some_and(|at| at < reading.position) {
                    (hold.state, hold.settlement, hold.counts, appended) =
                        (State::Held, None, hold.amount, None);
                }
            }
            hold.state = hold.state_at(reading.now);
            self.put(Row { hold, appended });
        }
    }

    /// Stores a gate's changes, by the growth that it reports.
    pub fn commit(&mut self, gate: &Gate<'_>) {
        let changes = gate.changes();
        for id in &changes.holds {
            let hold = gate.hold(id).expect("a changed hold is there").clone();
            let appended = self.rows.get(id).filter(|row| row.hold.settlement == hold.settlement);
            let appended = appended.and_then(|row| row.appended);
            self.rows.insert(id.clone(), Row { hold, appended });
        }
        self.held = add(self.held, changes.held);
        for (key, growth) in &changes.users {
            let sum = self.users.entry(key.clone()).or_default();
            *sum = add(*sum, *growth);
        }
    }

    /// Begins a turn on the stored state and a reading.
    pub fn gate<'a>(&self, reading: &'a Reading) -> Gate<'a> {
        let mut gate = Gate::new(&reading.core, reading.now, self.held);
        for (user, used) in &reading.used {
            let mine = self.users.iter().filter(|((holder, _), _)| holder == user);
            let held = mine.map(|((_, feature), sum)| (feature.clone(), *sum)).collect();
            let own_limit = reading.own_limits.get(user).copied();
            let figures = UserFigures { used: used.clone(), held, own_limit };
            gate.with_user(user.clone(), figures, reading.core.period.index);
        }
        self.rows.values().for_each(|row| gate.with_hold(row.hold.clone()));
        reading.ended.iter().for_each(|id| gate.with_ended(id.clone()));
        gate
    }

    pub fn adds_up(&self) -> Result<(), String> {
        let mut rest = self.clone();
        for row in self.rows.values() {
            rest.count(&row.hold, -1);
        }
        if rest.held.is_zero() && rest.users.values().all(|sum| sum.is_zero()) {
            return Ok(());
        }
        Err(format!("sums are off by {} and {:?}", rest.held, rest.users))
    }

    fn put(&mut self, row: Row) {
        let id = row.hold.reservation_id.clone();
        if let Some(before) = self.rows.get(&id).map(|row| row.hold.clone()) {
            self.count(&before, -1);
        }
        self.count(&row.hold, 1);
        self.rows.insert(id, row);
    }

    fn count(&mut self, hold: &Hold, sign: i8) {
        if !matches!(hold.state, State::Held | State::Settling) {
            return;
        }
        let by = if sign < 0 { hold.counts.negated() } else { hold.counts };
        self.held = add(self.held, by);
        if let Some(user) = &hold.user_id {
            let sum = self.users.entry((user.clone(), hold.feature.clone())).or_default();
            *sum = add(*sum, by);
        }
    }
}

pub fn add(a: Credits, b: Credits) -> Credits {
    a.plus(b).expect("small amounts")
}
