//! Service: settings of the alert worker, and its composition.

use std::sync::Arc;

use engine::consume::{Source, Status};
use payments::PaymentConfig;
use platform::heartbeat::{Heartbeat, supervise};
use platform::kafka::{Appender, Journal};
use platform::pg::Role;
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
    let pool = deps.pool(Role::AlertWorker).await?;
    let identity = deps.prepare(&pool).await?;
    let source = Source { kafka: deps.kafka.clone(), identity, pool: pool.clone() };
    let notify_from = alerting::begin(&source).await?;
    let status = Status::new("alert-worker");
    let journal = Journal::new(&deps.kafka, identity)?;
    let firings = Appender::new(&deps.kafka, &deps.kafka.topics().alerts, identity.partitions)?;
    let provider = payments::provider(&config.payment, &pool, identity.log_id)?;
    let payer = config.payment.payment_provider;

    let readiness = Readiness::new()
        .with_database(&pool)
        .with_writes(&pool)
        .with_log(&deps.kafka, &pool)
        .with("log_clock", journal.clock().readiness())
        .with("alert-worker", status.check());
    let delivering = delivery::Heartbeats::default();
    let readiness =
        delivering.all().into_iter().fold(readiness, |all, one| all.with(one.name(), one.check()));
    let mut service = Service::new("alert-worker", readiness);
    let (heartbeat, stop) = (status.heartbeat().clone(), shutdown.clone());
    let watch = move || {
        alerting::watch(
            config.alerts.clone(),
            source.clone(),
            notify_from.clone(),
            status.clone(),
            stop.clone(),
        )
    };
    service.tasks.add("alerts", supervise(heartbeat, shutdown.clone(), watch));
    service.tasks.add(
        "delivery",
        delivery::run(config.delivery, payer, pool.clone(), firings, delivering, shutdown.clone()),
    );
    let (heartbeat, stop, log_id) = (Heartbeat::new("top-ups"), shutdown.clone(), identity.log_id);
    let (beats, top_ups_pool, top_ups_journal) = (heartbeat.clone(), pool.clone(), journal.clone());
    service.supervise(&heartbeat, shutdown, move || {
        let (pool, journal) = (top_ups_pool.clone(), top_ups_journal.clone());
        let payer = top_ups::Payer { provider: Arc::clone(&provider), log_id };
        top_ups::run(config.top_ups.clone(), pool, journal, payer, beats.clone(), stop.clone())
    });
    let (heartbeat, stop, scheduled) = (Heartbeat::new("scheduler"), shutdown.clone(), journal.clone());
    let beats = heartbeat.clone();
    service.supervise(&heartbeat, shutdown, move || {
        let (journal, pool) = (scheduled.clone(), pool.clone());
        scheduler::run(config.scheduler.clone(), journal, pool, beats.clone(), stop.clone())
    });
    service.journals.push(journal);
    Ok(service)
}
