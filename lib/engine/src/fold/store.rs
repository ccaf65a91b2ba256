//! Stores the rows that all projections share: lots, repayments, and the records of halted accounts.

use ledger_core::account::lot::{Draw, Draws};
use ledger_core::fold::LotChange;
use ledger_core::fold::pages::Pages;
use ledger_core::value::id::{AccountId, GrantId};
use platform::kafka::Record;
use platform::pg::Rows;
use smallvec::SmallVec;
use sqlx::PgConnection;

use super::accounts::Account;
use crate::consume::WorkerError;
use crate::tables::halted::{self, Kind};
use crate::tables::lot::{self, LotRow};
use crate::tables::{parked, repayment};

/// Why a record that does not itself halt its account is parked.
const BEHIND: &str = "behind";
/// Why the record is parked whose folding fails; `halted` says how it fails.
pub(super) const FAILED: &str = "failed";

/// The records that a batch parks, and the accounts that it halts.
#[derive(Debug, Default)]
pub(super) struct Parked {
    records: Rows,
    halts: Rows,
}

impl Parked {
    /// Collects a record that halts its account.
    pub fn halt(&mut self, account: &AccountId, record: &Record, kind: Kind, reason: &str) {
        halted::collect(&mut self.halts, account, record.position.partition, kind, reason);
        let reason = match kind {
            Kind::UnknownType => reason,
            Kind::Failed => FAILED,
        };
        parked::collect(&mut self.records, account, record, reason);
    }

    /// Collects a record of an account that is halted already.
    pub fn behind(&mut self, account: &AccountId, record: &Record) {
        parked::collect(&mut self.records, account, record, BEHIND);
    }

    pub async fn write(&self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        parked::insert(&mut *tx, &self.records).await?;
        halted::insert(tx, &self.halts).await
    }
}

/// Writes lots, repayments and parked records, and clears the accounts' pages.
pub(super) async fn write<X>(
    tx: &mut PgConnection,
    accounts: &mut [Account<X>],
    parked: &Parked,
) -> Result<(), WorkerError> {
    let pages: Vec<Pages> = accounts.iter_mut().map(|account| std::mem::take(&mut account.pages)).collect();
    let (mut lots, mut repayments) = (Vec::new(), Rows::default());
    for (account, pages) in accounts.iter().zip(&pages) {
        for new in &pages.new_repayments {
            repayment::collect(&mut repayments, &account.id, new);
        }
        let Some(core) = &account.core else { continue };
        let mut touched: Vec<&GrantId> = pages.touched.iter().collect();
        touched.sort_unstable();
        for id in touched {
            let lot = core.lots.get(id).or_else(|| pages.lots.get(id).and_then(Option::as_ref));
            let lot =
                lot.ok_or_else(|| WorkerError::Internal(format!("lot {id} was changed and is nowhere")))?;
            lots.push(LotRow { account: &account.id, lot });
        }
    }
    repayment::insert(&mut *tx, &repayments).await?;
    parked.write(&mut *tx).await?;
    lot::write(tx, &lots).await?;
    Ok(())
}

/// Returns the changes that draws make to lots, as entries and events show them: negative.
pub fn lot_changes(draws: &Draws) -> SmallVec<[LotChange; 2]> {
    let change = |draw: &Draw| LotChange {
        grant_id: draw.grant_id.clone(),
        source: draw.source,
        amount: draw.amount.negated(),
    };
    draws.iter().map(change).collect()
}
