//! Loads cores and pages from a generation's tables, in bulk for a batch or one by one where the fold asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger_core::account::Core;
use ledger_core::account::lot::{Draw, Draws, Lot};
use ledger_core::account::overdraft::Stretch;
use ledger_core::account::withdrawal::{Seen, Withdrawal};
use ledger_core::event::key::{ContentHash, dedupe_key};
use ledger_core::event::{Data, Event, wire};
use ledger_core::fold::pages::{Missing, Pages};
use ledger_core::value::id::{EventId, Id, Source};
use platform::pg::columns::{amount, name, optional_amount, time, undecodable};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::consume::WorkerError;
use crate::tables::{lot, repayment};

/// An account as the database has it.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Its core with its open lots; none before its opening.
    pub core: Option<Core>,
    /// Whether records of it wait behind an event of an unknown type.
    pub halted: bool,
}

/// What a batch asks of the tables besides cores, each with the place of its account among the batch's.
#[derive(Debug, Default)]
pub struct Wanted {
    events: Wants<(Source, EventId)>,
    lots: Wants<Id>,
    payments: Wants<Id>,
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
    /// Adds what an event of the batch's `account`-th account will ask for.
    pub fn add(&mut self, account: usize, missing: Missing) {
        match missing {
            Missing::Event(source, id) => self.events.push(account, (source, id)),
            Missing::Lot(id) => self.lots.push(account, id),
            Missing::Payment(id) => self.payments.push(account, id),
            // Named only by the fold itself, when it knows the stretch.
            Missing::Repayments(_) => {}
        }
    }
}

/// Gives access to the pages of the batch's accounts by their place.
pub trait AccountPages {
    /// Returns an account's id and pages.
    fn pages_of(&mut self, account: usize) -> (&Id, &mut Pages);
}

// Every id once; an account without a row may have parked records all the same. By order and limit, because by its
// statistics the planner may take a table with much of few accounts for one where each account soon turns up.
const CORES: &str = "
    select wanted.account_id,
           account.core::text,
           (select true
            from parked
            where parked.account_id = wanted.account_id
            order by parked.account_id, parked.\"offset\"
            limit 1) is not null as halted
    from unnest($1::text[]) as wanted(account_id)
    left join account on account.account_id = wanted.account_id";

// Offset 0 keeps the look-ups apart, so that they stay look-ups however many accounts are wanted.
const OPEN_LOTS: &str = concat!(
    "
    select found.*
    from unnest($1::text[]) as wanted(account_id)
    cross join lateral (
        select account_id, ",
    lot::columns!(),
    "
        from lot
        where lot.account_id = wanted.account_id
          and lot.open
        offset 0
    ) as found"
);

/// Loads the lots of one account that have something left.
pub async fn lots_of(tx: &mut PgConnection, account: &Id) -> Result<Vec<Lot>, WorkerError> {
    let rows = sqlx::query(OPEN_LOTS).bind(vec![account.as_str()]).fetch_all(tx).await?;
    Ok(rows.iter().map(|row| lot::read(row, 1)).collect::<Result<_, _>>()?)
}

/// Loads accounts; the answer has their order.
pub async fn accounts(tx: &mut PgConnection, ids: &[Id]) -> Result<Vec<Loaded>, WorkerError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = ids.iter().map(Id::as_str).collect();
    let mut loaded: rustc_hash::FxHashMap<String, Loaded> = rustc_hash::FxHashMap::default();
    for row in sqlx::query(CORES).bind(&names).fetch_all(&mut *tx).await? {
        let core: Option<String> = row.try_get(1)?;
        let core = core.map(|text| serde_json::from_str(&text)).transpose().map_err(undecodable)?;
        loaded.insert(row.try_get(0)?, Loaded { core, halted: row.try_get(2)? });
    }
    let open: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| loaded.get(*name).is_some_and(|account| account.core.is_some()))
        .collect();
    if !open.is_empty() {
        for row in sqlx::query(OPEN_LOTS).bind(&open).fetch_all(&mut *tx).await? {
            let account: &str = row.try_get(0)?;
            let lot = lot::read(&row, 1)?;
            if let Some(core) = loaded.get_mut(account).and_then(|account| account.core.as_mut()) {
                let now = core.ledger_time;
                core.lots.insert(lot, now);
            }
        }
    }
    Ok(names.iter().map(|name| loaded.remove(*name).unwrap_or_default()).collect())
}

const CORES_AT: &str = r#"
    select account_id, "offset", core::text
    from account
    where account_id = any($1)"#;

/// Loads the cores of accounts that exist, each with the offset of its last event.
///
/// Outside of a snapshot a core may come with lots of a later moment; a caller that reads the same offset again afterwards
/// knows that it did not.
pub async fn cores(tx: &mut PgConnection, ids: &[Id]) -> Result<BTreeMap<Id, (i64, Core)>, WorkerError> {
    let names: Vec<&str> = ids.iter().map(Id::as_str).collect();
    let mut cores = BTreeMap::new();
    for row in sqlx::query(CORES_AT).bind(&names).fetch_all(&mut *tx).await? {
        let core: Core = serde_json::from_str(row.try_get(2)?).map_err(undecodable)?;
        cores.insert(core.account.clone(), (row.try_get(1)?, core));
    }
    for row in sqlx::query(OPEN_LOTS).bind(&names).fetch_all(tx).await? {
        if let Some((_, core)) = cores.get_mut(&name::<Id>(&row, 0)?) {
            let now = core.ledger_time;
            core.lots.insert(lot::read(&row, 1)?, now);
        }
    }
    Ok(cores)
}

// Lateral with a limit: always one look-up in the index for each name, whatever the planner thinks of the sizes.
const EVENTS: &str = "
    select wanted.n, found.*
    from unnest($1::text[], $2::text[], $3::text[]) with ordinality as wanted(account_id, event_id, source, n)
    cross join lateral (
        select type, outcome, content, occurred_at, recordedat, actor, data::text, period_index, credits::text,
               lots::text, line_start::text, line_end::text, reversed_at is not null
        from event
        where event.account_id = wanted.account_id
          and event.event_id   = wanted.event_id
          and event.source     = wanted.source
        limit 1
    ) as found";

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

/// Loads what a batch wants into the pages of its accounts: one query a kind.
pub async fn pages(
    tx: &mut PgConnection,
    wanted: Wanted,
    batch: &mut impl AccountPages,
) -> Result<(), WorkerError> {
    events(tx, wanted.events, batch).await?;
    lots(tx, wanted.lots, batch).await?;
    payments(tx, wanted.payments, batch).await
}

/// Loads the one thing that the fold found missing.
pub async fn missing(
    tx: &mut PgConnection,
    missing: Missing,
    batch: &mut impl AccountPages,
    account: usize,
) -> Result<(), WorkerError> {
    if let Missing::Repayments(stretch) = missing {
        let (id, pages) = batch.pages_of(account);
        return repayments(tx, id, stretch, pages).await;
    }
    let mut wanted = Wanted::default();
    wanted.add(account, missing);
    pages(tx, wanted, batch).await
}

async fn events(
    tx: &mut PgConnection,
    wants: Wants<(Source, EventId)>,
    batch: &mut impl AccountPages,
) -> Result<(), WorkerError> {
    if wants.named.is_empty() {
        return Ok(());
    }
    let accounts = account_ids(&wants.accounts, batch);
    let account_names: Vec<&str> = accounts.iter().map(Id::as_str).collect();
    let ids: Vec<&str> = wants.named.iter().map(|(_, id)| id.as_str()).collect();
    let sources: Vec<&str> = wants.named.iter().map(|(source, _)| source.as_str()).collect();
    let query = sqlx::query(EVENTS).bind(&account_names).bind(&ids).bind(&sources);
    let rows = query.fetch_all(tx).await?;
    for row in &rows {
        let at = index(row, wants.named.len())?;
        let (source, id) = &wants.named[at];
        let seen = read_seen(row, &accounts[at], source, id)?;
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
    wants: Wants<Id>,
    batch: &mut impl AccountPages,
) -> Result<(), WorkerError> {
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
    wants: Wants<Id>,
    batch: &mut impl AccountPages,
) -> Result<(), WorkerError> {
    for (at, lot) in lots_named(tx, PAYMENTS, &wants, batch).await? {
        let (_, pages) = batch.pages_of(wants.accounts[at]);
        let id = lot.grant_id.clone();
        pages.payments.entry(wants.named[at].clone()).or_insert(Some(id.clone()));
        // A refund asks for the payment's lot next.
        pages.lots.entry(id).or_insert(Some(lot));
    }
    for (account, id) in wants.accounts.iter().zip(wants.named) {
        batch.pages_of(*account).1.payments.entry(id).or_insert(None);
    }
    Ok(())
}

async fn lots_named(
    tx: &mut PgConnection,
    statement: &'static str,
    wants: &Wants<Id>,
    batch: &mut impl AccountPages,
) -> Result<Vec<(usize, Lot)>, WorkerError> {
    if wants.named.is_empty() {
        return Ok(Vec::new());
    }
    let accounts = account_ids(&wants.accounts, batch);
    let account_names: Vec<&str> = accounts.iter().map(Id::as_str).collect();
    let ids: Vec<&str> = wants.named.iter().map(Id::as_str).collect();
    let rows = sqlx::query(statement).bind(&account_names).bind(&ids).fetch_all(tx).await?;
    rows.iter().map(|row| Ok((index(row, wants.named.len())?, lot::read(row, 1)?))).collect()
}

async fn repayments(
    tx: &mut PgConnection,
    account: &Id,
    stretch: Stretch,
    pages: &mut Pages,
) -> Result<(), WorkerError> {
    for repayment in repayment::meeting(tx, account, stretch).await? {
        pages.repayments.entry(repayment.stretch.start).or_insert(repayment);
    }
    pages.covered.push(stretch);
    Ok(())
}

fn account_ids(accounts: &[usize], batch: &mut impl AccountPages) -> Vec<Id> {
    accounts.iter().map(|account| batch.pages_of(*account).0.clone()).collect()
}

/// Returns the index of a row's name among those that were asked for.
fn index(row: &PgRow, names: usize) -> Result<usize, sqlx::Error> {
    let n: i64 = row.try_get(0)?;
    usize::try_from(n - 1).ok().filter(|at| *at < names).ok_or_else(|| undecodable("ordinality out of range"))
}

fn read_seen(row: &PgRow, account: &Id, source: &Source, id: &EventId) -> Result<Seen, WorkerError> {
    let content: Vec<u8> = row.try_get(3)?;
    let content = ContentHash(content.try_into().map_err(|_| undecodable("content hash of another length"))?);
    let (event_type, outcome): (&str, &str) = (row.try_get(1)?, row.try_get(2)?);
    let may_be_undone = ["ledger.usage.recorded.v1", "ledger.dispute.opened.v1"].contains(&event_type);
    let took = outcome == "applied" && may_be_undone;
    let withdrawal = if took { Some(read_withdrawal(row, event_type, account, source, id)?) } else { None };
    Ok(Seen { content, withdrawal: withdrawal.map(Arc::new), reversed: row.try_get(13)? })
}

fn read_withdrawal(
    row: &PgRow,
    event_type: &str,
    account: &Id,
    source: &Source,
    id: &EventId,
) -> Result<Withdrawal, WorkerError> {
    let data: &str = row.try_get(7)?;
    let data = wire::data(event_type, data).ok_or_else(|| undecodable("a stored event's type is unknown"))?;
    let event = Event {
        id: id.clone(),
        source: source.clone(),
        account: account.clone(),
        occurred_at: time(row, 4)?,
        recorded_at: time(row, 5)?,
        actor: name(row, 6)?,
        data: data.map_err(undecodable)?,
    };
    let line = match (optional_amount(row, 11)?, optional_amount(row, 12)?) {
        (Some(start), Some(end)) => Some(Stretch { start, end }),
        _ => None,
    };
    let credits = match &event.data {
        Data::DisputeOpened(dispute) => dispute.amount,
        _ => amount(row, 9)?,
    };
    Ok(Withdrawal {
        event: Arc::new(event),
        period_index: row.try_get(8)?,
        credits,
        draws: read_draws(row.try_get(10)?)?,
        line,
    })
}

/// Draws stand in their row as changes of lots: negative.
fn read_draws(json: Option<&str>) -> Result<Draws, WorkerError> {
    let mut draws: Draws = serde_json::from_str(json.unwrap_or("[]")).map_err(undecodable)?;
    for draw in &mut draws {
        let Draw { amount, .. } = draw;
        *amount = amount.negated();
    }
    Ok(draws)
}
