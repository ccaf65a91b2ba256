//! The one consume loop: journal records into Postgres with exactly-once effect.
//!
//! A worker folds; this loop claims partitions, fences, commits and finds out what became of a commit.

mod checkpoint;
mod decide;
mod driver;
mod lanes;
mod owned;
mod status;
mod transaction;

pub use driver::{run, run_until};
pub use status::Status;

use async_trait::async_trait;
use sqlx::{PgConnection, PgPool};

use crate::kafka::{self, KafkaOptions, LogIdentity, Record};
use crate::pg::Schema;

/// Folds records into one generation's schema.
#[async_trait]
pub trait Worker: Send + 'static {
    /// Names the worker in logs, metrics and failpoints, such as `projector`.
    fn name(&self) -> &'static str;

    /// Folds the records, in order per partition, and writes everything through `tx`.
    ///
    /// Its search path is the generation's schema. Works on copies: nothing may be seen before `committed`.
    /// Never gets a partition's genesis record. May be called again with the same records, cut differently.
    async fn apply(&mut self, tx: &mut PgConnection, batch: &[Record]) -> Result<Summary, WorkerError>;

    /// Called once after partitions were claimed, before their first batch, in a transaction that holds the claims.
    ///
    /// Here a newer binary folds what an older one had to set aside. `committed` or `rolled_back` follows, as for a batch.
    async fn claimed(&mut self, tx: &mut PgConnection, partitions: &[i32]) -> Result<Summary, WorkerError> {
        let _ = (tx, partitions);
        Ok(Summary::default())
    }

    /// The batch stands: its copies become the cache.
    fn committed(&mut self);

    /// The batch does not stand: its copies go.
    fn rolled_back(&mut self);

    /// These partitions were lost or claimed anew: whatever is cached of their accounts goes.
    fn forget(&mut self, partitions: &[i32]);
}

/// What a batch came to, for logs and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records folded, whatever their outcome.
    pub events: u64,
    /// Records that were no events of their account.
    pub dead_letters: u64,
}

/// Why a batch could not be folded; it is rolled back and tried again after a pause.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Postgres refused or went away.
    #[error("postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// The worker itself found something wrong.
    #[error("{0}")]
    Internal(String),
}

/// Why a loop ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The generation or the log does not fit this binary; no retry helps.
    #[error("{0}")]
    Refused(String),
    /// Kafka can't be used at all.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// Postgres did not answer, or not well.
    #[error("postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// The worker panicked, so what it had cached is gone.
    #[error("{0} panicked")]
    Panicked(&'static str),
}

/// The log that is read and the database that is written.
#[derive(Clone)]
pub struct Source {
    /// Where Kafka is.
    pub kafka: KafkaOptions,
    /// Which log it must be.
    pub identity: LogIdentity,
    /// The database; a loop holds one connection of it at a time.
    pub pool: PgPool,
}

/// How one worker consumes.
#[derive(Debug, Clone)]
pub struct ConsumeOptions {
    /// Kafka's consumer group; must differ per worker.
    pub group: String,
    /// The generation's schema, such as `read_model_1`.
    pub schema: Schema,
    /// Writes only while the generation is live, and goes over to the next one at a flip.
    pub follows_live: bool,
    /// What the worker's fold is; a generation is folded by one version only.
    pub fold_version: i32,
    /// Postgres channel that hears of each batch: schema, then `partition:next_offset` joined by commas.
    pub notify_channel: String,
    /// Records of one transaction at most.
    pub batch_records_max: usize,
}

/// Records of one transaction, unless told otherwise: about half a second's work.
pub const BATCH_RECORDS_MAX: usize = 10_000;
/// Channel on which the projector tells its next offsets.
pub const PROJECTED_CHANNEL: &str = "ledger_projected";

impl ConsumeOptions {
    /// The projector's options for a generation; other workers change the channel and the group.
    pub fn new(group: &str, schema: Schema, fold_version: i32) -> ConsumeOptions {
        ConsumeOptions {
            group: group.to_owned(),
            schema,
            follows_live: false,
            fold_version,
            notify_channel: PROJECTED_CHANNEL.to_owned(),
            batch_records_max: BATCH_RECORDS_MAX,
        }
    }
}
