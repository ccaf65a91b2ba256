//! The requests on an account's holds, and their answers.

use ledger_core::event::Event;
use ledger_core::event::key::ContentHash;
use ledger_core::policy::decide::{Decision, Work};
use ledger_core::policy::hold::{Extend, Hold, Reserve, State};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, EventId, Label, ReservationId, Source, UserId};
use ledger_core::value::time::Time;
use platform::position::Position;
use serde::Serialize;
use web::http::Problem;

/// A request on one account.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Whether work may begin.
    Check(Work),
    /// To hold credits.
    Reserve(Reserve),
    /// To hold more, or longer.
    Extend(ReservationId, Extend),
    /// To hold no more.
    Release(ReservationId),
    /// To end a hold by a usage, priced.
    Settle(ReservationId, Box<Event>),
    /// To note where the journal has the usage that settles a hold.
    Landed(Landed),
    /// To sweep up what has ended.
    Sweep,
}

/// A usage that settles a hold, and where the journal has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed {
    pub reservation: ReservationId,
    pub event_id: EventId,
    pub source: Source,
    pub position: Position,
}

/// An [`Ask`] with who asks.
#[derive(Debug)]
pub struct Request {
    pub account: AccountId,
    /// The ledger time that the caller gives, on test accounts.
    pub at: Option<Time>,
    pub actor: Label,
    pub ask: Ask,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Of a check: the decision, and why not in words.
    Checked(Box<Decision>, Option<String>),
    /// Of a request on a hold.
    Hold(Box<HoldView>),
    /// Of settling, with the record to append.
    Settling(Box<SettledHold>, Vec<u8>),
    /// Of upkeep.
    Done,
}

/// A hold as its producer reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HoldView {
    /// The caller's name for it.
    pub reservation_id: ReservationId,
    /// Where it stands.
    pub state: State,
    /// What it holds, or held.
    pub amount: Credits,
    pub user_id: Option<UserId>,
    pub feature: Option<Label>,
    /// When it ends by itself.
    pub expires_at: Time,
    /// What the account may still spend.
    pub available: Credits,
    /// The position of the journal that it was decided at.
    pub position: Position,
}

impl HoldView {
    pub fn of(hold: &Hold, now: Time, available: Credits, position: Position) -> Self {
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

/// A hold that a usage settles; the usage's record is in the outbox, to be appended at once by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledHold {
    pub reservation_id: ReservationId,
    pub source: Source,
    /// What the usage says.
    pub content: ContentHash,
    /// What the hold held.
    pub held: Credits,
    /// What the usage charges beyond that.
    pub over_hold: Credits,
    /// Where the journal has the usage already.
    pub position: Option<Position>,
}

/// Why nothing came of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// No such account, unless the projection lags.
    AccountAbsent,
    /// There never was such a hold.
    HoldAbsent(ReservationId),
    /// Everything else, as it is answered.
    Problem(Problem),
}

/// Code of a hold that never was.
pub const RESERVATION_NOT_FOUND: &str = "reservation_not_found";
/// Code of a hold that has ended.
pub const HOLD_ENDED: &str = "hold_ended";

/// Says that there never was such a hold.
pub fn no_reservation(account: &AccountId, reservation: &ReservationId) -> String {
    format!("account {account} has no reservation {reservation}")
}

impl Fault {
    /// Returns the answer to the caller.
    pub fn problem(self, account: &AccountId) -> Problem {
        match self {
            Fault::AccountAbsent => Problem::account_not_found(account.as_str()),
            Fault::HoldAbsent(reservation) => {
                Problem::not_found(RESERVATION_NOT_FOUND, no_reservation(account, &reservation))
            }
            Fault::Problem(problem) => problem,
        }
    }
}

pub type Verdict = Result<Answer, Fault>;
