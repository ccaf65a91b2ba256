//! The worker that a consume loop drives.

use std::collections::BTreeMap;

use async_trait::async_trait;
use ledger_core::value::id::AccountId;
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

    /// Halts the account of a record that can't be folded, whatever the reason: parks the record, and from then on those
    /// after it. Touches nothing of what may have made it fail.
    async fn halt(
        &mut self,
        tx: &mut PgConnection,
        record: &Record,
        reason: &str,
    ) -> Result<Summary, WorkerError>;

    /// Returns some halted accounts of these partitions that may go on, in order after the given one, and the last account
    /// looked at; `None` after all of them. With `asked`, only those that an operator wants to go on.
    async fn resumable(
        &mut self,
        tx: &mut PgConnection,
        partitions: &[i32],
        after: &str,
        asked: bool,
    ) -> Result<(Vec<AccountId>, Option<String>), WorkerError> {
        let _ = (tx, partitions, after, asked);
        Ok((Vec::new(), None))
    }

    /// Folds the next parked records of halted accounts, at most so many. `committed` or `rolled_back` follows.
    async fn resume(
        &mut self,
        tx: &mut PgConnection,
        accounts: &[AccountId],
        records_max: usize,
    ) -> Result<Resumed, WorkerError> {
        let _ = (tx, accounts, records_max);
        Ok(Resumed::default())
    }

    /// Keeps an account halted whose next parked record still can't be folded.
    async fn halt_again(
        &mut self,
        tx: &mut PgConnection,
        account: &AccountId,
        reason: &str,
    ) -> Result<Summary, WorkerError> {
        let _ = (tx, account, reason);
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records folded, with any outcome.
    pub events: u64,
    /// Records that are not events of their account and were kept as such, by reason.
    pub dead_letters: BTreeMap<&'static str, u64>,
    /// Accounts that can't be folded on.
    pub halted: u64,
}

/// The result of folding parked records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resumed {
    pub summary: Summary,
    /// Accounts that may have more parked records.
    pub rest: Vec<AccountId>,
}

/// Why a batch could not be folded; it is rolled back.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Postgres failed.
    #[error("postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// The worker found an internal error.
    #[error("{0}")]
    Internal(String),
}
