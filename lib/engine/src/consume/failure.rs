//! Tells failures of a batch's own from those that a retry helps.

use super::worker::WorkerError;
use crate::log;

/// What a failed transaction says about its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Nothing: the network, the state of the database, or another transaction.
    Elsewhere,
    /// A statement took too long: the records may be too many at once.
    Slow,
    /// The records themselves can't be folded or stored, or one of them.
    Own,
}

/// Why a transaction was rolled back.
#[derive(Debug)]
pub(super) struct Failure {
    pub cause: Cause,
    pub why: String,
    pub panicked: bool,
}

impl Failure {
    pub fn new(cause: Cause, why: String) -> Failure {
        Failure { cause, why, panicked: false }
    }

    pub fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
        let said = panic.downcast_ref::<&str>().copied().map(str::to_owned);
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Failure { cause: Cause::Own, why: format!("panic: {said}"), panicked: true }
    }
}

impl From<WorkerError> for Failure {
    fn from(error: WorkerError) -> Failure {
        match error {
            WorkerError::Postgres(error) => error.into(),
            WorkerError::Internal(why) => Failure::new(Cause::Own, why),
        }
    }
}

impl From<log::Error> for Failure {
    fn from(error: log::Error) -> Failure {
        match error {
            log::Error::Postgres(error) => error.into(),
            log::Error::MissingTile { .. } | log::Error::OutOfStep(_) => {
                Failure::new(Cause::Elsewhere, error.to_string())
            }
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Failure {
        Failure::new(cause_of(&error), sentence(&error))
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what sqlx may add, and what it has beside these, is of the connection or of this program"
)]
fn cause_of(error: &sqlx::Error) -> Cause {
    match error {
        sqlx::Error::Database(refusal) => {
            refusal.code().map_or(Cause::Elsewhere, |code| cause_of_state(&code))
        }
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_) => Cause::Own,
        _ => Cause::Elsewhere,
    }
}

/// 21 and 22 bad data, 23 constraints, 27 and 44 refused by a trigger or a view, 54 program limits, P0 raised: one
/// record can cause these. 57014 is the statement timeout. Anything else, such as a missing table or right, meets every
/// record alike.
fn cause_of_state(code: &str) -> Cause {
    if code == "57014" {
        return Cause::Slow;
    }
    let own = ["21", "22", "23", "27", "44", "54", "P0"].iter().any(|class| code.starts_with(class));
    if own { Cause::Own } else { Cause::Elsewhere }
}

/// Names the constraint and the state; Postgres's own words go on with the values.
fn sentence(error: &sqlx::Error) -> String {
    let Some(refusal) = error.as_database_error() else { return format!("postgres: {error}") };
    let code = refusal.code().unwrap_or_default();
    format!("postgres: {} ({code})", refusal.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_one_record_can_cause_is_its_own() {
        for (code, cause) in [
            ("23505", Cause::Own),
            ("23514", Cause::Own),
            ("22003", Cause::Own),
            ("21000", Cause::Own),
            ("54000", Cause::Own),
            ("57014", Cause::Slow),
            ("57P01", Cause::Elsewhere),
            ("40001", Cause::Elsewhere),
            ("55P03", Cause::Elsewhere),
            ("53100", Cause::Elsewhere),
            ("25006", Cause::Elsewhere),
            ("42P01", Cause::Elsewhere),
            ("42501", Cause::Elsewhere),
            ("08006", Cause::Elsewhere),
        ] {
            assert_eq!(cause_of_state(code), cause, "{code}");
        }
        assert_eq!(cause_of(&sqlx::Error::PoolTimedOut), Cause::Elsewhere);
        assert_eq!(cause_of(&sqlx::Error::Decode("a row".into())), Cause::Own);
    }
}
