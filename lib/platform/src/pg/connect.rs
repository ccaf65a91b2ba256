//! Pools: connections that write, and connections that can only read.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::reader::become_reader;

/// How long a request may wait for a free connection before a 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is replaced after this time, to notice a failover and to free memory.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(30 * 60);
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
        .after_connect(|connection, _| Box::pin(async move { become_reader(connection).await }))
        .connect_with(options)
        .await
}

fn connect_options(url: &str, application: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    // UTC, so that times in answers and server logs read the same everywhere.
    Ok(options.application_name(application).options([("TimeZone", "UTC")]))
}

fn pool_options(connections_max: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(CONNECTION_LIFETIME)
        .idle_timeout(IDLE_TIMEOUT)
}
