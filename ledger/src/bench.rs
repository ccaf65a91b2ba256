//! Bench: runs the benchmarks, on ledgers started like `ledger up`.

use std::io::Write;

use ::bench::{Bench, LedgerConfig, Measured, RunningLedger};
use anyhow::Result;
use clap::Args;
use futures::future::LocalBoxFuture;
use web::auth::AuthConfig;
use web::http::HttpConfig;

use crate::up::{self, UpConfig};

/// Which benchmarks to run.
#[derive(Debug, Clone, Args)]
pub struct BenchConfig {
    /// Which; all of them where none is named
    pub benches: Vec<Bench>,
    /// Prints a line of JSON for each figure
    #[arg(long)]
    pub json: bool,
}

/// Runs the benchmarks in order, and writes one line per figure as it is measured.
pub async fn run(config: &BenchConfig, out: &mut impl Write) -> Result<()> {
    let benches = if config.benches.is_empty() { &Bench::ALL[..] } else { &config.benches[..] };
    if !config.json {
        writeln!(out, "{}", row(["benchmark", "figure", "next to", "ratio", "aim", "next to it is"]))?;
    }
    ::bench::run(benches, start, |measured| {
        match config.json {
            true => writeln!(out, "{}", serde_json::to_string(measured)?)?,
            false => writeln!(out, "{}", line(measured))?,
        }
        Ok(out.flush()?)
    })
    .await
}

fn line(measured: &Measured) -> String {
    let Measured { bench, unit, value, ceiling_is, ceiling, ratio, aim, .. } = measured;
    let figure = |value: &f64| format!("{value} {unit}");
    row([bench, &figure(value), &figure(ceiling), &ratio.to_string(), aim, ceiling_is])
}

fn row(cells: [&str; 6]) -> String {
    let [bench, value, ceiling, ratio, aim, ceiling_is] = cells;
    format!("{bench:20} {value:>20} {ceiling:>20} {ratio:>8}  {aim:16} {ceiling_is}")
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
        audit: query_api::AuditConfig::default(),
        console: Default::default(),
    }
}

/// Writes progress to standard error, separate from the figures.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
