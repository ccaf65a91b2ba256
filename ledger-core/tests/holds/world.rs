//! A world in memory: several processes that decide on one account's holds, the journal between them and the
//! projection, and any event between two steps. A seed determines the random choices, so a failure can be repeated.

use std::collections::BTreeMap;
use std::rc::Rc;

use ledger_core::event::key::content_hash;
use ledger_core::event::{Data, Event, Usage, wire};
use ledger_core::fold::{self, Fact};
use ledger_core::policy::decide::{Decision, Work};
use ledger_core::policy::hold::{Extend, Gate, Refused, Reserve, Settlement, State};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, EventId, Label, ReservationId, Source, UserId};
use ledger_core::value::time::Time;

use crate::seen::{Charge, Charges, Seen, counted};
use crate::store::{Projection, Reading, Store};
use crate::story::{ACCOUNT, time};

const PROCESSES: usize = 3;
/// A credit's parts, so that figures are never round.
const PART: i128 = 500_000_000;
/// How far the clocks of processes and broker may be off.
const SKEW_MICROS: i64 = 1_000_000;

/// A mistake that the simulation must notice; each removes something from the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// Two processes decide at the same time.
    NoGate,
    /// Figures are read in one statement and open holds in a later one.
    TwoStatements,
    /// A settling hold goes on counting what it held where its usage charges more.
    CountsWhatItHeld,
    /// A settling hold is given back where its usage is not in the journal soon.
    FreedByGuess,
    /// A settled usage is forgotten where its process dies before it has appended it.
    NoOutbox,
    /// The usage is recorded by the process's own clock, whatever its hold was decided at.
    RecordedEarlier,
    /// The acknowledgement of a usage that came to nothing is noted at the usage that settles the hold now.
    AcknowledgesAnother,
    /// Holds whose time is over are counted off and not noted: their state changes apart from the sums.
    NotSwept,
}

/// Settings of a world.
#[derive(Debug, Clone, Copy)]
pub struct Ways {
    /// Nothing but holds takes credits, for no more than they hold, and nothing makes caps smaller: then what is granted
    /// must never pass them, not at some position but in the journal itself.
    pub strict: bool,
    pub mistake: Mistake,
}

#[derive(Debug, Clone)]
enum Request {
    Reserve(Reserve),
    Extend(ReservationId, Extend),
    Release(ReservationId),
    Settle(ReservationId, Box<Usage>, EventId),
}

/// Where a process is with a turn at the gate.
enum Turn {
    Idle,
    Locked(Vec<Request>),
    /// The figures are read and, unless by mistake, the holds with them.
    Read(Vec<Request>, Box<(Reading, Option<Store>, Seen)>),
}

struct Process {
    skew: i64,
    turn: Turn,
    appending: Vec<u64>,
}

#[derive(Clone)]
struct Outgoing {
    event: Event,
    reservation: ReservationId,
    since: Time,
}

pub struct World {
    chance: u64,
    ways: Ways,
    hovers: bool,
    /// The database's clock.
    now: Time,
    /// The latest time that it ever showed: it may be set back a little.
    latest: Time,
    journal: Vec<Fact>,
    /// The journal folded to its end.
    truth: Projection,
    live: Projection,
    /// A generation being rebuilt.
    next: Projection,
    pub store: Store,
    gate: Option<usize>,
    processes: Vec<Process>,
    outbox: BTreeMap<u64, Outgoing>,
    /// Numbers for outbox records, each used once.
    numbers: u64,
    /// Appends that the journal has acknowledged and no process has noted yet.
    acknowledged: Vec<(u64, Outgoing, usize)>,
    /// Settlements that callers were answered: they must be charged in any case.
    charges: Charges,
    names: usize,
    users: Vec<UserId>,
    /// Counts of grants and refusals.
    pub granted: usize,
    pub refused: usize,
}

pub type Violation = String;

impl World {
    pub fn new(seed: u64, ways: Ways) -> Self {
        let users = ["ana", "bo"].map(|name| UserId::new(name).expect("an id")).to_vec();
        let mut world = Self {
            chance: seed,
            ways,
            hovers: seed % 2 == 1,
            now: time("2026-01-31T23:50:00Z"),
            latest: time("2026-01-31T23:50:00Z"),
            journal: Vec::new(),
            truth: Projection::default(),
            live: Projection::default(),
            next: Projection::default(),
            store: Store::default(),
            gate: None,
            processes: Vec::new(),
            outbox: BTreeMap::new(),
            numbers: 0,
            acknowledged: Vec::new(),
            charges: Charges::new(),
            names: 0,
            users,
            granted: 0,
            refused: 0,
        };
        for _ in 0..PROCESSES {
            let skew = world.between(-SKEW_MICROS, SKEW_MICROS);
            world.processes.push(Process { skew, turn: Turn::Idle, appending: Vec::new() });
        }
        world.open();
        world
    }

    fn open(&mut self) {
        let rollover = ["none", "capped", "unlimited"][self.below(3)];
        let exhausted = if self.ways.strict || self.below(3) > 0 { "block" } else { "allow" };
        let opening = format!(
            r#"{{"clock":"live","plan":{{"cycle":"daily","anchor":"2026-01-01T00:00:00Z","allowance":"14","rollover":{{"mode":"{rollover}"}},"on_exhausted":"{exhausted}","overage_limit":"6"}}}}"#
        );
        self.append_body("ledger.account.opened.v1", &opening);
        self.append_body("ledger.limits.set.v1", r#"{"default_limit":"7","excluded_features":["workflow"]}"#);
        self.live.fold(&self.journal, usize::MAX);
        self.next.fold(&self.journal, 1);
    }

    /// Makes one random step, and checks what must always hold.
    pub fn step(&mut self) -> Result<(), Violation> {
        match self.below(21) {
            0..=10 => {
                let process = self.below(PROCESSES);
                self.act(process)?;
            }
            11 => self.relay()?,
            12..=14 => self.project(),
            15 => self.pass_time(),
            16 => self.crash(),
            17 => self.flip()?,
            18 => self.administer()?,
            19 => self.acknowledge(),
            _ => {
                let process = self.below(PROCESSES);
                self.act(process)?;
            }
        }
        self.check_all()
    }

    // ---- the processes

    fn act(&mut self, process: usize) -> Result<(), Violation> {
        match std::mem::replace(&mut self.processes[process].turn, Turn::Idle) {
            Turn::Idle if self.processes[process].appending.is_empty() => {
                if self.gate.is_none() || self.ways.mistake == Mistake::NoGate {
                    self.gate = Some(process);
                    let requests = (0..=self.below(3)).map(|_| self.request()).collect();
                    self.processes[process].turn = Turn::Locked(requests);
                }
                Ok(())
            }
            Turn::Idle => {
                let outgoing = self.processes[process].appending.remove(0);
                self.send(outgoing)
            }
            Turn::Locked(requests) => {
                let reading = Reading::of(&self.live, self.now, &self.users);
                let reads_both = self.ways.mistake != Mistake::TwoStatements;
                let holds = reads_both.then(|| self.holds(&reading));
                let seen = self.seen(&reading);
                self.processes[process].turn = Turn::Read(requests, Box::new((reading, holds, seen)));
                Ok(())
            }
            Turn::Read(requests, read) => {
                let (mut reading, holds, seen) = *read;
                let holds = holds.unwrap_or_else(|| {
                    reading.ended = Reading::of(&self.live, self.now, &[]).ended;
                    self.holds(&reading)
                });
                self.gate = None;
                self.decide(process, &requests, &reading, holds, seen)
            }
        }
    }

    /// Holds as a statement shows them: those that have ended counted off.
    fn holds(&self, reading: &Reading) -> Store {
        let mut holds = self.store.clone();
        self.sweep(&mut holds, reading);
        holds
    }

    fn sweep(&self, store: &mut Store, reading: &Reading) {
        if self.ways.mistake == Mistake::FreedByGuess {
            for row in store.rows.values_mut() {
                let sent = self.outbox.values().find(|out| out.reservation == row.hold.reservation_id);
                if row.hold.state == State::Settling
                    && sent.is_some_and(|out| out.since.plus_seconds(120) < self.now)
                {
                    row.appended = Some(0);
                }
            }
        }
        store.sweep(reading);
    }

    fn decide(
        &mut self,
        process: usize,
        requests: &[Request],
        reading: &Reading,
        holds: Store,
        mut seen: Seen,
    ) -> Result<(), Violation> {
        let mut gate = holds.gate(reading);
        for request in requests {
            self.request_of(process, request, &mut gate, &mut seen)?;
        }
        if self.ways.mistake != Mistake::NotSwept {
            let mut store = std::mem::take(&mut self.store);
            self.sweep(&mut store, reading);
            self.store = store;
        }
        self.store.commit(&gate);
        Ok(())
    }

    fn request_of(
        &mut self,
        process: usize,
        request: &Request,
        gate: &mut Gate<'_>,
        seen: &mut Seen,
    ) -> Result<(), Violation> {
        match request {
            Request::Reserve(reserve) => {
                let work = Work {
                    user_id: reserve.user_id.clone(),
                    feature: reserve.feature.clone(),
                    amount: Some(reserve.amount),
                };
                let allowed = seen.allows(&work);
                let answer = gate.reserve(reserve);
                self.compare(allowed, &answer, seen, &work)?;
            }
            Request::Extend(id, extend) => {
                let before = gate.hold(id);
                let growth =
                    before.zip(extend.amount).map(|(hold, to)| to.minus(hold.amount).expect("small"));
                let (user_id, feature) =
                    before.map(|hold| (hold.user_id.clone(), hold.feature.clone())).unwrap_or_default();
                let work = Work { user_id, feature, amount: growth };
                let allowed = seen.allows(&work);
                let answer = gate.extend(id, extend);
                self.compare(allowed, &answer, seen, &work)?;
            }
            Request::Release(id) => {
                let _ = gate.release(id);
            }
            Request::Settle(id, usage, event_id) => self.settle(process, gate, id, usage, event_id),
        }
        let named = match request {
            Request::Reserve(reserve) => &reserve.reservation_id,
            Request::Extend(id, _) | Request::Release(id) | Request::Settle(id, ..) => id,
        };
        if let Some(hold) = gate.hold(named) {
            seen.note(hold, &self.charges);
        }
        Ok(())
    }

    fn settle(
        &mut self,
        process: usize,
        gate: &mut Gate<'_>,
        id: &ReservationId,
        usage: &Usage,
        event_id: &EventId,
    ) {
        let Some(hold) = gate.hold(id) else { return };
        let credits = usage.credits.expect("given");
        let open = hold.state_at(gate.now()) == State::Held;
        let as_held =
            (&usage.user_id, &usage.feature) == (&hold.user_id, &hold.feature) && credits <= hold.amount;
        if self.ways.strict && !(open && as_held) {
            return;
        }
        let event = self.event(self.clock_of(process), event_id.clone(), Data::UsageRecorded(usage.clone()));
        let by = Settlement {
            event_id: event_id.clone(),
            source: event.source.clone(),
            content: content_hash(&event),
        };
        let counted = if self.ways.mistake == Mistake::CountsWhatItHeld { Credits::ZERO } else { credits };
        let Ok(settling) = gate.settle(id, by, counted) else { return };
        if settling.repeat {
            return;
        }
        let is_early = self.ways.mistake == Mistake::RecordedEarlier;
        let recorded_at =
            if is_early { event.recorded_at } else { event.recorded_at.max(settling.not_before) };
        let usage = Usage { held: Some(settling.held), ..usage.clone() };
        let event = Event { recorded_at, data: Data::UsageRecorded(usage), ..event };
        let charge = Charge { event: event.clone(), credits, late: !open };
        self.charges.insert((event_id.clone(), id.clone()), charge);
        self.numbers += 1;
        let number = self.numbers;
        self.outbox.insert(number, Outgoing { event, reservation: id.clone(), since: self.now });
        self.processes[process].appending.push(number);
    }

    /// Whether a decision is the one that the figures of its position give.
    fn compare(
        &mut self,
        allowed: bool,
        answer: &Result<Option<Decision>, Refused>,
        seen: &Seen,
        work: &Work,
    ) -> Result<(), Violation> {
        let granted = match answer {
            Ok(Some(_)) => true,
            Err(Refused::Decision(_)) => false,
            Ok(None) | Err(_) => return Ok(()),
        };
        if granted != allowed {
            return Err(format!("{work:?} was answered {answer:?} next to {seen:?}"));
        }
        self.granted += usize::from(granted);
        self.refused += usize::from(!granted);
        Ok(())
    }

    // ---- the outbox

    /// Appends a usage; the acknowledgement is noted later, unless the process dies before.
    fn send(&mut self, number: u64) -> Result<(), Violation> {
        let Some(outgoing) = self.outbox.get(&number).cloned() else { return Ok(()) };
        let at = self.append(outgoing.event.clone())?;
        if self.below(5) > 0 {
            self.acknowledged.push((number, outgoing, at));
        }
        Ok(())
    }

    fn acknowledge(&mut self) {
        if self.acknowledged.is_empty() {
            return;
        }
        let one = self.below(self.acknowledged.len());
        let (number, outgoing, at) = self.acknowledged.swap_remove(one);
        self.outbox.remove(&number);
        let row = self.store.rows.get_mut(&outgoing.reservation).expect("a hold that settles is there");
        let settles = row.hold.settlement.as_ref().is_some_and(|by| by.event_id == outgoing.event.id);
        if settles || (self.ways.mistake == Mistake::AcknowledgesAnother && row.hold.settlement.is_some()) {
            row.appended = Some(at);
        }
    }

    /// Sends again what is not acknowledged.
    fn relay(&mut self) -> Result<(), Violation> {
        let waiting: Vec<u64> = self.outbox.keys().copied().collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let one = waiting[self.below(waiting.len())];
        self.send(one)
    }

    fn crash(&mut self) {
        let process = self.below(PROCESSES);
        self.processes[process].turn = Turn::Idle;
        let lost = std::mem::take(&mut self.processes[process].appending);
        if self.ways.mistake == Mistake::NoOutbox {
            lost.iter().for_each(|number| drop(self.outbox.remove(number)));
        }
        if self.gate == Some(process) {
            self.gate = None;
        }
    }

    // ---- the journal and its projection

    fn append(&mut self, event: Event) -> Result<usize, Violation> {
        let appended_at = self.now.plus_micros(self.between(-SKEW_MICROS, SKEW_MICROS));
        let offset = i64::try_from(self.journal.len()).expect("few");
        self.journal.push(Fact::new(event, appended_at, offset));
        self.truth.fold(&self.journal, 1);
        Ok(self.journal.len() - 1)
    }

    fn project(&mut self) {
        let records = 1 + self.below(4);
        self.live.fold(&self.journal, records);
        let records = self.below(12);
        self.next.fold(&self.journal, records);
    }

    /// A rebuilt generation becomes the live one where it has caught up.
    fn flip(&mut self) -> Result<(), Violation> {
        self.next.fold(&self.journal, self.live.position.saturating_sub(self.next.position));
        if self.next.position != self.live.position {
            return Ok(());
        }
        if self.next.core() != self.live.core() {
            return Err("a rebuilt generation is another".to_owned());
        }
        self.live = std::mem::take(&mut self.next);
        self.next.fold(&self.journal, 1);
        Ok(())
    }

    fn pass_time(&mut self) {
        let micros = match self.below(10) {
            0 => {
                self.now = self.latest.plus_micros(-self.between(0, 800_000));
                return;
            }
            // In half of the worlds much happens about a boundary.
            1..=6 if self.hovers => self.between(0, 150_000),
            1..=4 => self.between(0, 5_000_000),
            5..=6 => self.between(0, 90_000_000),
            // To the next boundary, about.
            7..=8 => {
                let ends_at = self.live.core().period.ends_at;
                (ends_at.minus(self.now)).max(0) + self.between(-SKEW_MICROS, SKEW_MICROS) / 3
            }
            _ if self.hovers => 0,
            _ => self.between(0, 1_200_000_000),
        };
        self.now = self.now.plus_micros(micros);
        self.latest = self.latest.max(self.now);
    }

    fn administer(&mut self) -> Result<(), Violation> {
        let choice = if self.ways.strict { self.below(3) } else { self.below(9) };
        self.names += 1;
        let name = self.names;
        match choice {
            0 => {
                let index = self.live.core().period.index;
                self.append_body("ledger.period.reset.v1", &format!(r#"{{"index":{index}}}"#));
            }
            1 => {
                let amount = 1 + self.below(4);
                self.append_body(
                    "ledger.credits.purchased.v1",
                    &format!(r#"{{"payment_id":"p{name}","amount":"{amount}"}}"#),
                );
            }
            2 => self.reverse(),
            3 | 4 => {
                let usage = self.usage(None);
                let id = self.taken_or_new();
                let event = self.event(self.now, id, Data::UsageRecorded(usage));
                self.append(event)?;
            }
            5 => {
                let limit = ["2", "6", "9", "15"][self.below(4)];
                let excluded = [r#""workflow""#, r#""workflow","chat""#, ""][self.below(3)];
                let enabled = self.below(6) > 0;
                let custom = [r#""custom":{"bo":"4"},"#, r#""custom":{},"#, ""][self.below(3)];
                let body = format!(
                    r#"{{"enabled":{enabled},"default_limit":"{limit}",{custom}"excluded_features":[{excluded}]}}"#
                );
                self.append_body("ledger.limits.set.v1", &body);
            }
            7 => {
                let at = self.below(self.users.len());
                let user = self.users[at].clone();
                let limit = [r#""3""#, r#""8""#, r#""unlimited""#, "null"][self.below(4)];
                let body = format!(r#"{{"user_id":"{user}","limit":{limit}}}"#);
                self.append_body("ledger.user_limit.set.v1", &body);
            }
            6 => self.append_body("ledger.credits.adjusted.v1", r#"{"amount":"-3","reason":"r"}"#),
            _ => {
                let ends_at = self.now.plus_seconds(self.between(30, 600));
                let body = format!(
                    r#"{{"grant_id":"g{name}","source":"promo","amount":"4","expires_at":"{ends_at}"}}"#
                );
                self.append_body("ledger.credits.granted.v1", &body);
            }
        }
        Ok(())
    }

    fn reverse(&mut self) {
        let usage: Vec<EventId> = self.charges.keys().map(|(event, _)| event.clone()).collect();
        if !usage.is_empty() {
            let event = &usage[self.below(usage.len())];
            self.append_body(
                "ledger.usage.reversed.v1",
                &format!(r#"{{"event_id":"{event}","source":"/world"}}"#),
            );
        }
    }

    fn append_body(&mut self, event_type: &str, body: &str) {
        let data = wire::data(event_type, body).expect("a known type").expect("well-formed");
        self.names += 1;
        let id = EventId::new(&format!("e{}", self.names)).expect("an id");
        let process = self.below(PROCESSES);
        let event = self.event(self.clock_of(process), id, data);
        self.append(event).expect("an event made here is stored");
    }

    fn event(&self, at: Time, id: EventId, data: Data) -> Event {
        Event {
            id,
            source: Source::new("/world").expect("a source"),
            account: AccountId::new(ACCOUNT).expect("an id"),
            occurred_at: self.now,
            recorded_at: at,
            actor: Label::new("test").expect("a label"),
            data,
        }
    }

    fn clock_of(&self, process: usize) -> Time {
        self.now.plus_micros(self.processes[process].skew)
    }

    // ---- requests

    fn request(&mut self) -> Request {
        match self.below(10) {
            0..=3 => Request::Reserve(Reserve {
                reservation_id: self.new_reservation(),
                user_id: self.user(),
                feature: self.feature(),
                amount: self.amount(1, 16),
                ttl_seconds: Some(u32::try_from(self.between(1, 600)).expect("positive")),
            }),
            4..=5 => {
                let amount = (self.below(4) > 0).then(|| self.amount(1, 20));
                let ttl_seconds = (self.below(2) > 0).then_some(60);
                Request::Extend(self.reservation(), Extend { amount, ttl_seconds })
            }
            6 => Request::Release(self.reservation()),
            _ => {
                let id = self.reservation();
                let usage = self.usage(Some(id.clone()));
                let event_id = self.taken_or_new();
                Request::Settle(id, Box::new(usage), event_id)
            }
        }
    }

    /// A new name most times, else one in use.
    fn new_reservation(&mut self) -> ReservationId {
        if self.below(4) == 0 {
            return self.reservation();
        }
        ReservationId::new(&format!("r{}", self.store.rows.len())).expect("an id")
    }

    /// One of the last names, most of them in use.
    fn reservation(&mut self) -> ReservationId {
        let names = self.store.rows.len() + 1;
        let back = self.below(names.min(6));
        ReservationId::new(&format!("r{}", names - 1 - back)).expect("an id")
    }

    fn taken_or_new(&mut self) -> EventId {
        let usage: Vec<EventId> = self.charges.keys().map(|(event, _)| event.clone()).collect();
        if !usage.is_empty() && self.below(8) == 0 {
            return usage[self.below(usage.len())].clone();
        }
        self.names += 1;
        EventId::new(&format!("u{}", self.names)).expect("an id")
    }

    fn usage(&mut self, reservation_id: Option<ReservationId>) -> Usage {
        // As the API requires: a usage that names a hold has that hold's user.
        let hold = reservation_id.as_ref().and_then(|id| self.store.rows.get(id)).map(|row| row.hold.clone());
        let (user_id, feature) = match &hold {
            Some(hold) => (hold.user_id.clone(), hold.feature.clone()),
            None => (self.user(), self.feature()),
        };
        let most = hold.filter(|_| self.ways.strict).map_or(20, |hold| hold.amount.units() / PART);
        let most = i64::try_from(most).expect("small");
        // Often all of it, so that caps are reached.
        let least = if self.below(3) > 0 { most } else { 0 };
        let credits = Some(self.amount(least, most));
        Usage { user_id, feature, credits, reservation_id, ..Usage::default() }
    }

    fn user(&mut self) -> Option<UserId> {
        let at = self.below(3);
        self.users.get(at).cloned()
    }

    fn feature(&mut self) -> Option<Label> {
        [None, Some("chat"), Some("chat"), Some("workflow")][self.below(4)]
            .map(|name| Label::new(name).expect("a label"))
    }

    fn amount(&mut self, least: i64, most: i64) -> Credits {
        Credits::from_units(i128::from(self.between(least, most)) * PART)
    }

    // ---- what must hold

    fn check_all(&self) -> Result<(), Violation> {
        self.store.adds_up()?;
        self.seen_once()?;
        if self.ways.strict { self.caps_hold() } else { Ok(()) }
    }

    /// A settling hold is seen as a hold until its usage is seen, and then no more.
    fn seen_once(&self) -> Result<(), Violation> {
        let reading = Reading::of(&self.live, self.now, &[]);
        let mut swept = self.store.clone();
        self.sweep(&mut swept, &reading);
        for (id, row) in &self.store.rows {
            let Some(by) = row.hold.settlement.as_ref().filter(|_| row.hold.state == State::Settling) else {
                continue;
            };
            let as_usage = self.is_charged(by, self.live.position);
            let as_hold = !swept.rows[id].hold.counts_at(self.now).is_zero();
            let came_to_nothing = !as_usage && row.appended.is_some_and(|at| at < self.live.position);
            let nothing = row.hold.counts.is_zero() || came_to_nothing;
            let (as_neither, as_both) = (!as_usage && !as_hold && !nothing, as_usage && as_hold);
            if as_neither || as_both {
                return Err(format!("hold {id} is seen as usage: {as_usage}, and as a hold: {as_hold}"));
            }
        }
        Ok(())
    }

    /// Where nothing but holds takes credits, neither the balance nor any user's usage passes its cap.
    fn caps_hold(&self) -> Result<(), Violation> {
        let core = self.truth.core();
        if core.settled().is_negative() {
            return Err(format!("the journal has the account at {}", core.settled()));
        }
        for user in &self.users {
            let own = self.truth.own_limit(user);
            let (counted, limit) = (counted(&core, self.truth.used_by(user)), core.limit_of(own.as_ref()));
            if limit.is_some_and(|limit| counted > limit) {
                return Err(format!("the journal has {user} at {counted} of {limit:?}"));
            }
        }
        Ok(())
    }

    /// Lets everything unfinished end, and checks the rest.
    pub fn end(mut self) -> Result<(usize, usize), Violation> {
        for process in 0..PROCESSES {
            self.processes[process].turn = Turn::Idle;
            self.processes[process].appending.clear();
        }
        self.gate = None;
        // The relay goes on until the journal has acknowledged all.
        while let Some(number) = self.outbox.keys().next().copied() {
            self.send(number)?;
            self.acknowledge();
            self.check_all()?;
        }
        self.live.fold(&self.journal, usize::MAX);
        self.now = self.now.plus_seconds(2 * 86_400);
        let reading = Reading::of(&self.live, self.now, &[]);
        let mut store = std::mem::take(&mut self.store);
        self.sweep(&mut store, &reading);
        self.store = store;
        self.store.adds_up()?;
        if !self.store.held.is_zero() || self.store.users.values().any(|sum| !sum.is_zero()) {
            return Err(format!("{} are held in the end: {:?}", self.store.held, self.store.users));
        }
        for ((_, reservation), charge) in &self.charges {
            self.charged_once(&charge.event, reservation)?;
        }
        Ok((self.granted, self.refused))
    }

    fn charged_once(&self, event: &Event, reservation: &ReservationId) -> Result<(), Violation> {
        let first = self.journal.iter().find(|fact| fact.event.id == event.id);
        let Some(first) = first else { return Err(format!("{} is not in the journal", event.id)) };
        let effects = self.live.effects(&event.id);
        if effects != 1 {
            return Err(format!("{} had {effects} effects", event.id));
        }
        // Where other usage has its id it had no effect, and its hold became open again.
        let charges = first.content == content_hash(event);
        let hold = &self.store.rows[reservation].hold;
        let settles = hold.settlement.as_ref().is_some_and(|by| by.event_id == event.id);
        if settles == charges && (!charges || hold.state == State::Settled) {
            return Ok(());
        }
        Err(format!("{} charges {charges} and ends {hold:?}", event.id))
    }

    // ---- the naive model

    /// What is open and used at the position of a reading, row by row and without any sum that is kept.
    fn seen(&self, reading: &Reading) -> Seen {
        let mut core = Rc::clone(&reading.core);
        if core.crosses(reading.now) {
            fold::roll_to(Rc::make_mut(&mut core), reading.now);
        }
        let own = reading.own.clone();
        let mut seen = Seen { now: reading.now, open: BTreeMap::new(), used: BTreeMap::new(), own, core };
        if seen.core.period.index == reading.core.period.index {
            seen.used = reading.used.clone();
        }
        for row in self.store.rows.values() {
            let mut hold = row.hold.clone();
            if let Some(by) = hold.settlement.as_ref().filter(|_| hold.state == State::Settling) {
                if self.is_charged(by, reading.position) {
                    continue;
                }
                if row.appended.is_some_and(|at| at < reading.position) {
                    hold.state = State::Held;
                }
            }
            seen.note(&hold, &self.charges);
        }
        seen
    }

    /// Returns whether a usage has had its effect by a position: it is the first with its id.
    fn is_charged(&self, by: &Settlement, position: usize) -> bool {
        let first = self.journal[..position].iter().find(|fact| fact.event.id == by.event_id);
        first.is_some_and(|first| first.content == by.content)
    }

    // ---- chance

    /// SplitMix64.
    fn chance(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.chance() % u64::try_from(bound).expect("small")).expect("small")
    }

    /// Both ends included.
    fn between(&mut self, least: i64, most: i64) -> i64 {
        let width = usize::try_from(most - least + 1).expect("ordered");
        least + i64::try_from(self.below(width)).expect("small")
    }
}
