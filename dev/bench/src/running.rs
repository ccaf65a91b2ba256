//! Running: a ledger with every service in one process, which the program that holds the benchmarks starts for them.

use std::path::PathBuf;

use alert_worker::delivery::DeliveryConfig;
use anyhow::Result;
use futures::future::LocalBoxFuture;
use platform::kafka::KafkaOptions;
use tempfile::TempDir;

use crate::environment::{CONNECTIONS, Environment};

/// What a benchmark's ledger is told; all else is as by default.
#[derive(Debug, Clone)]
pub struct LedgerConfig {
    /// Where it keeps its files.
    pub data_dir: PathBuf,
    /// Where its database is.
    pub database_url: String,
    /// Most connections of each service.
    pub database_connections: u32,
    /// Where its journal is.
    pub kafka: KafkaOptions,
    /// How it tells alerts.
    pub delivery: DeliveryConfig,
}

/// A ledger that serves.
pub struct RunningLedger {
    /// Where it serves.
    pub url: String,
    /// The key that may do everything.
    pub operator_key: String,
    /// Stops it.
    pub stop: LocalBoxFuture<'static, Result<()>>,
}

/// Starts everything as `ledger up` does, on any free port.
pub type StartLedger = fn(LedgerConfig) -> LocalBoxFuture<'static, Result<RunningLedger>>;

/// Starts a ledger in this environment, with a folder of its own.
pub async fn start_in(
    environment: &Environment,
    delivery: DeliveryConfig,
    start: StartLedger,
) -> Result<(RunningLedger, TempDir)> {
    let folder = tempfile::tempdir()?;
    let config = LedgerConfig {
        data_dir: folder.path().join("data"),
        database_url: environment.database_url.clone(),
        database_connections: CONNECTIONS,
        kafka: environment.kafka.clone(),
        delivery,
    };
    Ok((start(config).await?, folder))
}
