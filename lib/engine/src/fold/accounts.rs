//! The accounts of a batch while it is folded.

use ledger_core::account::Core;
use ledger_core::fold::pages::{Missing, Pages};
use ledger_core::fold::{self, Fact};
use ledger_core::value::id::AccountId;
use platform::heartbeat;
use rustc_hash::FxHashMap;
use sqlx::PgConnection;

use crate::consume::WorkerError;
use crate::load::{self, AccountPages};

/// Most loads of one event: a reversal needs its usage, then who repaid it, then all their lots at once.
const LOADS_PER_EVENT_MAX: usize = 8;

/// An account while a batch is folded.
#[derive(Debug)]
pub struct Account<X> {
    pub id: AccountId,
    pub partition: i32,
    /// None before its opening.
    pub core: Option<Core>,
    /// Its loaded pages.
    pub pages: Pages,
    /// The projection's state of the account.
    pub side_state: X,
    /// Whether it was open when the batch began; only then can the tables have pages of it.
    pub stored: bool,
    /// Offset of the last event folded in this batch.
    pub folded: Option<i64>,
    pub(super) halted: bool,
}

#[derive(Debug)]
pub struct Accounts<X> {
    pub(super) list: Vec<Account<X>>,
    pub(super) indices: FxHashMap<AccountId, usize>,
}

impl<X> Accounts<X> {
    pub fn at(&mut self, index: usize) -> &mut Account<X> {
        &mut self.list[index]
    }

    /// Folds one event with `apply`, and loads missing pages.
    pub async fn apply<T: Send>(
        &mut self,
        tx: &mut PgConnection,
        at: usize,
        fact: &Fact,
        mut apply: impl FnMut(&mut Account<X>, &Fact) -> Result<T, fold::Error> + Send,
    ) -> Result<T, WorkerError>
    where
        X: Send,
    {
        for _ in 0..LOADS_PER_EVENT_MAX {
            heartbeat::beat();
            let account = &mut self.list[at];
            match apply(account, fact) {
                Ok(applied) => return Ok(applied),
                Err(fold::Error::Missing(missing)) if account.stored => {
                    load::missing(tx, missing, self, at).await?;
                }
                Err(fold::Error::Missing(missing)) => {
                    missing.into_iter().for_each(|page| put_absent(&mut account.pages, &account.id, page));
                }
                Err(broken @ fold::Error::NotConserved { .. }) => {
                    let offset = fact.offset;
                    return Err(WorkerError::Internal(format!("{broken} after offset {offset}")));
                }
            }
        }
        let (event, offset) = (&fact.event, fact.offset);
        Err(WorkerError::Internal(format!(
            "event {} of {} at offset {offset} never ends",
            event.id, event.account
        )))
    }
}

impl<X> AccountPages for Accounts<X> {
    fn pages_of(&mut self, account: usize) -> (&AccountId, &mut Pages) {
        let account = &mut self.list[account];
        (&account.id, &mut account.pages)
    }
}

/// Marks pages as absent that the tables can't have, because the account's opening is not stored yet.
pub(super) fn put_absent(pages: &mut Pages, account: &AccountId, missing: Missing) {
    match missing {
        Missing::Event(source, id) => {
            let key = ledger_core::event::key::dedupe_key(account, &source, &id);
            pages.seen.entry(key).or_insert(None);
        }
        Missing::Lot(id) => {
            pages.lots.entry(id).or_insert(None);
        }
        Missing::Payment(id) => {
            pages.payments.entry(id).or_insert(None);
        }
        Missing::Call(id) => {
            pages.calls.entry(id).or_insert(None);
        }
        Missing::Repayments(stretch) => pages.covered.push(stretch),
    }
}
