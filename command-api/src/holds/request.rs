//! The requests on an account's holds, and their answers.

use ledger_core::event::Event;
use ledger_core::event::key::ContentHash;
use ledger_core::policy::decide::{Decision, Work};
use ledger_core::policy::hold::{Extend, Hold, Reserve, State};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, EventId, Label, ReservationId, Source, UserId};
use ledger_core::value::time::Time;
use platform::position::Position;
use schemars::JsonSchema;
use serde::Serialize;
use web::http::Problem;

#[derive(Debug, Clone)]
pub enum Ask {
    /// May work begin?
    Check(Work),
    /// Holds credits.
    Reserve(Reserve),
    /// Holds more, or longer.
    Extend(ReservationId, Extend),
    /// Ends a hold without usage.
    Release(ReservationId),
    /// Ends a hold by usage that is priced.
    Settle(ReservationId, Box<Event>),
    /// Records the journal position of the usage that settles a hold.
    Landed(Landed),
    /// Ends holds that have expired.
    Sweep,
}

/// The usage that settles a hold, and its journal position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed {
    pub reservation: ReservationId,
    pub event_id: EventId,
    pub source: Source,
    pub position: Position,
}

/// An [`Ask`] with its caller.
#[derive(Debug)]
pub struct Request {
    pub account: AccountId,
    /// The ledger time from the caller, on test accounts.
    pub at: Option<Time>,
    pub actor: Label,
    pub ask: Ask,
}

#[derive(Debug, Clone)]
pub enum Answer {
    /// To a check: the decision, and a sentence with the reason of a refusal.
    Checked(Box<Decision>, Option<String>),
    Hold(Box<HoldView>),
    /// To a settlement, with the record to append.
    Settling(Box<SettledHold>, Vec<u8>),
    /// To upkeep.
    Done,
}

/// A hold as the API returns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Hold")]
pub struct HoldView {
    /// The caller's id for it.
    pub reservation_id: ReservationId,
    pub state: State,
    /// The amount held now or before it ended.
    pub amount: Credits,
    pub user_id: Option<UserId>,
    pub feature: Option<Label>,
    pub expires_at: Time,
    /// What the account may still spend, in its unit.
    pub available: Credits,
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

/// A hold that usage settles; the usage's record is in the outbox, and the caller must append it at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledHold {
    pub reservation_id: ReservationId,
    pub source: Source,
    /// The hash of the usage's content.
    pub content: ContentHash,
    /// The amount that was held.
    pub held: Credits,
    /// What the usage charges above the held amount.
    pub over_hold: Credits,
    /// The usage's journal position, if it is appended.
    pub position: Option<Position>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The account does not exist, unless the projection lags.
    AccountAbsent,
    /// No hold ever had this id.
    HoldAbsent(ReservationId),
    /// Any other refusal, as answered to the caller.
    Problem(Problem),
}

/// Error code: no hold ever had this id.
pub const RESERVATION_NOT_FOUND: &str = "reservation_not_found";
/// Error code: the hold has ended.
pub const HOLD_ENDED: &str = "hold_ended";

pub fn no_reservation(account: &AccountId, reservation: &ReservationId) -> String {
    format!("account {account} has no reservation {reservation}")
}

impl Fault {
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
