//! Projection: folds journal records into one generation of the read model.

use async_trait::async_trait;
use engine::consume::WorkerError;
use engine::fold::{Account, Accounts, FoldWorker, Projection};
use ledger_core::fold::{self, Fact};
use platform::kafka::Record;
use sqlx::PgConnection;

use crate::changes::Changes;
use crate::store::{self, AccountRow};

pub type Projector = FoldWorker<ReadModel>;

/// Writes rows of balances and history; keeps no state besides the cores.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadModel;

#[async_trait]
impl Projection for ReadModel {
    type SideState = ();
    type Changes = Changes;

    fn name(&self) -> &'static str {
        "projector"
    }

    async fn load(&self, _: &mut PgConnection, _: Vec<&mut Account<()>>) -> Result<(), WorkerError> {
        Ok(())
    }

    async fn prefetch(
        &self,
        _: &mut PgConnection,
        _: &[(usize, &Fact)],
        _: &mut Accounts<()>,
    ) -> Result<(), WorkerError> {
        Ok(())
    }

    async fn fold(
        &self,
        tx: &mut PgConnection,
        accounts: &mut Accounts<()>,
        at: usize,
        fact: &Fact,
        changes: &mut Changes,
    ) -> Result<(), WorkerError> {
        let apply =
            |account: &mut Account<()>, fact: &Fact| fold::apply(&mut account.core, &mut account.pages, fact);
        let applied = accounts.apply(tx, at, fact, apply).await?;
        changes.folded(fact, &applied, accounts.at(at).core.as_ref());
        Ok(())
    }

    fn dead_letter(&self, changes: &mut Changes, record: &Record, reason: &str) -> bool {
        changes.dead_letter(record, reason);
        true
    }

    async fn write(
        &self,
        tx: &mut PgConnection,
        changes: Changes,
        accounts: &mut [Account<()>],
    ) -> Result<(), WorkerError> {
        let rows: Vec<AccountRow<'_>> = accounts.iter().filter_map(AccountRow::of).collect();
        store::write(tx, changes, &rows).await
    }
}
