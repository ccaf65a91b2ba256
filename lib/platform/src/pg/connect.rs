//! Pools: what their connections are for, and how long anything in them may wait.
//!
//! The server ends statements, waits for locks and forgotten transactions; see [`Purpose`]. That is no help against a
//! server, or a network, that has gone silent: so every connection is tried before it is used and when it comes back,
//! and whatever is done on it has an end here too, see [`super::read`], [`super::write`] and [`super::bounded`].

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{Connection, PgPool};
use tokio::time::timeout;

use super::error::silence;

/// How long a request may wait for a free connection before a 503; connecting is within it.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is replaced after this time, to notice a failover and to free memory.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(30 * 60);
const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// A connection that does not answer within this time is closed.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

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

/// What a pool's connections are for. It decides how long the server lets them wait; a transaction may set its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Reads for requests, which change nothing.
    Reads,
    /// Requests that write, and the upkeep of what they wrote.
    Requests,
    /// Loops that consume the journal.
    Consume,
    /// Migrations, rebuilds and tests: a statement may take hours.
    Maintenance,
}

/// What the server does for a session of a purpose; 0 is any time.
struct Waits {
    statement: &'static str,
    /// So that a process which has stopped in the middle of a write delays only those who want the same row.
    lock: &'static str,
    /// A process silent for this long within a transaction counts as gone, and its locks are free again.
    idle_in_transaction: &'static str,
}

impl Purpose {
    const fn waits(self) -> Waits {
        match self {
            Purpose::Reads => Waits { statement: "30s", lock: "2s", idle_in_transaction: "30s" },
            Purpose::Requests => Waits { statement: "15s", lock: "2s", idle_in_transaction: "10s" },
            Purpose::Consume => Waits { statement: "60s", lock: "60s", idle_in_transaction: "60s" },
            Purpose::Maintenance => Waits { statement: "0", lock: "0", idle_in_transaction: "0" },
        }
    }
}

/// Opens a pool for maintenance; `application` is the name shown in `pg_stat_activity`.
pub async fn connect(url: &str, application: &str, connections_max: u32) -> Result<PgPool, sqlx::Error> {
    connect_for(Purpose::Maintenance, url, application, connections_max).await
}

/// Opens a pool for a purpose; for [`Purpose::Reads`], of transactions that are read only.
pub async fn connect_for(
    purpose: Purpose,
    url: &str,
    application: &str,
    connections_max: u32,
) -> Result<PgPool, sqlx::Error> {
    let options = connect_options(purpose, url, application)?;
    pool_options(connections_max).connect_with(options).await
}

fn connect_options(purpose: Purpose, url: &str, application: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    let Waits { statement, lock, idle_in_transaction } = purpose.waits();
    let options = options.application_name(application).options([
        // UTC, so that times in answers and server logs read the same everywhere.
        ("TimeZone", "UTC"),
        ("statement_timeout", statement),
        ("lock_timeout", lock),
        ("idle_in_transaction_session_timeout", idle_in_transaction),
        // The server's side of the line: a client that is gone frees its locks within half a minute, and what it
        // asked for is not computed to the end.
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "25s"),
        ("client_connection_check_interval", "5s"),
    ]);
    Ok(match purpose {
        Purpose::Reads => options.options([("default_transaction_read_only", "on")]),
        Purpose::Requests | Purpose::Consume | Purpose::Maintenance => options,
    })
}

fn pool_options(connections_max: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(CONNECTION_LIFETIME)
        .idle_timeout(IDLE_TIMEOUT)
        // sqlx's own question has no end.
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(answers(connection)))
        .after_release(|connection, _| Box::pin(answers(connection)))
}

/// Asks whether the server is still there. Errors: not in time, and the pool closes the connection.
async fn answers(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    match timeout(PING_TIMEOUT, connection.ping()).await {
        Ok(answered) => answered.map(|()| true),
        Err(_) => Err(silence(PING_TIMEOUT)),
    }
}
