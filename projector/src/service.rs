//! Service: keeps the live generation of the read model up to date with the journal.

use std::num::NonZeroU32;

use anyhow::Context;
use engine::consume::{self, BATCH_RECORDS_MAX, ConsumeOptions, Source, Status};
use ledger_core::fold::FOLD_VERSION;
use platform::heartbeat::{Heartbeat, supervise};
use platform::kafka::LogIdentity;
use platform::pg::{self, Model, Role};
use platform::shutdown::CancellationToken;
use tracing::info;
use web::http::ops::Readiness;
use web::http::{Deps, Service};

use crate::projection::{Projector, ReadModel};
use crate::signing::{self, SigningConfig};

/// Kafka's consumer group, shared by all generations, so that a flip does not rebalance partitions.
const GROUP: &str = "projector";

/// Concurrent transactions by default: while Postgres writes one, another is folded.
pub const LANES: u8 = 2;

/// How the projector folds.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Most records that the projector folds in one transaction
    #[arg(
        long,
        env = "LEDGER_PROJECTOR_BATCH_RECORDS",
        default_value_t = BATCH_RECORDS_MAX,
        value_parser = batch_records
    )]
    pub projector_batch_records: usize,
    /// Transactions that the projector folds side by side, each with partitions of its own
    #[arg(
        long,
        env = "LEDGER_PROJECTOR_LANES",
        default_value_t = LANES,
        value_parser = clap::value_parser!(u8).range(1..=16)
    )]
    pub projector_lanes: u8,
    #[command(flatten)]
    pub signing: SigningConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            projector_batch_records: BATCH_RECORDS_MAX,
            projector_lanes: LANES,
            signing: SigningConfig::default(),
        }
    }
}

fn batch_records(text: &str) -> Result<usize, String> {
    let records: usize = text.parse().map_err(|_| "a number of records".to_owned())?;
    if (1..=BATCH_RECORDS_MAX).contains(&records) {
        Ok(records)
    } else {
        Err(format!("1 to {BATCH_RECORDS_MAX} records"))
    }
}

/// Builds the service: the fold, the signer of the audit log, and the operator's pages.
pub async fn build(config: Config, deps: &Deps, shutdown: &CancellationToken) -> anyhow::Result<Service> {
    let pool = deps.pool(Role::Projector).await?;
    let identity = deps.prepare(&pool).await?;
    pg::ensure_generation(&pool, Model::ReadModel).await?;
    let status = Status::new("projector");
    let readiness = Readiness::new()
        .with_database(&pool)
        .with_writes(&pool)
        .with_log(&deps.kafka, &pool)
        .with("projector", status.check());
    let signed =
        signing::Source { pool: pool.clone(), kafka: deps.kafka.clone(), identity, status: status.clone() };
    signing::prepare(&config.signing, &signed).await?;
    let source = Source { kafka: deps.kafka.clone(), identity, pool };
    let mut service = Service::new("projector", readiness);
    let (heartbeat, stop) = (status.heartbeat().clone(), shutdown.clone());
    let folds = config.clone();
    let start = move || project(folds.clone(), source.clone(), status.clone(), stop.clone());
    service.tasks.add("projector", supervise(heartbeat, shutdown.clone(), start));
    let (signs, heartbeat, stop) = (config.signing.clone(), Heartbeat::new("signing"), shutdown.clone());
    let beats = heartbeat.clone();
    let start = move || signing::sign(signs.clone(), signed.clone(), beats.clone(), stop.clone());
    service.supervise(&heartbeat, shutdown, start);
    Ok(service)
}

/// Projects until `shutdown`, and finishes the current batch. Follows a flip to another generation.
///
/// Requires `pg::migrate` and `kafka::prepare`.
pub async fn project(
    config: Config,
    source: Source,
    status: Status,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let schema = pg::ensure_generation(&source.pool, Model::ReadModel).await?;
    info!(%schema, "projecting");
    let workers = lanes(source.identity, config.projector_lanes)?;
    let options = ConsumeOptions {
        batch_records_max: config.projector_batch_records,
        follows_live: true,
        ..ConsumeOptions::new(GROUP, schema, FOLD_VERSION)
    };
    consume::run(workers, source, options, status, shutdown).await?;
    Ok(())
}

pub fn lanes(identity: LogIdentity, lanes: u8) -> anyhow::Result<Vec<Projector>> {
    let partitions = partitions(identity)?;
    Ok((0..lanes).map(|_| Projector::new(ReadModel, partitions)).collect())
}

/// Returns the journal's partition count in the type that the fold needs.
pub fn partitions(identity: LogIdentity) -> anyhow::Result<NonZeroU32> {
    let count = u32::try_from(identity.partitions).ok().and_then(NonZeroU32::new);
    count.with_context(|| format!("a journal of {} partitions", identity.partitions))
}
