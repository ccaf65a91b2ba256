//! The worker that a consume loop drives.

use async_trait::async_trait;
use platform::kafka::Record;
use sqlx::PgConnection;

/// Folds records into one generation's schema.
#[async_trait]
pub trait Worker: Send + 'static {
    /// Names the worker in logs, metrics and failpoints, such as `projector`.
    fn name(&self) -> &'static str;

    /// Folds the records, in order per partition, and writes everything through `tx`.
    ///
    /// Its search path is the generation's schema. Works on copies: they must stay invisible before `committed`.
    /// Never receives a partition's genesis record. May be called again with the same records, batched differently.
    async fn apply(&mut self, tx: &mut PgConnection, batch: &[Record]) -> Result<Summary, WorkerError>;

    /// Runs once after partitions were claimed, before their first batch, in a transaction that holds the claims.
    ///
    /// Here a newer binary folds what an older one had to park. `committed` or `rolled_back` follows, as for a batch.
    async fn claimed(&mut self, tx: &mut PgConnection, partitions: &[i32]) -> Result<Summary, WorkerError> {
        let _ = (tx, partitions);
        Ok(Summary::default())
    }

    /// The batch is committed: the copies become the cache.
    fn committed(&mut self);

    /// The batch is rolled back: drops the copies.
    fn rolled_back(&mut self);

    /// Drops the cached accounts of these partitions, which were lost or claimed anew.
    fn forget(&mut self, partitions: &[i32]);
}

/// Counts of a batch, for logs and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records folded, with any outcome.
    pub events: u64,
    /// Records that are not events of their account.
    pub dead_letters: u64,
}

/// Why a batch could not be folded; it is rolled back and tried again after a pause.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Postgres failed.
    #[error("postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// The worker found an internal error.
    #[error("{0}")]
    Internal(String),
}
