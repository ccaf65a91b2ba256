//! Batcher: decides requests batch by batch, each batch in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use engine::consume::WorkerError;
use engine::fold::Cache;
use engine::load::cores;
use engine::progress::Waiter;
use engine::tables::commitments::{AccountQuery, AccountStanding, Standings, standings};
use futures::FutureExt;
use ledger_core::account::Core;
use ledger_core::event::key::content_hash;
use ledger_core::event::{Clock, Data, Event, Usage, wire};
use ledger_core::fold::CROSSINGS_MAX;
use ledger_core::policy::decide::{Decision, Work};
use ledger_core::policy::hold::{Extend, Gate, Hold, Refused, Reserve, Settlement};
use ledger_core::value::id::{AccountId, Label, ReservationId, UserId};
use ledger_core::value::time::Time;
use metrics::histogram;
use platform::failpoint;
use platform::heartbeat::Heartbeat;
use platform::pg::{self, Model, PgConnection, PgPool, Schema};
use platform::position::Position;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::error;
use web::http::Problem;

use super::request::{Answer, Ask, Fault, HOLD_ENDED, HoldView, Request, SettledHold, Verdict};
use super::rows::{Decided, Writes};
use super::store::{self, Named, NamedHolds};
use crate::admission::ledger_time::{clock_is_live, clock_jump};
use crate::admission::refusal::Refusal;

const BATCH_MAX: usize = 512;
/// Pause to collect more requests, after a batch with many.
const GATHER: Duration = Duration::from_millis(1);
/// Reads of an account that is projected on meanwhile, before the batch fails.
const READS_MAX: usize = 50;
/// Flips of the generation that one batch tolerates.
const FLIPS_MAX: usize = 3;
/// Cores that one batcher caches; each takes about 2 KiB.
const CACHED_ACCOUNTS_MAX: usize = 8_192;
/// Open lots that one batcher caches.
const CACHED_LOTS_MAX: usize = 32_768;

pub struct Queued {
    pub request: Request,
    pub answer: oneshot::Sender<Verdict>,
}

/// Whether the batches write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locking {
    /// Batches change holds, under the gates of their accounts.
    Gates,
    /// Batches only read.
    Nothing,
}

/// Decides the requests of one queue.
pub struct Batcher {
    pool: PgPool,
    waiter: Arc<Waiter>,
    locking: Locking,
    keep_allowed: bool,
    cache: Cache<CachedAt>,
    /// Kept across batches: its statements are prepared and planned.
    connection: Option<PoolConnection<Postgres>>,
}

/// A connection in use: closed if it is dropped, because whatever was under way on it is not known.
struct InUse(Option<PoolConnection<Postgres>>);

impl Drop for InUse {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// The position that a core reflects: an account at this offset of this generation never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CachedAt {
    schema: Schema,
    offset: i64,
}

type Cores = BTreeMap<AccountId, (Core, CachedAt)>;

enum Attempt {
    Answers(Vec<Verdict>),
    /// Another generation is live.
    Flipped(Schema),
}

impl Batcher {
    pub fn new(pool: PgPool, waiter: Arc<Waiter>, locking: Locking, keep_allowed: bool) -> Batcher {
        let cache = Cache::new(CACHED_ACCOUNTS_MAX, CACHED_LOTS_MAX);
        Batcher { pool, waiter, locking, keep_allowed, cache, connection: None }
    }

    /// Takes queued requests, batch by batch, until all senders are dropped.
    ///
    /// May be dropped at any moment: the callers of its batch do not learn the outcome, and may ask again.
    pub async fn run(mut self, queue: &mut mpsc::Receiver<Queued>, heartbeat: &Heartbeat) {
        let mut queued = Vec::with_capacity(BATCH_MAX);
        let mut last = 0;
        while queue.recv_many(&mut queued, BATCH_MAX).await > 0 {
            if queued.len() < last / 2 {
                // The callers just answered are about to send again: one batch with them is less work than two.
                sleep(GATHER).await;
                while queued.len() < BATCH_MAX
                    && let Ok(more) = queue.try_recv()
                {
                    queued.push(more);
                }
            }
            last = queued.len();
            while !queued.is_empty() {
                heartbeat.beat();
                let rest = queued.split_off(together(&queued));
                let batch = std::mem::replace(&mut queued, rest);
                if AssertUnwindSafe(self.answer(batch)).catch_unwind().await.is_err() {
                    // The callers receive an error and may retry; the cache is dropped.
                    error!("a batch of requests on holds panicked");
                    self = Batcher::new(self.pool, self.waiter, self.locking, self.keep_allowed);
                }
            }
            heartbeat.rest();
        }
    }

    async fn answer(&mut self, batch: Vec<Queued>) {
        let (requests, answers): (Vec<Request>, Vec<_>) =
            batch.into_iter().map(|queued| (queued.request, queued.answer)).unzip();
        histogram!("ledger_holds_batch_requests").record(requests.len() as f64);
        let verdicts = match self.decide(&requests).await {
            Ok(verdicts) => verdicts,
            Err(problem) => vec![Err(Fault::Problem(problem)); requests.len()],
        };
        for (answer, verdict) in answers.into_iter().zip(verdicts) {
            // The caller may have gone away.
            let _ = answer.send(verdict);
        }
    }

    async fn decide(&mut self, requests: &[Request]) -> Result<Vec<Verdict>, Problem> {
        let mut schema = self.waiter.schema();
        for _ in 0..FLIPS_MAX {
            match self.attempt(schema, requests).await? {
                Attempt::Answers(verdicts) => return Ok(verdicts),
                Attempt::Flipped(live) => schema = live,
            }
        }
        Err(Problem::unavailable("the read model is being replaced"))
    }

    async fn attempt(&mut self, schema: Schema, requests: &[Request]) -> Result<Attempt, Problem> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.pool).await?,
        };
        let mut connection = InUse(Some(connection));
        let Some(used) = connection.0.as_mut() else { return Err(Problem::internal("no connection")) };
        let attempted = self.attempt_on(used, schema, requests).await;
        // After a failure the next batch takes another connection: this one may be broken.
        if attempted.is_ok() {
            self.connection = connection.0.take();
        }
        attempted
    }

    async fn attempt_on(
        &mut self,
        connection: &mut PgConnection,
        schema: Schema,
        requests: &[Request],
    ) -> Result<Attempt, Problem> {
        let mut batch = Batch::of(requests);
        let mut named = NamedHolds::new();
        let mut ungated: Vec<AccountId> = Vec::new();
        let mut tx = match self.locking {
            Locking::Gates => pg::begin_write_on(&mut *connection, schema).await?,
            Locking::Nothing => pg::begin_read_on(&mut *connection, schema).await?,
        };
        if self.locking == Locking::Gates {
            let accounts: Vec<&str> = batch.accounts.keys().map(|account| account.as_str()).collect();
            let without = store::lock(&mut tx, &accounts).await?;
            if !without.is_empty() {
                tx.rollback().await?;
                let mut making = pg::begin_write_on(&mut *connection, schema).await?;
                store::make_gates(&mut making, &without).await?;
                making.commit().await?;
                tx = pg::begin_write_on(&mut *connection, schema).await?;
                let without = store::lock(&mut tx, &accounts).await?;
                ungated = without
                    .into_iter()
                    .map(AccountId::new)
                    .collect::<Result<_, _>>()
                    .map_err(Problem::internal)?;
            }
            named = store::named(&mut tx, &batch.reservations).await?;
            batch.add_users(&named);
        }
        let (mut found, cores) = self.read(&mut tx, schema, &batch).await?;
        if let Some(generation) = found.live.filter(|live| *live != schema.generation) {
            self.keep(cores);
            tx.rollback().await?;
            return Ok(Attempt::Flipped(Schema { generation, model: Model::ReadModel }));
        }
        // The account was projected after its gate was searched: this batch treats it as absent.
        ungated.iter().for_each(|account| drop(found.accounts.remove(account)));
        let mut writes = Writes::default();
        let deciding = Deciding { requests, named, found, cores: &cores, keep_allowed: self.keep_allowed };
        let verdicts = deciding.all(&batch, &mut writes);
        self.keep(cores);
        match self.locking {
            Locking::Gates => {
                store::write(&mut tx, &writes).await?;
                failpoint::hit("holds.before_commit");
                tx.commit().await?;
                failpoint::hit("holds.after_commit");
            }
            Locking::Nothing => {
                tx.commit().await?;
                store::keep_decisions(connection, &writes).await?;
            }
        }
        Ok(Attempt::Answers(verdicts))
    }

    /// Reads the holds and limits of the accounts, with the cores of exactly that offset.
    async fn read(
        &mut self,
        tx: &mut PgConnection,
        schema: Schema,
        batch: &Batch<'_>,
    ) -> Result<(Standings, Cores), Problem> {
        let mut held: Cores = BTreeMap::new();
        for account in batch.accounts.keys() {
            if let Some((core, cached_at)) = self.cache.take(account)
                && cached_at.schema == schema
            {
                held.insert((*account).clone(), (core, cached_at));
            }
        }
        for _ in 0..READS_MAX {
            let found = standings(&mut *tx, &batch.queries(&held)).await?;
            if found.live.is_some_and(|live| live != schema.generation) {
                return Ok((found, held));
            }
            let stale: Vec<AccountId> = found
                .accounts
                .iter()
                .filter(|(account, standing)| {
                    held.get(*account).is_none_or(|(_, cached_at)| cached_at.offset != standing.offset)
                })
                .map(|(account, _)| account.clone())
                .collect();
            if stale.is_empty() {
                return Ok((found, held));
            }
            for (account, (offset, core)) in cores(&mut *tx, &stale).await.map_err(unreadable)? {
                held.insert(account, (core, CachedAt { schema, offset }));
            }
        }
        Err(Problem::unavailable("the account is changing too fast to decide on"))
    }

    fn keep(&mut self, cores: Cores) {
        for (core, cached_at) in cores.into_values() {
            // Batchers own no partitions, so nothing is ever evicted by partition.
            self.cache.put(core, cached_at, 0);
        }
    }
}

/// A batcher's statements search by keys, whatever their parameters: one generic plan fits all.
async fn connect(pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    sqlx::raw_sql("set plan_cache_mode = force_generic_plan").execute(&mut *connection).await?;
    Ok(connection)
}

fn unreadable(error: WorkerError) -> Problem {
    match error {
        WorkerError::Postgres(error) => error.into(),
        WorkerError::Internal(cause) => Problem::internal(cause),
    }
}

/// Returns how many requests form the next batch: requests without a time share one, one with a time is alone.
fn together(queued: &[Queued]) -> usize {
    let timed = queued.iter().position(|queued| queued.request.at.is_some());
    match timed {
        Some(0) => 1,
        Some(first) => first,
        None => queued.len(),
    }
}

/// The names in the requests of a batch.
struct Batch<'a> {
    accounts: BTreeMap<&'a AccountId, OfAccount>,
    reservations: Vec<(&'a str, &'a str)>,
}

#[derive(Default)]
struct OfAccount {
    at: Option<Time>,
    users: BTreeSet<UserId>,
    requests: Vec<usize>,
}

impl<'a> Batch<'a> {
    fn of(requests: &'a [Request]) -> Self {
        let mut batch = Batch { accounts: BTreeMap::new(), reservations: Vec::new() };
        let mut named = BTreeSet::new();
        for (index, request) in requests.iter().enumerate() {
            let account = batch.accounts.entry(&request.account).or_default();
            account.at = account.at.max(request.at);
            account.requests.push(index);
            let (user, reservation) = request.ask.names();
            account.users.extend(user.cloned());
            named.extend(reservation.map(|reservation| (request.account.as_str(), reservation.as_str())));
        }
        batch.reservations = named.into_iter().collect();
        batch
    }

    /// Adds the users of the named holds.
    fn add_users(&mut self, named: &NamedHolds) {
        for (account, named) in named {
            let holds = named.iter().filter_map(|(_, named)| named.hold.as_ref());
            if let Some(account) = self.accounts.get_mut(account) {
                account.users.extend(holds.filter_map(|hold| hold.user_id.clone()));
            }
        }
    }

    fn queries(&self, cores: &Cores) -> Vec<AccountQuery> {
        let queries = self.accounts.iter().map(|(account, of)| AccountQuery {
            account: (*account).clone(),
            period_index: cores.get(*account).map_or(0, |(core, _)| core.period.index),
            at: of.at,
            users: of.users.iter().cloned().collect(),
        });
        queries.collect()
    }
}

impl Ask {
    /// Returns the user and the hold that the request names.
    fn names(&self) -> (Option<&UserId>, Option<&ReservationId>) {
        match self {
            Ask::Check(work) => (work.user_id.as_ref(), None),
            Ask::Reserve(request) => (request.user_id.as_ref(), Some(&request.reservation_id)),
            Ask::Extend(id, _) | Ask::Release(id) | Ask::Settle(id, _) => (None, Some(id)),
            Ask::Landed(_) | Ask::Sweep => (None, None),
        }
    }
}

/// A batch with everything needed to decide it.
struct Deciding<'a> {
    requests: &'a [Request],
    named: NamedHolds,
    found: Standings,
    cores: &'a Cores,
    keep_allowed: bool,
}

impl Deciding<'_> {
    fn all(mut self, batch: &Batch<'_>, writes: &mut Writes) -> Vec<Verdict> {
        let mut verdicts: Vec<Verdict> = vec![Err(Fault::AccountAbsent); self.requests.len()];
        for (account, of) in &batch.accounts {
            let (Some(standing), Some((core, _))) =
                (self.found.accounts.remove(*account), self.cores.get(*account))
            else {
                continue;
            };
            if let Some(problem) = out_of_time(core, &standing, of.at) {
                of.requests.iter().for_each(|at| verdicts[*at] = Err(Fault::Problem(problem.clone())));
                continue;
            }
            let mut one = OneAccount::new(account, core, &standing, self.keep_allowed);
            for (reservation, named) in self.named.remove(*account).unwrap_or_default() {
                one.add(reservation, named);
            }
            for at in &of.requests {
                verdicts[*at] = one.decide(&self.requests[*at], writes);
            }
            one.finish(writes);
        }
        verdicts
    }
}

fn out_of_time(core: &Core, standing: &AccountStanding, at: Option<Time>) -> Option<Problem> {
    at?;
    if core.clock == Clock::Live {
        return Some(clock_is_live());
    }
    let far = core.crossings_until(standing.now) > CROSSINGS_MAX;
    far.then(clock_jump)
}

/// Requests on one account, in order.
struct OneAccount<'a> {
    account: &'a AccountId,
    gate: Gate<'a>,
    position: Position,
    halted: bool,
    due: bool,
    ended: bool,
    keep_allowed: bool,
    landed: BTreeMap<ReservationId, Position>,
    records: BTreeMap<ReservationId, Vec<u8>>,
}

impl<'a> OneAccount<'a> {
    fn new(account: &'a AccountId, core: &'a Core, standing: &AccountStanding, keep_allowed: bool) -> Self {
        let mut gate = Gate::new(core, standing.now, standing.held);
        for (user, figures) in &standing.users {
            gate.with_user(user.clone(), figures.clone(), core.period.index);
        }
        OneAccount {
            account,
            gate,
            position: standing.position,
            halted: standing.halted,
            due: standing.due > 0,
            ended: standing.ended > 0,
            keep_allowed,
            landed: BTreeMap::new(),
            records: BTreeMap::new(),
        }
    }

    fn add(&mut self, reservation: ReservationId, named: Named) {
        if let Some(position) = named.position {
            self.landed.insert(reservation.clone(), position);
        }
        if let Some(record) = named.record {
            self.records.insert(reservation.clone(), record);
        }
        if named.ended {
            self.gate.with_ended(reservation);
        }
        if let Some(hold) = named.hold {
            self.gate.with_hold(hold);
        }
    }

    fn decide(&mut self, request: &Request, writes: &mut Writes) -> Verdict {
        let actor = &request.actor;
        match &request.ask {
            Ask::Check(_) | Ask::Reserve(_) | Ask::Extend(..) if self.halted => {
                Err(Fault::Problem(Problem::account_halted(self.account.as_str())))
            }
            Ask::Check(_) | Ask::Reserve(_) | Ask::Extend(..) if self.gate.core().closed.is_some() => {
                Err(Fault::Problem(Refusal::account_closed(self.account).problem()))
            }
            Ask::Check(work) => Ok(self.check(work, actor, writes)),
            Ask::Reserve(reserve) => self.reserve(reserve, actor, writes),
            Ask::Extend(id, extend) => self.extend(id, extend, actor, writes),
            Ask::Release(id) => {
                self.gate.release(id).map_err(|refused| self.refuse(id, refused))?;
                self.view(id)
            }
            Ask::Settle(id, event) => self.settle(id, event, writes),
            Ask::Landed(landed) => {
                writes.landed(self.account, landed);
                Ok(Answer::Done)
            }
            Ask::Sweep => {
                writes.undone.row().text(self.account.as_str());
                Ok(Answer::Done)
            }
        }
    }

    fn check(&self, work: &Work, actor: &Label, writes: &mut Writes) -> Answer {
        let decision = self.gate.check(work);
        let about = About {
            kind: "check",
            reservation: None,
            user: work.user_id.as_ref(),
            feature: work.feature.as_ref(),
        };
        self.log(about, &decision, actor, writes);
        let message = decision.message(self.gate.core());
        Answer::Checked(Box::new(decision), message)
    }

    fn reserve(&mut self, reserve: &Reserve, actor: &Label, writes: &mut Writes) -> Verdict {
        let id = &reserve.reservation_id;
        let outcome = self.gate.reserve(reserve);
        let about = About {
            kind: "reserve",
            reservation: Some(id),
            user: reserve.user_id.as_ref(),
            feature: reserve.feature.as_ref(),
        };
        self.granted(id, about, outcome, actor, writes)
    }

    fn extend(&mut self, id: &ReservationId, extend: &Extend, actor: &Label, writes: &mut Writes) -> Verdict {
        let outcome = self.gate.extend(id, extend);
        let hold: Option<Hold> = self.gate.hold(id).cloned();
        let about = About {
            kind: "extend",
            reservation: Some(id),
            user: hold.as_ref().and_then(|hold| hold.user_id.as_ref()),
            feature: hold.as_ref().and_then(|hold| hold.feature.as_ref()),
        };
        self.granted(id, about, outcome, actor, writes)
    }

    /// Records the decision, if there is one, and returns the answer.
    fn granted(
        &self,
        id: &ReservationId,
        about: About<'_>,
        outcome: Result<Option<Decision>, Refused>,
        actor: &Label,
        writes: &mut Writes,
    ) -> Verdict {
        match &outcome {
            Ok(Some(decision)) => self.log(about, decision, actor, writes),
            Err(Refused::Decision(decision)) => self.log(about, decision, actor, writes),
            _ => {}
        }
        outcome.map_err(|refused| self.refuse(id, refused))?;
        self.view(id)
    }

    fn log(&self, about: About<'_>, decision: &Decision, actor: &Label, writes: &mut Writes) {
        if decision.refusal.is_none() && !self.keep_allowed {
            return;
        }
        let About { kind, reservation, user, feature } = about;
        let (account, now, position) = (self.account, self.gate.now(), self.position);
        writes.decision(Decided {
            account,
            kind,
            reservation,
            user,
            feature,
            decision,
            now,
            position,
            actor,
        });
    }

    fn view(&self, id: &ReservationId) -> Verdict {
        let hold = self.gate.hold(id).ok_or_else(|| Fault::HoldAbsent(id.clone()))?;
        let view = HoldView::of(hold, self.gate.now(), self.gate.available(), self.position);
        Ok(Answer::Hold(Box::new(view)))
    }

    /// Settles a hold by usage, whose record goes into the outbox with the held amount.
    fn settle(&mut self, id: &ReservationId, event: &Event, writes: &mut Writes) -> Verdict {
        let Data::UsageRecorded(usage) = &event.data else {
            return Err(Fault::Problem(Problem::internal("only usage settles a hold")));
        };
        let content = content_hash(event);
        let by = Settlement { event_id: event.id.clone(), source: event.source.clone(), content };
        let credits = usage.credits.unwrap_or_default();
        let settling = self.gate.settle(id, by, credits).map_err(|refused| self.refuse(id, refused))?;
        let settles = Usage { held: Some(settling.held), ..usage.clone() };
        let recorded_at = event.recorded_at.max(settling.not_before);
        let record = Event { recorded_at, data: Data::UsageRecorded(settles), ..event.clone() };
        let mut bytes = wire::encode(&record);
        if !settling.repeat {
            writes.settles(id, event, &bytes);
            self.records.insert(id.clone(), bytes.clone());
        } else if let Some(first) = self.records.get(id) {
            // The record keeps its first price, which the hold counts.
            bytes.clone_from(first);
        }
        let settled = SettledHold {
            reservation_id: id.clone(),
            source: event.source.clone(),
            content,
            held: settling.held,
            over_hold: settling.over_hold,
            position: self.landed.get(id).copied(),
        };
        Ok(Answer::Settling(Box::new(settled), bytes))
    }

    fn refuse(&self, id: &ReservationId, refused: Refused) -> Fault {
        let problem = match refused {
            Refused::Unknown => return Fault::HoldAbsent(id.clone()),
            Refused::OtherRequest => Problem::conflict("this id was used before, with other content"),
            Refused::Ended => Problem::conflicting(HOLD_ENDED, format!("reservation {id} has ended")),
            Refused::Decision(decision) => self.payment_required(&decision),
        };
        Fault::Problem(problem)
    }

    fn payment_required(&self, decision: &Decision) -> Problem {
        use ledger_core::policy::decide::Refusal::{CreditsExhausted, UserLimitReached};
        let words = decision.message(self.gate.core()).unwrap_or_default();
        let problem = match decision.refusal {
            Some(UserLimitReached) => Problem::user_limit_reached(words),
            Some(CreditsExhausted) | None => Problem::credits_exhausted(words),
        };
        problem
            .with("requested", decision.amount)
            .with("available", decision.available)
            .with("limit", decision.limit)
            .with("used", decision.used)
            .with("held", decision.held)
            .with("resets_at", decision.resets_at)
            .with("position", self.position)
    }

    fn finish(self, writes: &mut Writes) {
        if self.due {
            writes.due.row().text(self.account.as_str()).time(self.gate.now());
        }
        if self.ended {
            writes.ended.row().text(self.account.as_str());
        }
        writes.gate(self.account, &self.gate);
    }
}

/// The subject of a decision.
#[derive(Clone, Copy)]
struct About<'a> {
    kind: &'static str,
    reservation: Option<&'a ReservationId>,
    user: Option<&'a UserId>,
    feature: Option<&'a Label>,
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;
    use ledger_core::value::id::NameError;

    fn id<T: FromStr<Err = NameError>>(text: &str) -> T {
        text.parse().expect("an id")
    }

    fn request(account: &str, at: Option<Time>, ask: Ask) -> Request {
        Request { account: id(account), at, actor: Label::new("k").expect("a label"), ask }
    }

    #[test]
    fn a_request_with_a_time_of_its_own_is_decided_alone_and_in_its_turn() {
        let check = |times: &[Option<i64>], expected: usize| {
            let queued: Vec<Queued> = times
                .iter()
                .map(|at| {
                    let request = request("acme", at.map(Time::from_millis), Ask::Sweep);
                    Queued { request, answer: oneshot::channel().0 }
                })
                .collect();
            assert_eq!(together(&queued), expected, "{times:?}");
        };
        check(&[None, None, None], 3);
        check(&[None, Some(1), None], 1);
        check(&[Some(1), None], 1);
        check(&[Some(1), Some(2)], 1);
    }

    #[test]
    fn a_batch_names_each_account_user_and_hold_once() {
        let reserve = |id: &str| {
            let body = format!(r#"{{"reservation_id":"{id}","user_id":"ana","amount":"1"}}"#);
            Ask::Reserve(serde_json::from_str(&body).expect("a body"))
        };
        let requests = [
            request("beta", None, reserve("r1")),
            request("acme", None, reserve("r1")),
            request("beta", None, Ask::Release(id("r1"))),
            request("beta", None, reserve("r2")),
        ];
        let batch = Batch::of(&requests);
        let accounts: Vec<(&str, usize, usize)> = batch
            .accounts
            .iter()
            .map(|(account, of)| (account.as_str(), of.users.len(), of.requests.len()))
            .collect();
        assert_eq!(accounts, [("acme", 1, 1), ("beta", 1, 3)]);
        assert_eq!(batch.reservations, [("acme", "r1"), ("beta", "r1"), ("beta", "r2")]);
    }
}
