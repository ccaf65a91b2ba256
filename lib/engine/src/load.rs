//! Loads cores and pages from a generation's tables, in bulk for a batch or one by one as the fold misses them.

use std::collections::BTreeMap;

use ledger_core::account::Core;
use ledger_core::account::lot::Lot;
use ledger_core::account::overdraft::Stretch;
use ledger_core::event::key::dedupe_key;
use ledger_core::fold::pages::{Missing, Pages};
use ledger_core::value::id::{AccountId, CallId, EventId, GrantId, PaymentId, Source};
use platform::pg::columns::{name, undecodable};
use rustc_hash::FxHashMap;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::consume::WorkerError;
use crate::tables::account::{self, CoreRow, WantedRow};
use crate::tables::{event, lot, repayment};

#[derive(Debug, Default)]
pub struct Loaded {
    /// Its core with its open lots; `None` before its opening, and while it is halted.
    pub core: Option<Core>,
    /// Whether it can't be folded on, so that its records are parked.
    pub halted: bool,
}

/// Pages that a batch reads besides cores, each with the index of its account in the batch.
#[derive(Debug, Default)]
pub struct Wanted {
    events: Wants<(Source, EventId)>,
    lots: Wants<GrantId>,
    payments: Wants<PaymentId>,
    calls: Wants<CallId>,
}

#[derive(Debug)]
struct Wants<T> {
    accounts: Vec<usize>,
    named: Vec<T>,
}

impl<T> Default for Wants<T> {
    fn default() -> Self {
        Self { accounts: Vec::new(), named: Vec::new() }
    }
}

impl<T> Wants<T> {
    fn push(&mut self, account: usize, named: T) {
        self.accounts.push(account);
        self.named.push(named);
    }
}

impl Wanted {
    /// Adds a page that an event of the batch's `account`-th account needs.
    pub fn add(&mut self, account: usize, missing: Missing) {
        match missing {
            Missing::Event(source, id) => self.events.push(account, (source, id)),
            Missing::Lot(id) => self.lots.push(account, id),
            Missing::Payment(id) => self.payments.push(account, id),
            Missing::Call(id) => self.calls.push(account, id),
            // The fold itself requests them once it knows the stretch.
            Missing::Repayments(_) => {}
        }
    }
}

/// Access to the pages of the batch's accounts by index.
pub trait AccountPages {
    fn pages_of(&mut self, account: usize) -> (&AccountId, &mut Pages);
}

/// Loads the lots of one account with credits left.
pub async fn lots_of(tx: &mut PgConnection, account: &AccountId) -> Result<Vec<Lot>, sqlx::Error> {
    let found = lot::open(tx, &[account.as_str()]).await?;
    Ok(found.into_iter().map(|(_, lot)| lot).collect())
}

/// Loads accounts, in the order of `ids`; those that are resumed do not count as halted.
pub(crate) async fn accounts(
    tx: &mut PgConnection,
    ids: &[AccountId],
    resumed: &[&str],
) -> Result<Vec<Loaded>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = ids.iter().map(AccountId::as_str).collect();
    let rows = account::wanted(&mut *tx, &names, resumed).await?;
    let mut loaded: FxHashMap<AccountId, Loaded> = rows
        .into_iter()
        .map(|WantedRow { account, core, halted }| (account, Loaded { core, halted }))
        .collect();
    let is_open = |id: &&AccountId| loaded.get(*id).is_some_and(|account| account.core.is_some());
    let open: Vec<&str> = ids.iter().filter(is_open).map(AccountId::as_str).collect();
    if !open.is_empty() {
        for (account, lot) in lot::open(tx, &open).await? {
            if let Some(core) = loaded.get_mut(&account).and_then(|account| account.core.as_mut()) {
                let now = core.ledger_time;
                core.lots.insert(lot, now);
            }
        }
    }
    Ok(ids.iter().map(|id| loaded.remove(id).unwrap_or_default()).collect())
}

/// Loads the cores of existing accounts, each with the offset of its last event.
///
/// Outside of a snapshot a core may have lots of a later moment; a caller that then reads the same offset again
/// knows that it does not.
pub async fn cores(
    tx: &mut PgConnection,
    ids: &[AccountId],
) -> Result<BTreeMap<AccountId, (i64, Core)>, WorkerError> {
    let names: Vec<&str> = ids.iter().map(AccountId::as_str).collect();
    let mut cores = BTreeMap::new();
    for CoreRow { offset, core } in account::existing(&mut *tx, &names).await? {
        cores.insert(core.account.clone(), (offset, core));
    }
    for (account, lot) in lot::open(tx, &names).await? {
        if let Some((_, core)) = cores.get_mut(&account) {
            let now = core.ledger_time;
            core.lots.insert(lot, now);
        }
    }
    Ok(cores)
}

// Lateral with a limit: always one look-up in the index for each name, whatever the planner thinks of the sizes.
const EVENTS: &str = concat!(
    "
    select wanted.n, found.*
    from unnest($1::text[], $2::text[], $3::text[]) with ordinality as wanted(account_id, event_id, source, n)
    cross join lateral (
        select ",
    event::seen_columns!(),
    "
        from event
        where event.account_id = wanted.account_id
          and event.event_id   = wanted.event_id
          and event.source     = wanted.source
        limit 1
    ) as found"
);

const LOTS: &str = concat!(
    "
    select wanted.n, found.*
    from unnest($1::text[], $2::text[]) with ordinality as wanted(account_id, grant_id, n)
    cross join lateral (
        select ",
    lot::columns!(),
    "
        from lot
        where lot.account_id = wanted.account_id
          and lot.grant_id   = wanted.grant_id
        limit 1
    ) as found"
);

const PAYMENTS: &str = concat!(
    "
    select wanted.n, found.*
    from unnest($1::text[], $2::text[]) with ordinality as wanted(account_id, payment_id, n)
    cross join lateral (
        select ",
    lot::columns!(),
    "
        from lot
        where lot.account_id = wanted.account_id
          and lot.payment_id = wanted.payment_id
        limit 1
    ) as found"
);

const CALLS: &str = "
    select wanted.n, found.*
    from unnest($1::text[], $2::text[]) with ordinality as wanted(account_id, call_id, n)
    cross join lateral (
        select event_id, source
        from event
        where event.account_id = wanted.account_id
          and event.call_id    = wanted.call_id
        limit 1
    ) as found";

/// Loads a batch's pages into its accounts, with one query per kind.
pub async fn pages(
    tx: &mut PgConnection,
    wanted: Wanted,
    batch: &mut impl AccountPages,
) -> Result<(), sqlx::Error> {
    events(tx, wanted.events, batch).await?;
    lots(tx, wanted.lots, batch).await?;
    payments(tx, wanted.payments, batch).await?;
    calls(tx, wanted.calls, batch).await
}

/// Loads the pages that the fold found missing for one account, with one query per kind.
pub async fn missing(
    tx: &mut PgConnection,
    missing: Vec<Missing>,
    batch: &mut impl AccountPages,
    account: usize,
) -> Result<(), sqlx::Error> {
    let mut wanted = Wanted::default();
    for page in missing {
        match page {
            Missing::Repayments(stretch) => {
                let (id, pages) = batch.pages_of(account);
                repayments(&mut *tx, id, stretch, pages).await?;
            }
            page @ (Missing::Event(..) | Missing::Lot(_) | Missing::Payment(_) | Missing::Call(_)) => {
                wanted.add(account, page);
            }
        }
    }
    pages(tx, wanted, batch).await
}

async fn events(
    tx: &mut PgConnection,
    wants: Wants<(Source, EventId)>,
    batch: &mut impl AccountPages,
) -> Result<(), sqlx::Error> {
    if wants.named.is_empty() {
        return Ok(());
    }
    let accounts = account_ids(&wants.accounts, batch);
    let account_names: Vec<&str> = accounts.iter().map(AccountId::as_str).collect();
    let ids: Vec<&str> = wants.named.iter().map(|(_, id)| id.as_str()).collect();
    let sources: Vec<&str> = wants.named.iter().map(|(source, _)| source.as_str()).collect();
    let query = sqlx::query(EVENTS).bind(&account_names).bind(&ids).bind(&sources);
    let rows = query.fetch_all(tx).await?;
    for row in &rows {
        let at = index(row, wants.named.len())?;
        let (source, id) = &wants.named[at];
        let seen = event::read_seen(row, &accounts[at])?;
        let (account, pages) = batch.pages_of(wants.accounts[at]);
        pages.seen.entry(dedupe_key(account, source, id)).or_insert(Some(seen));
    }
    for (at, (source, id)) in wants.named.iter().enumerate() {
        let (account, pages) = batch.pages_of(wants.accounts[at]);
        pages.seen.entry(dedupe_key(account, source, id)).or_insert(None);
    }
    Ok(())
}

async fn lots(
    tx: &mut PgConnection,
    wants: Wants<GrantId>,
    batch: &mut impl AccountPages,
) -> Result<(), sqlx::Error> {
    for (at, lot) in lots_named(tx, LOTS, &wants, batch).await? {
        let (_, pages) = batch.pages_of(wants.accounts[at]);
        pages.lots.entry(lot.grant_id.clone()).or_insert(Some(lot));
    }
    for (account, id) in wants.accounts.iter().zip(wants.named) {
        batch.pages_of(*account).1.lots.entry(id).or_insert(None);
    }
    Ok(())
}

async fn payments(
    tx: &mut PgConnection,
    wants: Wants<PaymentId>,
    batch: &mut impl AccountPages,
) -> Result<(), sqlx::Error> {
    for (at, lot) in lots_named(tx, PAYMENTS, &wants, batch).await? {
        let (_, pages) = batch.pages_of(wants.accounts[at]);
        let id = lot.grant_id.clone();
        pages.payments.entry(wants.named[at].clone()).or_insert(Some(id.clone()));
        // A refund reads the payment's lot next.
        pages.lots.entry(id).or_insert(Some(lot));
    }
    for (account, id) in wants.accounts.iter().zip(wants.named) {
        batch.pages_of(*account).1.payments.entry(id).or_insert(None);
    }
    Ok(())
}

async fn calls(
    tx: &mut PgConnection,
    wants: Wants<CallId>,
    batch: &mut impl AccountPages,
) -> Result<(), sqlx::Error> {
    if wants.named.is_empty() {
        return Ok(());
    }
    let accounts = account_ids(&wants.accounts, batch);
    let account_names: Vec<&str> = accounts.iter().map(AccountId::as_str).collect();
    let ids: Vec<&str> = wants.named.iter().map(CallId::as_str).collect();
    let rows = sqlx::query(CALLS).bind(&account_names).bind(&ids).fetch_all(tx).await?;
    for row in &rows {
        let at = index(row, wants.named.len())?;
        let first = (name(row, "source")?, name(row, "event_id")?);
        let (_, pages) = batch.pages_of(wants.accounts[at]);
        pages.calls.entry(wants.named[at].clone()).or_insert(Some(first));
    }
    for (account, id) in wants.accounts.iter().zip(wants.named) {
        batch.pages_of(*account).1.calls.entry(id).or_insert(None);
    }
    Ok(())
}

async fn lots_named(
    tx: &mut PgConnection,
    statement: &'static str,
    wants: &Wants<impl AsRef<str> + Sync>,
    batch: &mut impl AccountPages,
) -> Result<Vec<(usize, Lot)>, sqlx::Error> {
    if wants.named.is_empty() {
        return Ok(Vec::new());
    }
    let accounts = account_ids(&wants.accounts, batch);
    let account_names: Vec<&str> = accounts.iter().map(AccountId::as_str).collect();
    let ids: Vec<&str> = wants.named.iter().map(AsRef::as_ref).collect();
    let rows = sqlx::query(statement).bind(&account_names).bind(&ids).fetch_all(tx).await?;
    rows.iter().map(|row| Ok((index(row, wants.named.len())?, lot::read(row)?))).collect()
}

async fn repayments(
    tx: &mut PgConnection,
    account: &AccountId,
    stretch: Stretch,
    pages: &mut Pages,
) -> Result<(), sqlx::Error> {
    for repayment in repayment::meeting(tx, account, stretch).await? {
        pages.repayments.entry(repayment.stretch.start).or_insert(repayment);
    }
    pages.covered.push(stretch);
    Ok(())
}

fn account_ids(accounts: &[usize], batch: &mut impl AccountPages) -> Vec<AccountId> {
    accounts.iter().map(|account| batch.pages_of(*account).0.clone()).collect()
}

/// Returns the index of a row's name among the requested ones.
fn index(row: &PgRow, names: usize) -> Result<usize, sqlx::Error> {
    let n: i64 = row.try_get("n")?;
    usize::try_from(n - 1).ok().filter(|at| *at < names).ok_or_else(|| undecodable("ordinality out of range"))
}
