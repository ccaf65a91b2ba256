//! Errors of Postgres: why a schema could not be changed, and whether a retry may help.

use std::io;
use std::time::Duration;

use super::schema::Schema;

/// Why the database could not be made ready or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A migration that was applied earlier has changed.
    #[error("migration {schema}/{name} was changed after it had been applied")]
    MigrationChanged { schema: String, name: String },
    /// The database was migrated by a newer program.
    #[error("migration {schema}/{name} is unknown: this program is older than the database")]
    MigrationUnknown { schema: String, name: String },
    /// This login may not migrate, and nobody has.
    #[error(
        "the database lacks migration {schema}/{name}: run `ledger migrate` with the owner's DATABASE_URL"
    )]
    MigrationMissing { schema: String, name: &'static str },
    #[error("the database has no tables yet: run `ledger migrate` with the owner's DATABASE_URL")]
    NotMigrated,
    /// A service's role is or may become more than that service needs.
    #[error(
        "role {0} may do more than a service needs: take its attributes SUPERUSER, CREATEROLE, CREATEDB, REPLICATION and BYPASSRLS away"
    )]
    RoleTooMighty(&'static str),
    #[error("generation {0} exists already")]
    GenerationExists(Schema),
    #[error("generation {0} does not exist")]
    GenerationMissing(Schema),
    /// The live generation is never dropped.
    #[error("generation {0} is live")]
    GenerationLive(Schema),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Makes the error of a server that has not answered in time, and counts it.
pub fn silence(waited: Duration) -> sqlx::Error {
    metrics::counter!("ledger_database_silences_total").increment(1);
    let sentence = format!("the database has been silent for {} s", waited.as_secs());
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, sentence))
}

/// Returns whether a retry may help: the server is unreachable, full, read only or shutting down.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "sqlx may add errors; those it has beside these are final"
)]
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| is_unavailable_state(&code)),
        _ => false,
    }
}

/// Returns whether a SQLSTATE means that the server is temporarily unavailable.
fn is_unavailable_state(code: &str) -> bool {
    // 08 connection, 53 out of disk, memory or connections, 57 operator intervention and timeouts, 58 I/O;
    // 25006 read only, 25P03 too long silent within a transaction, 40001 and 40P01 conflicts with other transactions, 55P03 lock not available;
    // 3F000 and 42P01: the generation was dropped after a flip.
    ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class))
        || ["25006", "25P03", "40001", "40P01", "55P03", "3F000", "42P01"].contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_or_read_only_server_is_unavailable_and_a_broken_rule_is_not() {
        for code in ["53100", "25006", "25P03", "57P01", "08006", "40001"] {
            assert!(is_unavailable_state(code), "{code}");
        }
        for code in ["23505", "22003", "42601"] {
            assert!(!is_unavailable_state(code), "{code}");
        }
    }
}
