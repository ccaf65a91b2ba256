//! Service: the alert worker as a process of its own.

use anyhow::Context;
use runtime::kafka::{self, Journal, KafkaOptions};
use runtime::pg::{self, PgConfig};
use runtime::shutdown::CancellationToken;

use crate::scheduler::{self, SchedulerConfig};

/// Settings of the process.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// The read model that says what is due.
    #[command(flatten)]
    pub postgres: PgConfig,
    /// The journal that resets are appended to.
    #[command(flatten)]
    pub kafka: KafkaOptions,
    /// How the scheduler runs.
    #[command(flatten)]
    pub scheduler: SchedulerConfig,
}

/// Schedules until `shutdown`.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let database = &config.postgres;
    let pool = pg::connect(&database.database_url, "alert-worker", database.database_connections)
        .await
        .context("the database can't be reached")?;
    pg::migrate(&pool).await?;
    let identity = kafka::prepare(&config.kafka, &pool).await?;
    let journal = Journal::new(&config.kafka, identity)?;
    scheduler::run(config.scheduler, journal, pool, shutdown).await;
    Ok(())
}
