//! Benchmarks: each a ratio to a ceiling measured in the same run, printed as one line of JSON.
//!
//! Absolute figures say more about the machine than about the ledger; ratios travel.

mod caller;
mod environment;
mod fold;
mod holds;
mod ingest;
mod load;
mod memory;
mod naive;
mod notify_latency;
mod project;
mod raw;
mod resets;
mod rules;
mod running;
mod visible;

use std::io::Write;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

pub use running::{LedgerConfig, RunningLedger, StartLedger};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    /// Folding decoded usage in memory, on one core
    Fold,
    /// Batches over HTTP, acknowledged by Kafka
    Ingest,
    /// The journal into Postgres
    Project,
    /// From acknowledged to read, at 5,000 events/s
    Visible,
    /// From a boundary to the last of 10,000 idle accounts rolled
    Resets,
    /// What evaluating alerts adds to folding an event
    Rules,
    /// From acknowledged to a mail that the server has taken, at 1,000 events/s
    #[value(name = "told")]
    NotifyLatency,
    /// Each service's peak with a million users
    Memory,
    /// Holds and checks over HTTP
    Holds,
}

impl Bench {
    /// All of them.
    pub const ALL: [Bench; 9] = [
        Bench::Fold,
        Bench::Ingest,
        Bench::Project,
        Bench::Visible,
        Bench::Resets,
        Bench::Rules,
        Bench::NotifyLatency,
        Bench::Memory,
        Bench::Holds,
    ];

    async fn run(self, start: StartLedger) -> Result<Vec<Measured>> {
        Ok(match self {
            Bench::Fold => vec![tokio::task::block_in_place(fold::run)],
            Bench::Ingest => vec![ingest::run().await?],
            Bench::Project => vec![project::run().await?],
            Bench::Visible => vec![visible::run(start).await?],
            Bench::Resets => vec![resets::run().await?],
            Bench::Rules => tokio::task::block_in_place(rules::run),
            Bench::NotifyLatency => vec![notify_latency::run(start).await?],
            Bench::Memory => memory::run().await?,
            Bench::Holds => holds::run().await?,
        })
    }
}

/// Runs benchmarks one after the other and writes a line of JSON for each figure.
pub async fn run(benches: &[Bench], start: StartLedger, out: &mut impl Write) -> Result<()> {
    for bench in benches {
        for measured in bench.run(start).await? {
            writeln!(out, "{}", serde_json::to_string(&measured)?)?;
            out.flush()?;
        }
    }
    Ok(())
}

/// Progress goes to standard error, away from the figures.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Returns the value below which this share of the samples lies; 0 without samples.
fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    let last = samples.len().saturating_sub(1);
    // Rounded up, so that a share near 1 never flatters.
    samples.get((last as f64 * share).ceil() as usize).copied().unwrap_or_default()
}

/// One measured figure beside what bounds it.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Which benchmark.
    pub bench: &'static str,
    /// What the figure counts, such as `events/s`.
    pub unit: &'static str,
    /// Ours.
    pub value: f64,
    /// What the ceiling is, in words.
    pub ceiling_is: &'static str,
    /// The ceiling, in the same unit and run.
    pub ceiling: f64,
    /// Value ÷ ceiling.
    pub ratio: f64,
    /// What we want: of the ratio, or of the value where the unit says so.
    pub aim: &'static str,
    /// What else was measured.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub more: serde_json::Value,
}

impl Measured {
    /// Puts a figure beside its ceiling.
    pub fn new(
        bench: &'static str,
        unit: &'static str,
        value: f64,
        ceiling: (&'static str, f64),
        aim: &'static str,
    ) -> Self {
        Self {
            bench,
            unit,
            value: value.round(),
            ceiling_is: ceiling.0,
            ceiling: ceiling.1.round(),
            ratio: (value / ceiling.1 * 1000.0).round() / 1000.0,
            aim,
            more: serde_json::Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_sample_and_never_flatters() {
        let mut samples: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut samples, 0.5), 6.0);
        assert_eq!(quantile(&mut samples, 0.99), 10.0);
        assert_eq!(quantile(&mut [], 0.99), 0.0);
    }
}
