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
    /// Kept with each core, in the cache and in the tables.
    type SideState: Default + Send + Sync + 'static;
    /// What a batch writes besides lots, repayments and parked records, collected event by event.
    type Changes: Default + Send + Sync;

    /// Names the worker in logs and metrics, such as `projector`.
    fn name(&self) -> &'static str;

    /// Loads the side state of accounts that were not in the cache.
    async fn load(
        &self,
        tx: &mut PgConnection,
        accounts: Vec<&mut Account<Self::SideState>>,
    ) -> Result<(), WorkerError>;

    /// Loads what the batch's events will surely ask for besides the fold's own pages; each fact with the index of its account.
    async fn prefetch(
        &self,
        tx: &mut PgConnection,
        facts: &[(usize, &Fact)],
        accounts: &mut Accounts<Self::SideState>,
    ) -> Result<(), WorkerError>;

    /// Folds the next event of an account and collects what it changes.
    async fn fold(
        &self,
        tx: &mut PgConnection,
        accounts: &mut Accounts<Self::SideState>,
        at: usize,
        fact: &Fact,
        changes: &mut Self::Changes,
    ) -> Result<(), WorkerError>;

    /// Collects a record that is no event of its account.
    fn dead_letter(&self, changes: &mut Self::Changes, record: &Record, reason: &str);

    /// Writes what the batch changed; the accounts come in the order of their ids.
    async fn write(
        &self,
        tx: &mut PgConnection,
        changes: Self::Changes,
        accounts: &mut [Account<Self::SideState>],
    ) -> Result<(), WorkerError>;
}
