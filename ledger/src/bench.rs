//! Bench: runs the benchmarks, on ledgers started like `ledger up`.

use std::io::Write;

use ::bench::{Bench, LedgerConfig, RunningLedger};
use anyhow::Result;
use clap::Args;
use futures::future::LocalBoxFuture;
use web::auth::AuthConfig;
use web::http::HttpConfig;

use crate::up::{self, UpConfig};

/// Which benchmarks to run.
#[derive(Debug, Clone, Args)]
pub struct BenchConfig {
    /// Which; all of them where none is named.
    pub benches: Vec<Bench>,
}

/// Runs the benchmarks in order, and writes one line of JSON per figure.
pub async fn run(config: &BenchConfig, out: &mut impl Write) -> Result<()> {
    let benches = if config.benches.is_empty() { &Bench::ALL[..] } else { &config.benches[..] };
    ::bench::run(benches, start, out).await
}

fn start(config: LedgerConfig) -> LocalBoxFuture<'static, Result<RunningLedger>> {
    Box::pin(async move {
        let up = up::start(settings(config), say).await?;
        let (url, operator_key) = (up.url.clone(), up.operator_key.clone());
        Ok(RunningLedger { url, operator_key, stop: Box::pin(up.stop()) })
    })
}

fn settings(config: LedgerConfig) -> UpConfig {
    UpConfig {
        data_dir: config.data_dir,
        database_url: Some(config.database_url),
        database_connections: config.database_connections,
        kafka: config.kafka,
        http: HttpConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            connections: 4096,
            allowed_origins: Vec::new(),
        },
        // No rates: they would be what is measured.
        auth: AuthConfig::default(),
        wait: Default::default(),
        projector: projector::Config::default(),
        scheduler: alert_worker::SchedulerConfig::default(),
        alerts: alert_worker::alerting::Options::default(),
        delivery: config.delivery,
        top_ups: Default::default(),
        payment: Default::default(),
        promotions: Default::default(),
        holds: command_api::HoldsConfig::default(),
    }
}

/// Writes progress to standard error, separate from the figures.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
