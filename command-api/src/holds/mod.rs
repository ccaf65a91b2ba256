//! Holds: what products ask before and while they work, decided so that any number of processes never grant too much.
//!
//! Requests of one process are combined: a *lane* takes what has queued, locks the gates of its accounts in order, reads
//! figures and open holds in one statement, decides each request by the pure [`Gate`](ledger_core::policy::hold::Gate), writes
//! everything, commits, and only then answers. Checks have lanes of their own that lock nothing.

mod lane;
mod rows;
mod store;
mod upkeep;

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use engine::progress::Waiter;
use ledger_core::event::Event;
use ledger_core::policy::decide::{Decision, Work};
use ledger_core::policy::hold::{Extend, Hold, Reserve, State};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{EventId, Id, Label, Source};
use ledger_core::value::time::Time;
use platform::pg::PgPool;
use platform::position::Position;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use web::http::Problem;

use lane::{Lane, Locking};
pub use upkeep::{drop_old, keep_up};

/// Lanes that decide under gates; an account is always in the same.
const GATE_LANES: usize = 2;
/// Lanes that only look.
const LOOK_LANES: usize = 2;
/// Requests that wait for one lane; whoever comes next waits to queue.
const QUEUE_MAX: usize = 4_096;

/// Days that decisions are kept, unless told otherwise.
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
}

impl Default for HoldsConfig {
    fn default() -> Self {
        Self { keep_allowed: false, decisions_days: DECISIONS_DAYS }
    }
}

/// Something asked of one account.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Whether work may begin.
    Check(Work),
    /// To hold credits.
    Reserve(Reserve),
    /// To hold more, or longer.
    Extend(Id, Extend),
    /// To hold no more.
    Release(Id),
    /// To end a hold by a usage, priced.
    Settle(Id, Box<Event>),
    /// To note where the journal has the usage that settles a hold.
    Landed(Landed),
    /// To sweep up what has ended.
    Sweep,
}

/// A usage that settles a hold, and where the journal has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed {
    /// The hold.
    pub reservation: Id,
    /// The usage.
    pub event_id: EventId,
    /// Its producer.
    pub source: Source,
    /// Where.
    pub position: Position,
}

/// An [`Ask`] with who asks.
#[derive(Debug)]
pub struct Request {
    /// The account.
    pub account: Id,
    /// The ledger time that the caller gives, on test accounts.
    pub at: Option<Time>,
    /// The caller's key.
    pub actor: Label,
    /// What is asked.
    pub ask: Ask,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Of a check: the decision, and why not in words.
    Checked(Box<Decision>, Option<String>),
    /// Of a request on a hold.
    Hold(Box<HoldView>),
    /// Of settling.
    Settling(Settled),
    /// Of upkeep.
    Done,
}

/// A hold as its producer reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HoldView {
    /// The caller's name for it.
    pub reservation_id: Id,
    /// Where it stands.
    pub state: State,
    /// What it holds, or held.
    pub amount: Credits,
    /// Who works.
    pub user_id: Option<Id>,
    /// For what.
    pub feature: Option<Label>,
    /// When it ends by itself.
    pub expires_at: Time,
    /// What the account may still spend.
    pub available: Credits,
    /// The position of the journal that it was decided at.
    pub position: Position,
}

impl HoldView {
    fn of(hold: &Hold, now: Time, available: Credits, position: Position) -> Self {
        Self {
            reservation_id: hold.reservation_id.clone(),
            state: hold.state_at(now),
            amount: hold.amount,
            user_id: hold.user_id.clone(),
            feature: hold.feature.clone(),
            expires_at: hold.expires_at,
            available,
            position,
        }
    }
}

/// A hold whose usage is in the outbox, to be appended at once by who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The record.
    pub bytes: Vec<u8>,
    /// What the hold held.
    pub held: Credits,
    /// What the usage charges beyond that.
    pub over_hold: Credits,
    /// Where the journal has it already.
    pub position: Option<Position>,
}

/// Why nothing came of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// No such account, unless the projection lags.
    AccountAbsent,
    /// There never was such a hold.
    HoldAbsent(Id),
    /// Everything else, as it is answered.
    Problem(Problem),
}

/// Code of a hold that never was.
pub const RESERVATION_NOT_FOUND: &str = "reservation_not_found";
/// Code of a hold that has ended.
pub const HOLD_ENDED: &str = "hold_ended";

/// Says that there never was such a hold.
pub fn no_reservation(account: &Id, reservation: &Id) -> String {
    format!("account {account} has no reservation {reservation}")
}

impl Fault {
    /// Returns the answer to who asked this of an account.
    pub fn problem(self, account: &Id) -> Problem {
        match self {
            Fault::AccountAbsent => Problem::account_not_found(account.as_str()),
            Fault::HoldAbsent(reservation) => {
                Problem::not_found(RESERVATION_NOT_FOUND, no_reservation(account, &reservation))
            }
            Fault::Problem(problem) => problem,
        }
    }
}

type Verdict = Result<Answer, Fault>;

/// A request in a queue.
struct Queued {
    request: Request,
    answer: oneshot::Sender<Verdict>,
}

/// The way to the lanes of this process.
pub struct Holds {
    gates: Vec<mpsc::Sender<Queued>>,
    looks: Vec<mpsc::Sender<Queued>>,
    _lanes: Vec<AbortOnDropHandle<()>>,
}

impl Holds {
    /// Starts the lanes; they end when the last of their users is dropped.
    pub fn start(pool: &PgPool, waiter: &Arc<Waiter>, config: HoldsConfig) -> Holds {
        let mut lanes = Vec::new();
        let mut start = |locking: Locking| {
            let (queue, queued) = mpsc::channel(QUEUE_MAX);
            let lane = Lane::new(pool.clone(), Arc::clone(waiter), locking, config.keep_allowed);
            lanes.push(AbortOnDropHandle::new(tokio::spawn(lane.run(queued))));
            queue
        };
        let gates = (0..GATE_LANES).map(|_| start(Locking::Gates)).collect();
        let looks = (0..LOOK_LANES).map(|_| start(Locking::Nothing)).collect();
        Holds { gates, looks, _lanes: lanes }
    }

    /// Asks, and waits for what comes of it; it comes of it too where the caller goes away.
    pub async fn ask(&self, request: Request) -> Verdict {
        let ended =
            |_| Fault::Problem(Problem::unavailable("it is not known what came of it: send the same again"));
        let lane = self.lane_of(&request);
        let (answer, answered) = oneshot::channel();
        let queue = lane.send(Queued { request, answer });
        queue.await.map_err(|_| Fault::Problem(Problem::unavailable("the service is stopping")))?;
        answered.await.map_err(ended)?
    }

    /// Tells something of an account whose answer nobody waits for: what is lost is found again by upkeep.
    pub async fn tell(&self, account: &Id, ask: Ask) {
        let actor = Label::new("upkeep").expect("a well-formed label");
        let request = Request { account: account.clone(), at: None, actor, ask };
        let (answer, _) = oneshot::channel();
        // Fails only when the process is ending.
        let _ = self.lane_of(&request).send(Queued { request, answer }).await;
    }

    fn lane_of(&self, request: &Request) -> &mpsc::Sender<Queued> {
        let lanes = match request.ask {
            Ask::Check(_) => &self.looks,
            _ => &self.gates,
        };
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&request.account);
        &lanes[usize::try_from(hash % lanes.len() as u64).unwrap_or_default()]
    }
}
