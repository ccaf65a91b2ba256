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
use platform::heartbeat;
use platform::kafka::Record;
use rustc_hash::{FxHashMap, FxHashSet};
use sqlx::PgConnection;
use tracing::{debug, error, warn};

use super::accounts::{Account, Accounts, put_absent};
use super::cache::Cache;
use super::classify::{Classified, Decode, Kind, classify};
use super::projection::Projection;
use super::store::{self, Parked};
use crate::consume::{Resumed, Summary, Worker, WorkerError};
use crate::load::{self, Wanted};
use crate::tables::halted::{self, Head};
use crate::tables::parked;

/// Events folded before other tasks of the process get a turn.
const EVENTS_PER_TURN: usize = 128;

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
        heartbeat::beat();
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

    /// Folds records; accounts in `resumed` continue, although they are halted.
    async fn fold(
        &mut self,
        tx: &mut PgConnection,
        batch: &[Record],
        resumed: &[&str],
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
                Kind::Dead(dead) => {
                    warn!(position = %item.record.position, reason = %dead, "dead letter");
                    if self.projection.dead_letter(&mut changes, item.record, &dead.to_string()) {
                        *summary.dead_letters.entry(dead.reason).or_default() += 1;
                    }
                }
                Kind::Unknown { account, event_type } => {
                    let at = accounts.indices[&account];
                    let account = &mut accounts.list[at];
                    summary.halted += u64::from(!account.halted);
                    halt(account, item.record, &event_type, &mut parked);
                }
                Kind::Fold(fact) => {
                    let at = accounts.indices[&fact.event.account];
                    let account = &accounts.list[at];
                    if account.halted {
                        parked.behind(&account.id, item.record);
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
        store::write(tx, &mut accounts.list, &parked).await?;
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
        resumed: &[&str],
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
        let loaded = load::accounts(tx, &unknown_ids, resumed).await?;
        let mut fresh = FxHashSet::default();
        for (index, loaded) in unknown_indices.into_iter().zip(loaded) {
            let account = &mut accounts.list[index];
            account.stored = loaded.core.is_some();
            account.core = loaded.core;
            account.halted = loaded.halted;
            fresh.insert(index);
        }
        let loaded = accounts.list.iter_mut().enumerate();
        let loaded = loaded.filter(|(index, account)| account.stored && fresh.contains(index));
        self.projection.load(tx, loaded.map(|(_, account)| account).collect()).await?;
        Ok(accounts)
    }

    /// Returns whether a halted account may go on: an operator asked for it, or this binary knows the type that halts it.
    fn may_go_on(&self, head: &Head) -> bool {
        if !head.resume
            && let Err(DecodeError::UnknownType { event_type, .. }) = (self.decode)(&head.record)
        {
            error!(account_id = %head.account, event_type, "account stays halted by an unknown event type");
            return false;
        }
        true
    }
}

#[async_trait]
impl<P: Projection> Worker for FoldWorker<P> {
    fn name(&self) -> &'static str {
        self.projection.name()
    }

    async fn apply(&mut self, tx: &mut PgConnection, batch: &[Record]) -> Result<Summary, WorkerError> {
        self.fold(tx, batch, &[]).await
    }

    async fn halt(
        &mut self,
        tx: &mut PgConnection,
        record: &Record,
        reason: &str,
    ) -> Result<Summary, WorkerError> {
        self.pending.clear();
        let (mut parked, mut changes) = (Parked::default(), P::Changes::default());
        // Whatever fails about the record, its key names its account, unless it is no event of an account.
        let is_dead = matches!(
            std::panic::catch_unwind(|| classify(record, self.decode, self.partitions).kind),
            Ok(Kind::Dead(_))
        );
        let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        let account = key.and_then(|key| AccountId::new(key).ok()).filter(|_| !is_dead);
        let Some(account) = account else {
            // Without the bytes, which may be what can't be stored; the journal has them.
            let place = Record { key: None, value: None, ..record.clone() };
            let kept = self.projection.dead_letter(&mut changes, &place, &format!("not_stored: {reason}"));
            self.projection.write(tx, changes, &mut []).await?;
            let dead_letters = kept.then_some(("not_stored", 1)).into_iter().collect();
            return Ok(Summary { dead_letters, ..Summary::default() });
        };
        self.cache.take(&account);
        parked.halt(&account, record, halted::Kind::Failed, reason);
        parked.write(tx).await?;
        error!(account_id = %account, position = %record.position, reason,
               "account halted: its event can't be folded, somebody must look");
        Ok(Summary { halted: 1, ..Summary::default() })
    }

    async fn resumable(
        &mut self,
        tx: &mut PgConnection,
        partitions: &[i32],
        after: &str,
        asked: bool,
    ) -> Result<(Vec<AccountId>, Option<String>), WorkerError> {
        let heads = halted::heads(tx, partitions, after, asked).await?;
        let last = heads.last().map(|head| head.account.to_string());
        let accounts = heads.iter().filter(|head| self.may_go_on(head)).map(|head| head.account.clone());
        Ok((accounts.collect(), last))
    }

    async fn resume(
        &mut self,
        tx: &mut PgConnection,
        accounts: &[AccountId],
        records_max: usize,
    ) -> Result<Resumed, WorkerError> {
        let names: Vec<&str> = accounts.iter().map(AccountId::as_str).collect();
        let records = parked::take(tx, &names, records_max).await?;
        let summary = self.fold(tx, &records, &names).await?;
        halted::release(tx, &names).await?;
        let again: FxHashSet<&AccountId> =
            self.pending.iter().filter(|account| account.halted).map(|account| &account.id).collect();
        let rest = accounts.iter().filter(|account| !again.contains(account)).cloned().collect();
        // What is left of an account stays parked and halted until its turn.
        let rest = if records.len() < records_max { Vec::new() } else { rest };
        let parted: FxHashSet<AccountId> = rest.iter().cloned().collect();
        self.pending.retain(|account| !parted.contains(&account.id));
        Ok(Resumed { summary, rest })
    }

    async fn halt_again(
        &mut self,
        tx: &mut PgConnection,
        account: &AccountId,
        reason: &str,
    ) -> Result<Summary, WorkerError> {
        self.pending.clear();
        self.cache.take(account);
        halted::fail(tx, account, reason).await?;
        parked::set_reason(tx, account, store::FAILED).await?;
        error!(account_id = %account, reason, "account halted again: its event still can't be folded");
        Ok(Summary { halted: 1, ..Summary::default() })
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
        return parked.behind(&account.id, record);
    }
    account.halted = true;
    error!(account_id = %account.id, event_type, position = %record.position,
           "account halted by an unknown event type");
    parked.halt(&account.id, record, halted::Kind::UnknownType, event_type);
}
