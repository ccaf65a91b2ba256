//! Service: settings of the alert worker, and its composition.

use engine::consume::{Source, Status};
use futures::FutureExt;
use payments::PaymentConfig;
use platform::kafka::{Appender, Journal};
use platform::shutdown::CancellationToken;
use web::http::ops::Readiness;
use web::http::{Deps, Service};

use crate::alerting;
use crate::delivery::{self, DeliveryConfig};
use crate::scheduler::{self, SchedulerConfig};
use crate::top_ups::{self, TopUpConfig};

/// Settings of the alert worker.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// How the scheduler runs.
    #[command(flatten)]
    pub scheduler: SchedulerConfig,
    /// How it evaluates.
    #[command(flatten)]
    pub alerts: alerting::Options,
    /// How alerts and notices are delivered.
    #[command(flatten)]
    pub delivery: DeliveryConfig,
    /// How top-ups run.
    #[command(flatten)]
    pub top_ups: TopUpConfig,
    /// Who moves the money.
    #[command(flatten)]
    pub payment: PaymentConfig,
}

/// Builds the service: evaluation, delivery, top-ups and scheduler, all on one pool.
pub async fn build(config: Config, deps: &Deps, shutdown: &CancellationToken) -> anyhow::Result<Service> {
    let pool = deps.pool("alert-worker").await?;
    let identity = deps.prepare(&pool).await?;
    let source = Source { kafka: deps.kafka.clone(), identity, pool: pool.clone() };
    let notify_from = alerting::begin(&source).await?;
    let status = Status::default();
    let journal = Journal::new(&deps.kafka, identity)?;
    let firings = Appender::new(&deps.kafka, &deps.kafka.topics().alerts, identity.partitions)?;
    let provider = payments::provider(&config.payment, &pool)?;
    let payer = config.payment.payment_provider;

    let readiness = Readiness::new()
        .with_database(&pool)
        .with_log(&deps.kafka, &pool)
        .with("alert-worker", status.check());
    let mut service = Service::new("alert-worker", readiness);
    let tasks = &mut service.tasks;
    tasks.add("alerts", alerting::watch(config.alerts, source, notify_from, status, shutdown.clone()));
    tasks.add("delivery", delivery::run(config.delivery, payer, pool.clone(), firings, shutdown.clone()));
    let topping_up = top_ups::run(config.top_ups, pool.clone(), journal.clone(), provider, shutdown.clone());
    tasks.add("top-ups", topping_up);
    let scheduling = scheduler::run(config.scheduler, journal.clone(), pool, shutdown.clone());
    tasks.add("scheduler", scheduling.map(Ok));
    service.journals.push(journal);
    Ok(service)
}
