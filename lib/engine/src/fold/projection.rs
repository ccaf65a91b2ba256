//! The trait of projections: what a worker builds from the fold.

use async_trait::async_trait;
use ledger_core::fold::Fact;
use platform::kafka::Record;
use sqlx::PgConnection;

use super::accounts::{Account, Accounts};
use crate::consume::WorkerError;

/// A projection: the state kept with each account besides its core, and the rows written per batch.
#[async_trait]
pub trait Projection: Send + Sync + 'static {
    /// State kept with each core, in the cache and in the tables.
    type SideState: Default + Send + Sync + 'static;
    /// A batch's rows besides lots, repayments and parked records, collected event by event.
    type Changes: Default + Send + Sync;

    /// Names the worker in logs and metrics, such as `projector`.
    fn name(&self) -> &'static str;

    /// Loads the side state of accounts that were not cached.
    async fn load(
        &self,
        tx: &mut PgConnection,
        accounts: Vec<&mut Account<Self::SideState>>,
    ) -> Result<(), WorkerError>;

    /// Loads further pages that the batch's events certainly read; each fact has the index of its account.
    async fn prefetch(
        &self,
        tx: &mut PgConnection,
        facts: &[(usize, &Fact)],
        accounts: &mut Accounts<Self::SideState>,
    ) -> Result<(), WorkerError>;

    /// Folds the next event of an account and collects its changes.
    async fn fold(
        &self,
        tx: &mut PgConnection,
        accounts: &mut Accounts<Self::SideState>,
        at: usize,
        fact: &Fact,
        changes: &mut Self::Changes,
    ) -> Result<(), WorkerError>;

    /// Collects a record that is not an event of its account; returns whether this projection keeps such records.
    fn dead_letter(&self, changes: &mut Self::Changes, record: &Record, reason: &str) -> bool;

    /// Writes the batch's changes; the accounts are in id order.
    async fn write(
        &self,
        tx: &mut PgConnection,
        changes: Self::Changes,
        accounts: &mut [Account<Self::SideState>],
    ) -> Result<(), WorkerError>;
}
