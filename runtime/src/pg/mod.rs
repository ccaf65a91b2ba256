//! Postgres: pools, migrations, generations, and transactions that survive a dropped request.

mod compare;
mod convert;
mod generation;
mod migrate;
mod transaction;

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
pub use sqlx::{PgConnection, PgPool};

pub use compare::{Columns, Difference, SAMPLES_MAX, Sample, Table, compare};
pub use convert::{credits_of, numeric_text, time_of, timestamp};
pub use generation::{
    GENERATION_CHANNEL, Model, NotASchema, Schema, create_generation, drop_generation, ensure_generation,
    flip, generations, hold_still, keep_live, live_generation,
};
pub use migrate::migrate;
pub use transaction::{begin_read, begin_read_on, begin_write_on, read, write};

/// How long a request may wait for a free connection before it is answered 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is replaced after this time, so that a failed-over server is noticed and memory given back.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// Idle connections beyond this age are closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// How to reach Postgres.
#[derive(Debug, Clone, clap::Args)]
pub struct PgConfig {
    /// Postgres to use, as postgres://user:password@host:port/database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// Most connections that this process keeps to Postgres.
    #[arg(long, env = "LEDGER_DATABASE_CONNECTIONS", default_value_t = 16)]
    pub database_connections: u32,
}

/// Why the database could not be made ready or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that was applied earlier reads differently now.
    #[error("migration {schema}/{name} was changed after it had been applied")]
    MigrationChanged {
        /// Schema that it was applied to.
        schema: String,
        /// File name without its ending.
        name: String,
    },
    /// The database was migrated by a newer program.
    #[error("migration {schema}/{name} is unknown: this program is older than the database")]
    MigrationUnknown {
        /// Schema that it was applied to.
        schema: String,
        /// File name without its ending.
        name: String,
    },
    /// A generation of that number stands already.
    #[error("generation {0} exists already")]
    GenerationExists(Schema),
    /// No generation of that number stands.
    #[error("generation {0} does not exist")]
    GenerationMissing(Schema),
    /// The live generation is never dropped.
    #[error("generation {0} is live")]
    GenerationLive(Schema),
    /// Everything that the database itself says.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Opens a pool that may write; `application` is the name shown in `pg_stat_activity`.
pub async fn connect(url: &str, application: &str, connections_max: u32) -> Result<PgPool, sqlx::Error> {
    let options = connect_options(url, application)?;
    pool_options(connections_max).connect_with(options).await
}

/// Opens a pool that can only read: every transaction is read only, and the session takes the role
/// `ledger_reader` where the server let the migration make it.
pub async fn connect_read_only(
    url: &str,
    application: &str,
    connections_max: u32,
) -> Result<PgPool, sqlx::Error> {
    let options = connect_options(url, application)?.options([("default_transaction_read_only", "on")]);
    pool_options(connections_max)
        .after_connect(|connection, _| {
            Box::pin(async move { sqlx::query(migrate::BECOME_READER).execute(connection).await.map(drop) })
        })
        .connect_with(options)
        .await
}

fn connect_options(url: &str, application: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    // UTC: times in answers and logs of the server then read the same everywhere.
    Ok(options.application_name(application).options([("TimeZone", "UTC")]))
}

fn pool_options(connections_max: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(CONNECTION_LIFETIME)
        .idle_timeout(IDLE_TIMEOUT)
}

/// Tells whether trying again later may help: the server is away, full, read only or shutting down.
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

/// SQLSTATE classes and codes of a server that can't take the work now.
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
