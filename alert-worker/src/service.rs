//! Service: the alert worker as a process of its own.

use anyhow::Context;
use platform::kafka::{self, Appender, Journal, KafkaOptions};
use platform::pg::{self, PgConfig};
use platform::shutdown::CancellationToken;
use engine::consume::{Source, Status};
use web::http::{self, HttpConfig};
use web::http::ops::{self, Readiness};
use payments::PaymentConfig;

use crate::alerting;
use crate::delivery::{self, DeliveryConfig};
use crate::scheduler::{self, SchedulerConfig};
use crate::top_ups::{self, TopUpConfig};

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
    /// How it evaluates.
    #[command(flatten)]
    pub alerts: alerting::Options,
    /// How alerts and notices are told.
    #[command(flatten)]
    pub delivery: DeliveryConfig,
    /// How top-ups run.
    #[command(flatten)]
    pub top_ups: TopUpConfig,
    /// Who moves the money.
    #[command(flatten)]
    pub payment: PaymentConfig,
}

/// Evaluates, schedules and delivers until `shutdown`, and serves the operator's pages.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let database = &config.postgres;
    let pool = pg::connect(&database.database_url, "alert-worker", database.database_connections)
        .await
        .context("the database can't be reached")?;
    pg::migrate(&pool).await?;
    let identity = kafka::prepare(&config.kafka, &pool).await?;
    let source = Source { kafka: config.kafka.clone(), identity, pool: pool.clone() };
    let telling = alerting::begin(&source).await?;
    let status = Status::default();
    let evaluating = alerting::watch(config.alerts, source, telling, status.clone(), shutdown.clone());
    let journal = Journal::new(&config.kafka, identity)?;
    let readiness = Readiness::new()
        .with_database(&pool)
        .with_log(&config.kafka, &pool)
        .with("alert-worker", status.check());
    let pages = http::finish(ops::router(readiness));
    let alerts = Appender::new(&config.kafka, &config.kafka.topics().alerts, identity.partitions)?;
    let delivering = delivery::run(
        config.delivery,
        config.payment.payment_provider,
        pool.clone(),
        alerts,
        shutdown.clone(),
    );
    let provider = payments::provider(&config.payment, &pool)?;
    let topping_up = top_ups::run(config.top_ups, pool.clone(), journal.clone(), provider, shutdown.clone());
    let token = shutdown.clone();
    let scheduling = async move {
        scheduler::run(config.scheduler, journal, pool, token).await;
        Ok(())
    };
    let working = async { tokio::try_join!(evaluating, scheduling, delivering, topping_up).map(drop) };
    http::serve_with(working, pages, &config.http, shutdown).await
}
