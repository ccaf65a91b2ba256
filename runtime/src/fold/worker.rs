//! Worker: folds a batch of journal records, whatever is made of them.
//!
//! A batch is read, its accounts and pages are loaded, its events folded in log order, and the rows written, all in
//! the transaction that moves the checkpoint. Same log, same rows: whatever the batches, restarts and redeliveries.

use std::num::NonZeroU32;
use std::time::Instant;

use async_trait::async_trait;
use ledger_core::account::Core;
use ledger_core::fold::Fact;
use ledger_core::value::id::Id;
use ledger_core::fold::pages::{Missing, Pages, needs};
use ledger_core::event::wire::{self, DecodeError};
use metrics::histogram;
use rustc_hash::{FxHashMap, FxHashSet};
use sqlx::{PgConnection, Row};
use tracing::{debug, error, info, warn};

use super::cache::Cache;
use super::intake::{self, Decode, Intake, Item};
use super::load::{self, Shelf, Wanted};
use super::store::{self, LotRow, Shared};
use crate::consume::{Summary, Worker, WorkerError};
use crate::kafka::{Position, Record};
use crate::pg::time_of;

/// Most pages that one event may ask for one by one: a reversal touches at most every lot that an account may have.
const LOADS_PER_EVENT_MAX: usize = 2 * ledger_core::account::lot::OPEN_LOTS_MAX;
/// Parked records folded at a time when their account goes on.
pub const RESUMED_RECORDS_MAX: i64 = 5_000;
/// Halted accounts looked at in one go: each comes with a record of up to 64 KiB.
pub const HALTED_ACCOUNTS_MAX: i64 = 1_000;
/// Events folded before other tasks of the process get a turn.
const EVENTS_PER_TURN: usize = 128;
/// Why a record is parked that is known itself.
const BEHIND: &str = "behind";

/// What is made of the fold: what stands beside each core, and the rows of a batch.
#[async_trait]
pub trait Book: Send + Sync + 'static {
    /// Kept with each core, in the cache and in the tables.
    type Beside: Default + Send + Sync + 'static;
    /// What a batch writes besides lots, repayments and parked records, collected event by event.
    type Changes: Default + Send + Sync;

    /// Names the worker, such as `projector`.
    fn name(&self) -> &'static str;

    /// Loads what stands beside the cores of accounts that were not in the cache.
    async fn load(
        &self,
        tx: &mut PgConnection,
        accounts: Vec<&mut Account<Self::Beside>>,
    ) -> Result<(), WorkerError>;

    /// Loads what the batch's events will surely ask for beside the fold's own pages; each with its account's place.
    async fn prefetch(
        &self,
        tx: &mut PgConnection,
        facts: &[(usize, &Fact)],
        accounts: &mut Accounts<Self::Beside>,
    ) -> Result<(), WorkerError>;

    /// Folds the next event of an account and collects what it changes.
    async fn fold(
        &self,
        tx: &mut PgConnection,
        accounts: &mut Accounts<Self::Beside>,
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
        accounts: &mut [Account<Self::Beside>],
    ) -> Result<(), WorkerError>;
}

/// Folds the journal into one generation, as its book says.
#[derive(Debug)]
pub struct Fold<B: Book> {
    book: B,
    decode: Decode,
    partitions: NonZeroU32,
    cache: Cache<B::Beside>,
    /// Accounts of the batch whose commit is not known yet.
    pending: Vec<Account<B::Beside>>,
}

/// An account while a batch is folded.
#[derive(Debug)]
pub struct Account<X> {
    /// Its id.
    pub id: Id,
    /// The partition of its events.
    pub partition: i32,
    /// Its state; none before its opening.
    pub core: Option<Core>,
    /// What was loaded of it besides.
    pub pages: Pages,
    /// What the book keeps with it.
    pub beside: X,
    /// Whether it was open when the batch began: only then can the tables have pages of it.
    pub stored: bool,
    /// The last event folded in this batch.
    pub folded: Option<i64>,
    halted: bool,
}

/// The accounts of a batch.
#[derive(Debug)]
pub struct Accounts<X> {
    list: Vec<Account<X>>,
    places: FxHashMap<Id, usize>,
}

impl<X> Accounts<X> {
    /// Returns the account at a place.
    pub fn at(&mut self, place: usize) -> &mut Account<X> {
        &mut self.list[place]
    }

    /// Folds one event by `apply`, loading what that finds missing.
    pub async fn apply<T: Send>(
        &mut self,
        tx: &mut PgConnection,
        at: usize,
        fact: &Fact,
        mut apply: impl FnMut(&mut Account<X>, &Fact) -> Result<T, Missing> + Send,
    ) -> Result<T, WorkerError>
    where
        X: Send,
    {
        for _ in 0..LOADS_PER_EVENT_MAX {
            let account = &mut self.list[at];
            match apply(account, fact) {
                Ok(applied) => return Ok(applied),
                Err(missing) if account.stored => load::missing(tx, missing, self, at).await?,
                Err(missing) => put_absent(&mut account.pages, &account.id, missing),
            }
        }
        let (event, offset) = (&fact.event, fact.offset);
        Err(WorkerError::Internal(format!(
            "event {} of {} at offset {offset} never ends",
            event.id, event.account
        )))
    }
}

/// Measures how a batch's time divides.
struct Stopwatch(Instant);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn lap(&mut self, step: &'static str) {
        let took = self.0.elapsed();
        histogram!("ledger_projection_seconds", "step" => step).record(took);
        debug!(step, ?took, "step of a batch");
        self.0 = Instant::now();
    }
}

impl<X> Shelf for Accounts<X> {
    fn page_of(&mut self, account: usize) -> (&Id, &mut Pages) {
        let account = &mut self.list[account];
        (&account.id, &mut account.pages)
    }
}

impl<B: Book> Fold<B> {
    /// Makes a fold of a journal with so many partitions.
    pub fn new(book: B, partitions: NonZeroU32) -> Self {
        Self::with_decoder(book, partitions, wire::decode)
    }

    /// Makes a fold that reads records by another function: an older or newer binary's.
    pub fn with_decoder(book: B, partitions: NonZeroU32, decode: Decode) -> Self {
        Self { book, decode, partitions, cache: Cache::default(), pending: Vec::new() }
    }

    /// Folds records; accounts in `resumed` are not halted, whatever is parked of them.
    async fn fold(
        &mut self,
        tx: &mut PgConnection,
        batch: &[Record],
        resumed: &FxHashSet<Id>,
    ) -> Result<Summary, WorkerError> {
        // What an earlier attempt took out of the cache is not put back: it is loaded again.
        self.pending.clear();
        let mut watch = Stopwatch::start();
        let items: Vec<Item<'_>> =
            batch.iter().map(|record| intake::read(record, self.decode, self.partitions)).collect();
        watch.lap("decode");
        let mut accounts = self.accounts_of(tx, &items, resumed).await?;
        load::pages(tx, wanted(&items, &mut accounts), &mut accounts).await?;
        self.book.prefetch(tx, &facts(&items, &accounts), &mut accounts).await?;
        watch.lap("load");

        let mut changes = B::Changes::default();
        let mut shared = Shared::default();
        let mut summary = Summary::default();
        for (count, item) in items.into_iter().enumerate() {
            if count % EVENTS_PER_TURN == EVENTS_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
            match item.intake {
                Intake::Dead(reason) => {
                    warn!(position = %item.record.position, reason, "dead letter");
                    self.book.dead_letter(&mut changes, item.record, &reason);
                    summary.dead_letters += 1;
                }
                Intake::Unknown { account, event_type } => {
                    let at = accounts.places[&account];
                    halt(&mut accounts.list[at], item.record, &event_type, &mut shared);
                }
                Intake::Fold(fact) => {
                    let at = accounts.places[&fact.event.account];
                    let account = &accounts.list[at];
                    if account.halted {
                        shared.park(&account.id, item.record, BEHIND);
                        continue;
                    }
                    self.book.fold(tx, &mut accounts, at, &fact, &mut changes).await?;
                    accounts.list[at].folded = Some(fact.offset);
                    summary.events += 1;
                }
            }
        }
        watch.lap("fold");
        // In the order of the tables' keys, so that neighbours lie together.
        accounts.list.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        write_shared(tx, &mut accounts.list, shared).await?;
        self.book.write(tx, changes, &mut accounts.list).await?;
        watch.lap("store");
        self.pending = accounts.list;
        Ok(summary)
    }

    /// Returns the accounts of a batch, from the cache or the tables.
    async fn accounts_of(
        &mut self,
        tx: &mut PgConnection,
        items: &[Item<'_>],
        resumed: &FxHashSet<Id>,
    ) -> Result<Accounts<B::Beside>, WorkerError> {
        let mut accounts = Accounts { list: Vec::new(), places: FxHashMap::default() };
        let (mut unknown_places, mut unknown_ids) = (Vec::new(), Vec::new());
        for item in items {
            let Some(id) = item.account() else { continue };
            if accounts.places.contains_key(id) {
                continue;
            }
            let (core, beside) = self.cache.take(id).unzip();
            let place = accounts.list.len();
            if core.is_none() {
                unknown_places.push(place);
                unknown_ids.push(id.clone());
            }
            accounts.places.insert(id.clone(), place);
            accounts.list.push(Account {
                id: id.clone(),
                partition: item.record.position.partition,
                stored: core.is_some(),
                core,
                beside: beside.unwrap_or_default(),
                pages: Pages::default(),
                halted: false,
                folded: None,
            });
        }
        let loaded = load::accounts(tx, &unknown_ids).await?;
        let mut fresh = FxHashSet::default();
        for (place, loaded) in unknown_places.into_iter().zip(loaded) {
            let account = &mut accounts.list[place];
            account.stored = loaded.core.is_some();
            account.core = loaded.core;
            account.halted = loaded.halted && !resumed.contains(&account.id);
            fresh.insert(place);
        }
        let loaded = accounts.list.iter_mut().enumerate();
        let loaded = loaded.filter(|(place, account)| account.stored && fresh.contains(place));
        self.book.load(tx, loaded.map(|(_, account)| account).collect()).await?;
        Ok(accounts)
    }

    /// Folds what is parked of accounts whose first parked record is known by now.
    async fn resume(&mut self, tx: &mut PgConnection, partitions: &[i32]) -> Result<Summary, WorkerError> {
        let mut summary = Summary::default();
        let mut after = String::new();
        loop {
            let heads = heads(tx, partitions, &after).await?;
            let Some((last, _)) = heads.last() else { break };
            after = last.to_string();
            let accounts: FxHashSet<Id> = heads.into_iter().filter_map(|head| self.known(head)).collect();
            self.resume_accounts(tx, accounts, &mut summary).await?;
        }
        if summary.events > 0 {
            info!(events = summary.events, "halted accounts went on");
        }
        Ok(summary)
    }

    /// Returns the account if its halting record is known by now.
    fn known(&self, (account, value): (Id, Vec<u8>)) -> Option<Id> {
        if let Err(DecodeError::UnknownType { event_type, .. }) = (self.decode)(&value) {
            error!(account_id = %account, event_type, "account stays halted by an unknown event type");
            return None;
        }
        Some(account)
    }

    async fn resume_accounts(
        &mut self,
        tx: &mut PgConnection,
        mut accounts: FxHashSet<Id>,
        summary: &mut Summary,
    ) -> Result<(), WorkerError> {
        while !accounts.is_empty() {
            let records = unpark(tx, &accounts).await?;
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
impl<B: Book> Worker for Fold<B> {
    fn name(&self) -> &'static str {
        self.book.name()
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
                self.cache.put(core, account.beside, account.partition);
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

/// Names what the batch's events will surely ask for, of accounts that can have it.
fn wanted<X>(items: &[Item<'_>], accounts: &mut Accounts<X>) -> Wanted {
    let mut wanted = Wanted::default();
    for item in items {
        let Intake::Fold(fact) = &item.intake else { continue };
        let at = accounts.places[&fact.event.account];
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

/// Returns the batch's events of accounts that go on, each with its account's place.
fn facts<'a, X>(items: &'a [Item<'_>], accounts: &Accounts<X>) -> Vec<(usize, &'a Fact)> {
    items
        .iter()
        .filter_map(|item| match &item.intake {
            Intake::Fold(fact) => Some((accounts.places[&fact.event.account], fact)),
            _ => None,
        })
        .filter(|(at, _)| !accounts.list[*at].halted)
        .collect()
}

/// Notes that an account whose opening is not stored yet surely has none of it in the tables.
fn put_absent(pages: &mut Pages, account: &Id, missing: Missing) {
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
        Missing::Repayments(stretch) => pages.covered.push(stretch),
    }
}

fn halt<X>(account: &mut Account<X>, record: &Record, event_type: &str, shared: &mut Shared) {
    if account.halted {
        return shared.park(&account.id, record, BEHIND);
    }
    account.halted = true;
    error!(account_id = %account.id, event_type, position = %record.position,
           "account halted by an unknown event type");
    shared.park(&account.id, record, event_type);
}

/// Writes lots, repayments and parked records, and empties the accounts' pages.
async fn write_shared<X>(
    tx: &mut PgConnection,
    accounts: &mut [Account<X>],
    mut shared: Shared,
) -> Result<(), WorkerError> {
    let pages: Vec<Pages> = accounts.iter_mut().map(|account| std::mem::take(&mut account.pages)).collect();
    let mut lots = Vec::new();
    for (account, pages) in accounts.iter().zip(&pages) {
        for repayment in &pages.new_repayments {
            shared.repayment(&account.id, repayment);
        }
        let Some(core) = &account.core else { continue };
        let mut touched: Vec<&Id> = pages.touched.iter().collect();
        touched.sort_unstable();
        for id in touched {
            let lot = core.lots.get(id).or_else(|| pages.lots.get(id).and_then(Option::as_ref));
            let lot =
                lot.ok_or_else(|| WorkerError::Internal(format!("lot {id} was changed and is nowhere")))?;
            lots.push(LotRow { account: &account.id, lot });
        }
    }
    store::write(tx, &shared, &lots).await
}

/// Returns the next halted accounts after one, each with the record that halts it.
async fn heads(
    tx: &mut PgConnection,
    partitions: &[i32],
    after: &str,
) -> Result<Vec<(Id, Vec<u8>)>, WorkerError> {
    // One look-up an account, however many records of it wait.
    let rows = sqlx::query(
        r#"with recursive head as (
               (select account_id, partition, value
                from parked
                where account_id > $2
                order by account_id, "offset"
                limit 1)
               union all
               select next.*
               from head
               cross join lateral (
                   select account_id, partition, value
                   from parked
                   where parked.account_id > head.account_id
                   order by account_id, "offset"
                   limit 1
               ) as next
           )
           select account_id, value
           from head
           where partition = any($1)
           limit $3"#,
    )
    .bind(partitions)
    .bind(after)
    .bind(HALTED_ACCOUNTS_MAX)
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            let account =
                Id::new(row.try_get(0)?).map_err(|error| WorkerError::Internal(error.to_string()))?;
            Ok((account, row.try_get(1)?))
        })
        .collect()
}

/// Takes the next parked records of these accounts out of the table, in the order of their accounts and offsets.
async fn unpark(tx: &mut PgConnection, accounts: &FxHashSet<Id>) -> Result<Vec<Record>, WorkerError> {
    let accounts: Vec<&str> = accounts.iter().map(Id::as_str).collect();
    let rows = sqlx::query(
        r#"with taken as (
               delete from parked
               where ctid = any(array(select ctid
                                      from parked
                                      where account_id = any($1)
                                      order by account_id, "offset"
                                      limit $2))
               returning parked.*
           )
           select partition, "offset", appended_at, key, value
           from taken
           order by account_id, "offset""#,
    )
    .bind(accounts)
    .bind(RESUMED_RECORDS_MAX)
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Record {
                position: Position { partition: row.try_get(0)?, offset: row.try_get(1)? },
                appended_at: time_of(row.try_get(2)?),
                key: Some(row.try_get(3)?),
                value: row.try_get(4)?,
            })
        })
        .collect()
}
