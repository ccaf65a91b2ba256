//! Service: the alert worker as a process of its own.

use anyhow::Context;
use runtime::http::ops::{self, Readiness};
use runtime::http::{self, HttpConfig};
use runtime::kafka::{self, Appender, Journal, KafkaOptions};
use runtime::pg::{self, PgConfig};
use runtime::shutdown::CancellationToken;

use crate::delivery::{self, DeliveryConfig};
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
    /// Where the operator's pages are served.
    #[command(flatten)]
    pub http: HttpConfig,
    /// How the scheduler runs.
    #[command(flatten)]
    pub scheduler: SchedulerConfig,
    /// How alerts and notices are told.
    #[command(flatten)]
    pub delivery: DeliveryConfig,
}

/// Schedules and delivers until `shutdown`, and serves the operator's pages.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let database = &config.postgres;
    let pool = pg::connect(&database.database_url, "alert-worker", database.database_connections)
        .await
        .context("the database can't be reached")?;
    pg::migrate(&pool).await?;
    let identity = kafka::prepare(&config.kafka, &pool).await?;
    let journal = Journal::new(&config.kafka, identity)?;
    let readiness = Readiness::new().with_database(&pool).with_log(&config.kafka, &pool);
    let pages = http::finish(ops::router(readiness));
    let alerts = Appender::new(&config.kafka, &config.kafka.topics().alerts, identity.partitions)?;
    let delivering = delivery::run(config.delivery, pool.clone(), alerts, shutdown.clone());
    let token = shutdown.clone();
    let scheduling = async move {
        scheduler::run(config.scheduler, journal, pool, token).await;
        Ok(())
    };
    let working = async { tokio::try_join!(scheduling, delivering).map(drop) };
    http::serve_beside(working, pages, &config.http, shutdown).await
}
