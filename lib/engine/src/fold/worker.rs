//! Folds batches of journal records, independent of which projection is built from them.
//!
//! The transaction that moves the checkpoint also loads the accounts and pages of a batch, folds its events in log order,
//! and writes the rows. The same log gives the same rows, whatever the batches, restarts and redeliveries.

use std::num::NonZeroU32;
use std::time::Instant;

use async_trait::async_trait;
use ledger_core::event::wire::{self, DecodeError};
use ledger_core::fold::Fact;
use ledger_core::fold::pages::{Pages, needs};
use ledger_core::value::id::AccountId;
use metrics::histogram;
use platform::kafka::Record;
use rustc_hash::{FxHashMap, FxHashSet};
use sqlx::PgConnection;
use tracing::{debug, error, info, warn};

use super::accounts::{Account, Accounts, put_absent};
use super::cache::Cache;
use super::classify::{Classified, Decode, Kind, classify};
use super::projection::Projection;
use super::store::{self, Parked};
use crate::consume::{Summary, Worker, WorkerError};
use crate::load::{self, Wanted};
use crate::tables::parked;

/// Events folded before other tasks of the process get a turn.
const EVENTS_PER_TURN: usize = 128;
/// Why a record of a known type is parked.
const BEHIND: &str = "behind";

/// Folds the journal into one generation of a projection.
#[derive(Debug)]
pub struct FoldWorker<P: Projection> {
    projection: P,
    decode: Decode,
    partitions: NonZeroU32,
    cache: Cache<P::SideState>,
    /// Accounts of the batch until its commit is known.
    pending: Vec<Account<P::SideState>>,
}

/// Measures the time of each part of a batch.
struct Stopwatch {
    worker: &'static str,
    lap_at: Instant,
}

impl Stopwatch {
    fn start(worker: &'static str) -> Self {
        Self { worker, lap_at: Instant::now() }
    }

    fn lap(&mut self, step: &'static str) {
        let took = self.lap_at.elapsed();
        histogram!("ledger_projection_seconds", "worker" => self.worker, "step" => step).record(took);
        debug!(worker = self.worker, step, ?took, "step of a batch");
        self.lap_at = Instant::now();
    }
}

impl<P: Projection> FoldWorker<P> {
    pub fn new(projection: P, partitions: NonZeroU32) -> Self {
        Self::with_decoder(projection, partitions, wire::decode)
    }

    /// Makes a worker that decodes records by another function: an older or newer binary's.
    pub fn with_decoder(projection: P, partitions: NonZeroU32, decode: Decode) -> Self {
        Self { projection, decode, partitions, cache: Cache::default(), pending: Vec::new() }
    }

    /// Folds records; accounts in `resumed` continue, although records of them are parked.
    async fn fold(
        &mut self,
        tx: &mut PgConnection,
        batch: &[Record],
        resumed: &FxHashSet<AccountId>,
    ) -> Result<Summary, WorkerError> {
        // Cores that an earlier attempt took from the cache are not put back, but loaded again.
        self.pending.clear();
        let mut watch = Stopwatch::start(self.projection.name());
        let items: Vec<Classified<'_>> =
            batch.iter().map(|record| classify(record, self.decode, self.partitions)).collect();
        watch.lap("decode");
        let mut accounts = self.accounts_of(tx, &items, resumed).await?;
        load::pages(tx, wanted(&items, &mut accounts), &mut accounts).await?;
        self.projection.prefetch(tx, &facts(&items, &accounts), &mut accounts).await?;
        watch.lap("load");

        let mut changes = P::Changes::default();
        let mut parked = Parked::default();
        let mut summary = Summary::default();
        for (count, item) in items.into_iter().enumerate() {
            if count % EVENTS_PER_TURN == EVENTS_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
            match item.kind {
                Kind::Dead(reason) => {
                    warn!(position = %item.record.position, reason, "dead letter");
                    self.projection.dead_letter(&mut changes, item.record, &reason);
                    summary.dead_letters += 1;
                }
                Kind::Unknown { account, event_type } => {
                    let at = accounts.indices[&account];
                    halt(&mut accounts.list[at], item.record, &event_type, &mut parked);
                }
                Kind::Fold(fact) => {
                    let at = accounts.indices[&fact.event.account];
                    let account = &accounts.list[at];
                    if account.halted {
                        parked.collect(&account.id, item.record, BEHIND);
                        continue;
                    }
                    self.projection.fold(tx, &mut accounts, at, &fact, &mut changes).await?;
                    accounts.list[at].folded = Some(fact.offset);
                    summary.events += 1;
                }
            }
        }
        watch.lap("fold");
        // Primary key order, so that neighbouring rows are written together.
        accounts.list.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        store::write(tx, &mut accounts.list, parked).await?;
        self.projection.write(tx, changes, &mut accounts.list).await?;
        watch.lap("store");
        self.pending = accounts.list;
        Ok(summary)
    }

    /// Returns the accounts of a batch, from the cache or the tables.
    async fn accounts_of(
        &mut self,
        tx: &mut PgConnection,
        items: &[Classified<'_>],
        resumed: &FxHashSet<AccountId>,
    ) -> Result<Accounts<P::SideState>, WorkerError> {
        let mut accounts = Accounts { list: Vec::new(), indices: FxHashMap::default() };
        let (mut unknown_indices, mut unknown_ids) = (Vec::new(), Vec::new());
        for item in items {
            let Some(id) = item.account() else { continue };
            if accounts.indices.contains_key(id) {
                continue;
            }
            let (core, side_state) = self.cache.take(id).unzip();
            let index = accounts.list.len();
            if core.is_none() {
                unknown_indices.push(index);
                unknown_ids.push(id.clone());
            }
            accounts.indices.insert(id.clone(), index);
            accounts.list.push(Account {
                id: id.clone(),
                partition: item.record.position.partition,
                stored: core.is_some(),
                core,
                side_state: side_state.unwrap_or_default(),
                pages: Pages::default(),
                halted: false,
                folded: None,
            });
        }
        let loaded = load::accounts(tx, &unknown_ids).await?;
        let mut fresh = FxHashSet::default();
        for (index, loaded) in unknown_indices.into_iter().zip(loaded) {
            let account = &mut accounts.list[index];
            account.stored = loaded.core.is_some();
            account.core = loaded.core;
            account.halted = loaded.halted && !resumed.contains(&account.id);
            fresh.insert(index);
        }
        let loaded = accounts.list.iter_mut().enumerate();
        let loaded = loaded.filter(|(index, account)| account.stored && fresh.contains(index));
        self.projection.load(tx, loaded.map(|(_, account)| account).collect()).await?;
        Ok(accounts)
    }

    /// Folds the parked records of accounts whose first parked record this binary knows.
    async fn resume(&mut self, tx: &mut PgConnection, partitions: &[i32]) -> Result<Summary, WorkerError> {
        let mut summary = Summary::default();
        let mut after = String::new();
        loop {
            let heads = parked::heads(tx, partitions, &after).await?;
            let Some((last, _)) = heads.last() else { break };
            after = last.to_string();
            let accounts: FxHashSet<AccountId> =
                heads.into_iter().filter_map(|head| self.known(head)).collect();
            self.resume_accounts(tx, accounts, &mut summary).await?;
        }
        if summary.events > 0 {
            info!(events = summary.events, "halted accounts went on");
        }
        Ok(summary)
    }

    /// Returns the account if this binary knows its halting record.
    fn known(&self, (account, value): (AccountId, Vec<u8>)) -> Option<AccountId> {
        if let Err(DecodeError::UnknownType { event_type, .. }) = (self.decode)(&value) {
            error!(account_id = %account, event_type, "account stays halted by an unknown event type");
            return None;
        }
        Some(account)
    }

    async fn resume_accounts(
        &mut self,
        tx: &mut PgConnection,
        mut accounts: FxHashSet<AccountId>,
        summary: &mut Summary,
    ) -> Result<(), WorkerError> {
        while !accounts.is_empty() {
            let records = parked::take(tx, &accounts).await?;
            if records.is_empty() {
                break;
            }
            let part = self.fold(tx, &records, &accounts).await?;
            summary.events += part.events;
            summary.dead_letters += part.dead_letters;
            for account in self.pending.iter().filter(|account| account.halted) {
                accounts.remove(&account.id);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl<P: Projection> Worker for FoldWorker<P> {
    fn name(&self) -> &'static str {
        self.projection.name()
    }

    async fn claimed(&mut self, tx: &mut PgConnection, partitions: &[i32]) -> Result<Summary, WorkerError> {
        self.cache.forget(partitions);
        self.resume(tx, partitions).await
    }

    async fn apply(&mut self, tx: &mut PgConnection, batch: &[Record]) -> Result<Summary, WorkerError> {
        self.fold(tx, batch, &FxHashSet::default()).await
    }

    fn committed(&mut self) {
        for account in self.pending.drain(..) {
            if let (Some(core), false) = (account.core, account.halted) {
                self.cache.put(core, account.side_state, account.partition);
            }
        }
    }

    fn rolled_back(&mut self) {
        self.pending.clear();
    }

    fn forget(&mut self, partitions: &[i32]) {
        self.pending.clear();
        self.cache.forget(partitions);
    }
}

/// Returns the pages that the batch's events certainly read, of accounts that can have them.
fn wanted<X>(items: &[Classified<'_>], accounts: &mut Accounts<X>) -> Wanted {
    let mut wanted = Wanted::default();
    for item in items {
        let Kind::Fold(fact) = &item.kind else { continue };
        let at = accounts.indices[&fact.event.account];
        let account = &mut accounts.list[at];
        if account.halted {
            continue;
        }
        for missing in needs(&fact.event) {
            if account.stored {
                wanted.add(at, missing);
            } else {
                put_absent(&mut account.pages, &account.id, missing);
            }
        }
    }
    wanted
}

/// Returns the batch's events of accounts that are not halted, each with the index of its account.
fn facts<'a, X>(items: &'a [Classified<'_>], accounts: &Accounts<X>) -> Vec<(usize, &'a Fact)> {
    items
        .iter()
        .filter_map(|item| {
            let Kind::Fold(fact) = &item.kind else { return None };
            Some((accounts.indices[&fact.event.account], fact))
        })
        .filter(|(at, _)| !accounts.list[*at].halted)
        .collect()
}

fn halt<X>(account: &mut Account<X>, record: &Record, event_type: &str, parked: &mut Parked) {
    if account.halted {
        return parked.collect(&account.id, record, BEHIND);
    }
    account.halted = true;
    error!(account_id = %account.id, event_type, position = %record.position,
           "account halted by an unknown event type");
    parked.collect(&account.id, record, event_type);
}
