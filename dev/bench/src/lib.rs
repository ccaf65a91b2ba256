//! Benchmarks: each a ratio to a ceiling measured in the same run, printed as one line of JSON.
//!
//! Absolute figures say more about the machine than about the ledger; ratios travel.

mod caller;
mod console;
mod environment;
mod fold;
mod holds;
mod ingest;
mod lists;
mod load;
mod log;
mod measured;
mod memory;
mod naive;
mod notify_latency;
mod progress;
mod project;
mod raw;
mod resets;
mod rules;
mod running;
mod visible;

use anyhow::Result;
use clap::ValueEnum;

pub use measured::Measured;
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
    /// What the audit log adds to the journal into Postgres
    Log,
    /// From acknowledged to read, at 5,000 events/s
    Visible,
    /// From a boundary to the last of 10,000 idle accounts rolled
    Resets,
    /// What evaluating alerts adds to folding an event
    Rules,
    /// From acknowledged to a mail that the server has taken, at 1,000 events/s
    #[value(name = "notify-latency", alias = "told")]
    NotifyLatency,
    /// Each service's peak with a million users
    Memory,
    /// Holds and checks over HTTP
    Holds,
    /// First pages of a million users and of a million accounts
    Lists,
    /// Pages of the console with 100,000 users, and how soon they show a write
    Console,
}

impl Bench {
    pub const ALL: [Bench; 12] = [
        Bench::Fold,
        Bench::Ingest,
        Bench::Project,
        Bench::Log,
        Bench::Visible,
        Bench::Resets,
        Bench::Rules,
        Bench::NotifyLatency,
        Bench::Memory,
        Bench::Holds,
        Bench::Lists,
        Bench::Console,
    ];

    async fn run(self, start: StartLedger) -> Result<Vec<Measured>> {
        Ok(match self {
            Bench::Fold => vec![tokio::task::block_in_place(fold::run)],
            Bench::Ingest => vec![ingest::run().await?],
            Bench::Project => vec![project::run().await?],
            Bench::Log => vec![log::run().await?],
            Bench::Visible => vec![visible::run(start).await?],
            Bench::Resets => vec![resets::run().await?],
            Bench::Rules => tokio::task::block_in_place(rules::run),
            Bench::NotifyLatency => vec![notify_latency::run(start).await?],
            Bench::Memory => memory::run().await?,
            Bench::Holds => holds::run().await?,
            Bench::Lists => lists::run(start).await?,
            Bench::Console => console::run(start).await?,
        })
    }
}

/// Runs benchmarks one after the other and hands each figure to `report`.
pub async fn run(
    benches: &[Bench],
    start: StartLedger,
    mut report: impl FnMut(&Measured) -> Result<()>,
) -> Result<()> {
    for bench in benches {
        for measured in bench.run(start).await? {
            report(&measured)?;
        }
    }
    Ok(())
}
