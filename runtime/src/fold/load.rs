//! Load: cores and pages from the generation's tables, in bulk for a batch or one by one where the fold asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ledger_core::account::Core;
use ledger_core::value::credits::Credits;
use ledger_core::event::{Data, Event, LotSource, wire};
use ledger_core::value::id::{EventId, Id, Label, Source, Text};
use ledger_core::event::key::{ContentHash, dedupe_key};
use ledger_core::account::lot::{Draw, Draws, Lot};
use ledger_core::account::overdraft::Stretch;
use ledger_core::fold::pages::{Missing, Pages};
use ledger_core::account::withdrawal::{Repayment, Seen, Withdrawal};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::rows::Amount;
use crate::consume::WorkerError;
use crate::pg::{credits_of, time_of};

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
pub trait Shelf {
    /// Returns an account's id and pages.
    fn page_of(&mut self, account: usize) -> (&Id, &mut Pages);
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

/// Columns of a lot in the order that [`read_lot`] reads them.
macro_rules! lot_columns {
    () => {
        "grant_id, source, amount::text, remaining::text, lapsed::text, refunded::text, priority, effective_at,
         expires_at, granted_at, voided_at, event_id, payment_id, reason, \"offset\", seq"
    };
}

// Offset 0 keeps the look-ups apart, so that they stay look-ups however many accounts are wanted.
const OPEN_LOTS: &str = concat!(
    "
    select found.*
    from unnest($1::text[]) as wanted(account_id)
    cross join lateral (
        select account_id, ",
    lot_columns!(),
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
    rows.iter().map(|row| read_lot(row, 1)).collect()
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
        let core = core.map(|text| serde_json::from_str(&text)).transpose().map_err(unreadable)?;
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
            let lot = read_lot(&row, 1)?;
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
/// Outside of a snapshot a core may come with lots of a later moment: who sees the same offset again afterwards knows
/// that it did not.
pub async fn cores(tx: &mut PgConnection, ids: &[Id]) -> Result<BTreeMap<Id, (i64, Core)>, WorkerError> {
    let names: Vec<&str> = ids.iter().map(Id::as_str).collect();
    let mut cores = BTreeMap::new();
    for row in sqlx::query(CORES_AT).bind(&names).fetch_all(&mut *tx).await? {
        let core: Core = serde_json::from_str(row.try_get(2)?).map_err(unreadable)?;
        cores.insert(core.account.clone(), (row.try_get(1)?, core));
    }
    for row in sqlx::query(OPEN_LOTS).bind(&names).fetch_all(tx).await? {
        if let Some((_, core)) = cores.get_mut(&name(&row, 0)?) {
            let now = core.ledger_time;
            core.lots.insert(read_lot(&row, 1)?, now);
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
    lot_columns!(),
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
    lot_columns!(),
    "
        from lot
        where lot.account_id = wanted.account_id
          and lot.payment_id = wanted.payment_id
        limit 1
    ) as found"
);

// Repaid stretches never overlap, so the last one that begins at or before the stretch is the first that can meet it.
const REPAYMENTS: &str = "
    select line_start::text, line_end::text, grant_id
    from repayment
    where account_id = $1
      and line_start < $3
      and line_end   > $2
      and line_start >= coalesce((select before.line_start
                                  from repayment as before
                                  where before.account_id = $1
                                    and before.line_start <= $2
                                  order by before.line_start desc
                                  limit 1), $2)";

/// Loads what a batch wants into the pages of its accounts: one query a kind.
pub async fn pages(tx: &mut PgConnection, wanted: Wanted, shelf: &mut impl Shelf) -> Result<(), WorkerError> {
    events(tx, wanted.events, shelf).await?;
    lots(tx, wanted.lots, shelf).await?;
    payments(tx, wanted.payments, shelf).await
}

/// Loads the one thing that the fold found missing.
pub async fn missing(
    tx: &mut PgConnection,
    missing: Missing,
    shelf: &mut impl Shelf,
    account: usize,
) -> Result<(), WorkerError> {
    if let Missing::Repayments(stretch) = missing {
        let (id, pages) = shelf.page_of(account);
        return repayments(tx, id, stretch, pages).await;
    }
    let mut wanted = Wanted::default();
    wanted.add(account, missing);
    pages(tx, wanted, shelf).await
}

async fn events(
    tx: &mut PgConnection,
    wants: Wants<(Source, EventId)>,
    shelf: &mut impl Shelf,
) -> Result<(), WorkerError> {
    if wants.named.is_empty() {
        return Ok(());
    }
    let accounts = account_ids(&wants.accounts, shelf);
    let account_names: Vec<&str> = accounts.iter().map(Id::as_str).collect();
    let ids: Vec<&str> = wants.named.iter().map(|(_, id)| id.as_str()).collect();
    let sources: Vec<&str> = wants.named.iter().map(|(source, _)| source.as_str()).collect();
    let query = sqlx::query(EVENTS).bind(&account_names).bind(&ids).bind(&sources);
    let rows = query.fetch_all(tx).await?;
    for row in &rows {
        let at = place(row, wants.named.len())?;
        let (source, id) = &wants.named[at];
        let seen = read_seen(row, &accounts[at], source, id)?;
        let (account, pages) = shelf.page_of(wants.accounts[at]);
        pages.seen.entry(dedupe_key(account, source, id)).or_insert(Some(seen));
    }
    for (at, (source, id)) in wants.named.iter().enumerate() {
        let (account, pages) = shelf.page_of(wants.accounts[at]);
        pages.seen.entry(dedupe_key(account, source, id)).or_insert(None);
    }
    Ok(())
}

async fn lots(tx: &mut PgConnection, wants: Wants<Id>, shelf: &mut impl Shelf) -> Result<(), WorkerError> {
    for (at, lot) in lots_named(tx, LOTS, &wants, shelf).await? {
        let (_, pages) = shelf.page_of(wants.accounts[at]);
        pages.lots.entry(lot.grant_id.clone()).or_insert(Some(lot));
    }
    for (account, id) in wants.accounts.iter().zip(wants.named) {
        shelf.page_of(*account).1.lots.entry(id).or_insert(None);
    }
    Ok(())
}

async fn payments(
    tx: &mut PgConnection,
    wants: Wants<Id>,
    shelf: &mut impl Shelf,
) -> Result<(), WorkerError> {
    for (at, lot) in lots_named(tx, PAYMENTS, &wants, shelf).await? {
        let (_, pages) = shelf.page_of(wants.accounts[at]);
        let id = lot.grant_id.clone();
        pages.payments.entry(wants.named[at].clone()).or_insert(Some(id.clone()));
        // A refund asks for the payment's lot next.
        pages.lots.entry(id).or_insert(Some(lot));
    }
    for (account, id) in wants.accounts.iter().zip(wants.named) {
        shelf.page_of(*account).1.payments.entry(id).or_insert(None);
    }
    Ok(())
}

async fn lots_named(
    tx: &mut PgConnection,
    statement: &'static str,
    wants: &Wants<Id>,
    shelf: &mut impl Shelf,
) -> Result<Vec<(usize, Lot)>, WorkerError> {
    if wants.named.is_empty() {
        return Ok(Vec::new());
    }
    let accounts = account_ids(&wants.accounts, shelf);
    let account_names: Vec<&str> = accounts.iter().map(Id::as_str).collect();
    let ids: Vec<&str> = wants.named.iter().map(Id::as_str).collect();
    let rows = sqlx::query(statement).bind(&account_names).bind(&ids).fetch_all(tx).await?;
    rows.iter().map(|row| Ok((place(row, wants.named.len())?, read_lot(row, 1)?))).collect()
}

async fn repayments(
    tx: &mut PgConnection,
    account: &Id,
    stretch: Stretch,
    pages: &mut Pages,
) -> Result<(), WorkerError> {
    let query = sqlx::query(REPAYMENTS).bind(account.as_str());
    let query = query.bind(Amount(stretch.start)).bind(Amount(stretch.end));
    for row in query.fetch_all(tx).await? {
        let repaid = Stretch { start: amount(&row, 0)?, end: amount(&row, 1)? };
        let repayment = Repayment { stretch: repaid, grant_id: name(&row, 2)? };
        pages.repayments.entry(repaid.start).or_insert(repayment);
    }
    pages.covered.push(stretch);
    Ok(())
}

fn account_ids(accounts: &[usize], shelf: &mut impl Shelf) -> Vec<Id> {
    accounts.iter().map(|account| shelf.page_of(*account).0.clone()).collect()
}

/// Where a row's name stands among those that were asked for.
fn place(row: &PgRow, names: usize) -> Result<usize, WorkerError> {
    let n: i64 = row.try_get(0)?;
    usize::try_from(n - 1).ok().filter(|at| *at < names).ok_or_else(|| unreadable("ordinality out of range"))
}

fn read_seen(row: &PgRow, account: &Id, source: &Source, id: &EventId) -> Result<Seen, WorkerError> {
    let content: Vec<u8> = row.try_get(3)?;
    let content = ContentHash(content.try_into().map_err(|_| unreadable("content hash of another length"))?);
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
    let data = wire::data(event_type, data).ok_or_else(|| unreadable("a stored event's type is unknown"))?;
    let event = Event {
        id: id.clone(),
        source: source.clone(),
        account: account.clone(),
        occurred_at: time(row, 4)?,
        recorded_at: time(row, 5)?,
        actor: Label::new(row.try_get(6)?).map_err(unreadable)?,
        data: data.map_err(unreadable)?,
    };
    let line = match (maybe_amount(row, 11)?, maybe_amount(row, 12)?) {
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
    let mut draws: Draws = serde_json::from_str(json.unwrap_or("[]")).map_err(unreadable)?;
    for draw in &mut draws {
        let Draw { amount, .. } = draw;
        *amount = amount.negated();
    }
    Ok(draws)
}

/// Reads a lot from a row with its columns in the tables' order, `grant_id` at `first`.
fn read_lot(row: &PgRow, first: usize) -> Result<Lot, WorkerError> {
    let source: &str = row.try_get(first + 1)?;
    let reason: Option<&str> = row.try_get(first + 13)?;
    Ok(Lot {
        grant_id: name(row, first)?,
        source: lot_source(source)?,
        amount: amount(row, first + 2)?,
        remaining: amount(row, first + 3)?,
        lapsed: amount(row, first + 4)?,
        refunded: amount(row, first + 5)?,
        priority: row.try_get(first + 6)?,
        effective_at: time(row, first + 7)?,
        expires_at: maybe_time(row, first + 8)?,
        granted_at: time(row, first + 9)?,
        voided_at: maybe_time(row, first + 10)?,
        event_id: EventId::new(row.try_get(first + 11)?).map_err(unreadable)?,
        payment_id: maybe_name(row, first + 12)?,
        reason: reason.map(Text::new).transpose().map_err(unreadable)?,
        offset: row.try_get(first + 14)?,
        seq: row.try_get(first + 15)?,
    })
}

fn lot_source(text: &str) -> Result<LotSource, WorkerError> {
    let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    LotSource::deserialize(text).map_err(unreadable)
}

fn name(row: &PgRow, column: usize) -> Result<Id, WorkerError> {
    Id::new(row.try_get(column)?).map_err(unreadable)
}

fn maybe_name(row: &PgRow, column: usize) -> Result<Option<Id>, WorkerError> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(Id::new).transpose().map_err(unreadable)
}

fn time(row: &PgRow, column: usize) -> Result<ledger_core::value::time::Time, WorkerError> {
    let time: DateTime<Utc> = row.try_get(column)?;
    Ok(time_of(time))
}

fn maybe_time(row: &PgRow, column: usize) -> Result<Option<ledger_core::value::time::Time>, WorkerError> {
    let time: Option<DateTime<Utc>> = row.try_get(column)?;
    Ok(time.map(time_of))
}

fn amount(row: &PgRow, column: usize) -> Result<Credits, WorkerError> {
    Ok(credits_of(row.try_get(column)?)?)
}

fn maybe_amount(row: &PgRow, column: usize) -> Result<Option<Credits>, WorkerError> {
    let text: Option<&str> = row.try_get(column)?;
    Ok(text.map(credits_of).transpose()?)
}

/// A row that this program did not write so, or a bug: nothing may be folded on top of it.
fn unreadable(cause: impl std::fmt::Display) -> WorkerError {
    WorkerError::Internal(format!("a row of the read model can't be read: {cause}"))
}
