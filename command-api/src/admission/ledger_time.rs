//! Ledger time: when a write is recorded, and what may move a test clock.

use ledger_core::event::Clock;
use ledger_core::fold::CROSSINGS_MAX;
use ledger_core::value::time::Time;
use web::http::Problem;

use super::known_accounts::Account;

/// The caller gave a recording time for an account with a live clock.
pub const CLOCK_IS_LIVE: &str = "clock_is_live";
/// The recording time would move a test clock across more boundaries than one move may cross.
pub const CLOCK_JUMP: &str = "clock_jump";

/// Returns the time that a write is recorded at: the service's clock for live accounts, for test accounts the
/// caller's or else the account's own, which does not advance by itself. None: a time was given for a live account.
pub fn recorded_at(account: &Account, given: Option<Time>, now: Time) -> Option<Time> {
    match (account.clock, given) {
        (Clock::Live, None) => Some(now),
        (Clock::Live, Some(_)) => None,
        (Clock::Test, given) => Some(given.unwrap_or(account.ledger_time)),
    }
}

/// 409: the caller gave a time for an account with a live clock.
pub fn clock_is_live() -> Problem {
    let detail = "this account's clock is live: its time can't be given or moved";
    Problem::conflicting(CLOCK_IS_LIVE, detail)
}

/// 422: the move would take a test clock too far.
pub fn clock_jump() -> Problem {
    Problem::unprocessable(CLOCK_JUMP, clock_jump_detail())
}

/// Describes how far one move of a test clock may go.
pub fn clock_jump_detail() -> String {
    format!("one move of a test clock crosses at most {CROSSINGS_MAX} boundaries, lot starts and lot ends")
}
