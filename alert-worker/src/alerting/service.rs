//! Service: keeps the live generation of the alerts up with the journal.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use anyhow::Context;
use ledger_core::fold::FOLD_VERSION;
use platform::kafka::{Ends, LogIdentity};
use platform::pg::{self, Model, PgPool};
use platform::position::Position;
use platform::shutdown::CancellationToken;
use engine::consume::{self, BATCH_RECORDS_MAX, ConsumeOptions, Source, Status};
use tracing::info;

use super::evaluate::{Alerting, Evaluation};

/// Kafka's consumer group, the same for all generations: a flip is no reason to share the partitions out anew.
const GROUP: &str = "alert-worker";
/// Transactions side by side, unless told otherwise: a firing may be later than a balance, so one leaves more of the
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

/// Of which records firings are told: those after a place in each partition. A rebuild tells nobody of anything.
#[derive(Debug, Clone, Default)]
pub struct Telling {
    from: Arc<BTreeMap<i32, i64>>,
}

impl Telling {
    /// Says whether what fires by this record is told.
    pub fn of(&self, partition: i32, offset: i64) -> bool {
        self.from.get(&partition).is_some_and(|from| offset >= *from)
    }

    /// Tells from where the journal ended when alerts were first evaluated over it: what is older was no news even then.
    ///
    /// A database that was lost is folded anew from the whole journal, and nobody hears of its past again.
    pub async fn from_now_on(pool: &PgPool, ends: &[Position]) -> Result<Telling, sqlx::Error> {
        let (partitions, offsets): (Vec<i32>, Vec<i64>) =
            ends.iter().map(|end| (end.partition, end.offset)).unzip();
        sqlx::query(
            "insert into delivery.told_from (partition, next_offset, noted_at)
             select partition, next_offset, clock_timestamp()
             from unnest($1::int[], $2::bigint[]) as ends (partition, next_offset)
             on conflict (partition) do nothing",
        )
        .bind(partitions)
        .bind(offsets)
        .execute(pool)
        .await?;
        let rows: Vec<(i32, i64)> =
            sqlx::query_as("select partition, next_offset from delivery.told_from").fetch_all(pool).await?;
        Ok(Telling { from: Arc::new(rows.into_iter().collect()) })
    }
}

/// Evaluates until `shutdown`, and finishes the batches under way. Follows a flip to another generation.
pub async fn watch(
    options: Options,
    source: Source,
    telling: Telling,
    status: Status,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let schema = pg::ensure_generation(&source.pool, Model::Alerting).await?;
    info!(%schema, "evaluating");
    let workers = lanes(source.identity, options.alerts_lanes, &telling)?;
    let options = ConsumeOptions {
        batch_records_max: usize::try_from(options.alerts_batch_records)?,
        follows_live: true,
        ..ConsumeOptions::new(GROUP, schema, FOLD_VERSION)
    };
    consume::run(workers, source, options, status, shutdown).await?;
    Ok(())
}

/// Makes what evaluation needs before the first record, and says of which records firings are told.
///
/// Run `pg::migrate` and `kafka::prepare` before.
pub async fn begin(source: &Source) -> anyhow::Result<Telling> {
    let ends = Ends::new(&source.kafka, source.identity)?.all().await?;
    let telling = Telling::from_now_on(&source.pool, &ends).await?;
    pg::ensure_generation(&source.pool, Model::Alerting).await?;
    Ok(telling)
}

/// Makes the workers of one loop.
pub fn lanes(identity: LogIdentity, lanes: u8, telling: &Telling) -> anyhow::Result<Vec<Evaluation>> {
    let count = u32::try_from(identity.partitions).ok().and_then(NonZeroU32::new);
    let partitions = count.with_context(|| format!("a journal of {} partitions", identity.partitions))?;
    Ok((0..lanes).map(|_| Evaluation::new(Alerting::new(telling.clone()), partitions)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fired_before_the_first_evaluation_is_told_to_nobody() {
        let telling = Telling { from: Arc::new(BTreeMap::from([(0, 41)])) };
        assert!(!telling.of(0, 40), "older than alerts");
        assert!(telling.of(0, 41));
        assert!(!telling.of(1, 41), "a partition that was not there");
        assert!(!Telling::default().of(0, 41), "a rebuild");
    }
}
