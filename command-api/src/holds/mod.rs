//! Holds: checks and reservations; any number of processes together never grant too much.
//!
//! The requests of one process are combined: a *batcher* takes the queued requests, locks the gates of their accounts
//! in order, reads figures and open holds in one statement, decides each request by the pure
//! [`Gate`](ledger_core::policy::hold::Gate), writes everything, commits, and then answers. Separate batchers answer
//! checks without locks.

mod batcher;
pub mod request;
mod rows;
mod store;
pub mod upkeep;

use std::future::{Ready, ready};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use engine::progress::Waiter;
use futures::FutureExt;
use ledger_core::value::id::{AccountId, Label};
use platform::heartbeat::{Heartbeat, supervise};
use platform::pg::PgPool;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;
use web::http::Problem;

use self::batcher::{Batcher, Locking, Queued};
use self::request::{Ask, Fault, Request, Verdict};

/// Batchers that decide under gates; an account always maps to the same one.
const GATE_BATCHERS: usize = 2;
/// Batchers that only read.
const READ_BATCHERS: usize = 2;
/// Requests queued per batcher; further callers wait to enqueue.
const QUEUE_MAX: usize = 4_096;

/// Days that the first answers to writes are repeated by default.
const IDEMPOTENCY_DAYS: u32 = 400;
/// Days that decisions are kept by default.
const DECISIONS_DAYS: u32 = 400;

/// Settings of holds and decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
#[group(id = "holds")]
pub struct HoldsConfig {
    /// Keep what was allowed too, not the refusals alone: a row for every check, reservation and extension
    #[arg(long = "decisions-keep-allowed", env = "LEDGER_DECISIONS_KEEP_ALLOWED")]
    pub keep_allowed: bool,
    /// Days that decisions are kept
    #[arg(long, env = "LEDGER_DECISIONS_DAYS", default_value_t = DECISIONS_DAYS,
          value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub decisions_days: u32,
    /// Days that the first answer to a write is repeated; later its id still counts once, and a repeat is a duplicate
    #[arg(long, env = "LEDGER_IDEMPOTENCY_DAYS", default_value_t = IDEMPOTENCY_DAYS,
          value_parser = clap::value_parser!(u32).range(40..=36_500))]
    pub idempotency_days: u32,
}

impl Default for HoldsConfig {
    fn default() -> Self {
        Self { keep_allowed: false, decisions_days: DECISIONS_DAYS, idempotency_days: IDEMPOTENCY_DAYS }
    }
}

/// Sends requests to the batchers of this process.
pub struct Holds {
    gates: Vec<mpsc::Sender<Queued>>,
    reads: Vec<mpsc::Sender<Queued>>,
    heartbeats: Vec<Heartbeat>,
    _batchers: Vec<AbortOnDropHandle<()>>,
}

impl Holds {
    /// Starts the batchers; they end when the last `Holds` is dropped.
    pub fn start(pool: &PgPool, waiter: &Arc<Waiter>, config: HoldsConfig) -> Holds {
        let (mut batchers, mut heartbeats) = (Vec::new(), Vec::new());
        let mut start = |locking: Locking| {
            let (queue, queued) = mpsc::channel(QUEUE_MAX);
            let (heartbeat, queued) = (Heartbeat::new("holds"), Arc::new(Mutex::new(queued)));
            heartbeats.push(heartbeat.clone());
            let (pool, waiter, beats) = (pool.clone(), Arc::clone(waiter), heartbeat.clone());
            let batching = supervise(heartbeat, CancellationToken::new(), move || {
                let batcher = Batcher::new(pool.clone(), Arc::clone(&waiter), locking, config.keep_allowed);
                let (queued, beats) = (Arc::clone(&queued), beats.clone());
                async move { batcher.run(&mut *queued.lock().await, &beats).await }
            });
            batchers.push(AbortOnDropHandle::new(tokio::spawn(batching.map(drop))));
            queue
        };
        let gates = (0..GATE_BATCHERS).map(|_| start(Locking::Gates)).collect();
        let reads = (0..READ_BATCHERS).map(|_| start(Locking::Nothing)).collect();
        Holds { gates, reads, heartbeats, _batchers: batchers }
    }

    /// Returns a readiness check that fails while a batcher makes no progress.
    pub fn check(&self) -> impl Fn() -> Ready<Result<(), String>> + Send + Sync + 'static {
        let heartbeats = self.heartbeats.clone();
        move || ready(heartbeats.iter().find_map(Heartbeat::problem).map_or(Ok(()), Err))
    }

    /// Sends a request and waits for the answer; the request is carried out even if the caller goes away.
    pub async fn ask(&self, request: Request) -> Verdict {
        let ended =
            |_| Fault::Problem(Problem::unavailable("it is not known what came of it: send the same again"));
        let queue = self.queue_of(&request);
        let (answer, answered) = oneshot::channel();
        let queued = queue.send(Queued { request, answer });
        queued.await.map_err(|_| Fault::Problem(Problem::unavailable("the service is stopping")))?;
        answered.await.map_err(ended)?
    }

    /// Sends a request without waiting for the answer: upkeep repeats a lost one.
    pub async fn notify(&self, account: &AccountId, ask: Ask) {
        let request = of_upkeep(account, ask);
        let (answer, _) = oneshot::channel();
        // Fails only while the process ends.
        let _ = self.queue_of(&request).send(Queued { request, answer }).await;
    }

    /// Reopens the account's holds whose usage had no effect, and waits until that is stored: a request that is sent
    /// afterwards finds them open. Upkeep repeats what fails.
    pub async fn sweep(&self, account: &AccountId) {
        if self.ask(of_upkeep(account, Ask::Sweep)).await.is_err() {
            debug!(%account, "holds could not be reopened at once");
        }
    }

    fn queue_of(&self, request: &Request) -> &mpsc::Sender<Queued> {
        let queues = if matches!(request.ask, Ask::Check(_)) { &self.reads } else { &self.gates };
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&request.account);
        &queues[usize::try_from(hash % queues.len() as u64).unwrap_or_default()]
    }
}

fn of_upkeep(account: &AccountId, ask: Ask) -> Request {
    let actor = Label::new("upkeep").expect("a well-formed label");
    Request { account: account.clone(), at: None, actor, ask }
}
