//! Running: a ledger with every service in one process, started by the program that contains the benchmarks.

use std::path::PathBuf;

use alert_worker::delivery::DeliveryConfig;
use anyhow::Result;
use futures::future::LocalBoxFuture;
use platform::kafka::KafkaOptions;

use crate::environment::{CONNECTIONS, Environment};

/// Settings of a benchmark's ledger; all others have their defaults.
#[derive(Debug, Clone)]
pub struct LedgerConfig {
    /// Where it keeps its files.
    pub data_dir: PathBuf,
    pub database_url: String,
    /// Most connections of each service.
    pub database_connections: u32,
    pub kafka: KafkaOptions,
    /// How it delivers notifications.
    pub delivery: DeliveryConfig,
}

pub struct RunningLedger {
    pub url: String,
    /// The operator's key, which allows everything.
    pub operator_key: String,
    pub stop: LocalBoxFuture<'static, Result<()>>,
}

/// Starts everything as `ledger up` does, on any free port.
pub type StartLedger = fn(LedgerConfig) -> LocalBoxFuture<'static, Result<RunningLedger>>;

/// Measures a ledger that runs in this environment, with a folder of its own, and takes both down.
pub async fn measured_in<T>(
    environment: Environment,
    delivery: DeliveryConfig,
    start: StartLedger,
    measure: impl AsyncFnOnce(&Environment, &RunningLedger) -> Result<T>,
) -> Result<T> {
    let folder = tempfile::tempdir()?;
    let config = LedgerConfig {
        data_dir: folder.path().join("data"),
        database_url: environment.database_url.clone(),
        database_connections: CONNECTIONS,
        kafka: environment.kafka.clone(),
        delivery,
    };
    let ledger = start(config).await?;
    let measured = measure(&environment, &ledger).await;
    ledger.stop.await?;
    environment.leave().await?;
    measured
}
