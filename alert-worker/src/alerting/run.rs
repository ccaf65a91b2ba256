//! Runs the evaluation: keeps the live generation of the alerts up to date with the journal.

use std::num::NonZeroU32;

use anyhow::Context;
use engine::consume::{self, BATCH_RECORDS_MAX, ConsumeOptions, Source, Status};
use ledger_core::fold::FOLD_VERSION;
use platform::kafka::{Ends, LogIdentity};
use platform::pg::{self, Model};
use platform::shutdown::CancellationToken;
use tracing::info;

use super::evaluate::{Alerting, Evaluation};
use super::notify_from::{self, NotifyFrom};
use super::restored;

/// Kafka's consumer group, shared by all generations, so that a flip does not rebalance partitions.
const GROUP: &str = "alert-worker";
/// Concurrent transactions by default: a firing may be later than a balance, so one leaves more of the
/// machine to the projector.
pub const LANES: u8 = 1;

/// How the alert worker evaluates.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "alerting")]
pub struct Options {
    /// Most records that the alert worker evaluates in one transaction
    #[arg(
        long,
        env = "LEDGER_ALERTS_BATCH_RECORDS",
        default_value_t = BATCH_RECORDS_MAX as u64,
        value_parser = clap::value_parser!(u64).range(1..=BATCH_RECORDS_MAX as u64)
    )]
    pub alerts_batch_records: u64,
    /// Transactions that the alert worker evaluates side by side, each with partitions of its own
    #[arg(
        long,
        env = "LEDGER_ALERTS_LANES",
        default_value_t = LANES,
        value_parser = clap::value_parser!(u8).range(1..=16)
    )]
    pub alerts_lanes: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self { alerts_batch_records: BATCH_RECORDS_MAX as u64, alerts_lanes: LANES }
    }
}

/// Evaluates until `shutdown`, and finishes the current batches. Follows a flip to another generation.
pub async fn watch(
    options: Options,
    source: Source,
    notify_from: NotifyFrom,
    status: Status,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let schema = pg::ensure_generation(&source.pool, Model::Alerting).await?;
    info!(%schema, "evaluating");
    let workers = lanes(source.identity, options.alerts_lanes, &notify_from)?;
    let options = ConsumeOptions {
        batch_records_max: usize::try_from(options.alerts_batch_records)?,
        follows_live: true,
        ..ConsumeOptions::new(GROUP, schema, FOLD_VERSION)
    };
    consume::run(workers, source, options, status, shutdown).await?;
    Ok(())
}

/// Creates the state that evaluation needs before the first record, and returns where notification starts.
///
/// Requires `pg::migrate` and `kafka::prepare`.
pub async fn begin(source: &Source) -> anyhow::Result<NotifyFrom> {
    let ends = Ends::new(&source.kafka, source.identity)?.all().await?;
    notify_from::begin(&source.pool, &ends).await?;
    let live = pg::ensure_generation(&source.pool, Model::Alerting).await?;
    restored::look(source, GROUP, live).await?;
    Ok(NotifyFrom::read(&source.pool).await?)
}

pub fn lanes(identity: LogIdentity, lanes: u8, notify_from: &NotifyFrom) -> anyhow::Result<Vec<Evaluation>> {
    let count = u32::try_from(identity.partitions).ok().and_then(NonZeroU32::new);
    let partitions = count.with_context(|| format!("a journal of {} partitions", identity.partitions))?;
    Ok((0..lanes).map(|_| Evaluation::new(Alerting::new(notify_from.clone()), partitions)).collect())
}
