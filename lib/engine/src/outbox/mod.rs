//! The outbox keeps events that follow a decision in Postgres from that decision's transaction until the journal has them.
//!
//! The deciding process appends them at once; a relay appends those that remain. One process takes a record at a time;
//! if it does not finish, another takes the record again. A record appended twice folds once. Records of one account
//! keep their order, since a later one may build on an earlier one: none is taken while an older one waits. Records that
//! settle holds build on none.

use ledger_core::event::{Event, wire};
use ledger_core::value::id::{AccountId, EventId, ReservationId, Source};
use platform::kafka::{AppendError, Journal};
use platform::pg;
use platform::pg::columns::parsed;
use platform::position::Position;
use sqlx::{PgConnection, PgPool};
use tracing::warn;

/// Records taken at a time.
const RECORDS_MAX: i64 = 500;

/// Inserts an event and returns its outbox id. [`take_due`] leaves it to the caller for the given number of seconds.
pub async fn put(
    connection: &mut PgConnection,
    event: &Event,
    lead_seconds: f64,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        "insert into control.outbox (account_id, event_id, source, event, created_at, due_at)
         select $1, $2, $3, $4, now, now + make_interval(secs => $5)
         from clock_timestamp() as now
         returning outbox_id",
        event.account.as_str(),
        event.id.as_str(),
        event.source.as_str(),
        wire::encode(event),
        lead_seconds
    )
    .fetch_one(connection)
    .await
}

/// A record that may be missing from the journal.
#[derive(Debug)]
pub struct Waiting {
    pub outbox_id: i64,
    pub account: AccountId,
    pub event_id: EventId,
    pub source: Source,
    pub event: Vec<u8>,
    /// The hold that it settles, if any.
    pub reservation: Option<ReservationId>,
}

struct Row {
    outbox_id: i64,
    account_id: String,
    event_id: String,
    source: String,
    event: Vec<u8>,
    reservation_id: Option<String>,
}

impl Waiting {
    fn of(row: Row) -> Result<Waiting, sqlx::Error> {
        Ok(Waiting {
            outbox_id: row.outbox_id,
            account: parsed(&row.account_id)?,
            event_id: parsed(&row.event_id)?,
            source: parsed(&row.source)?,
            event: row.event,
            reservation: row.reservation_id.as_deref().map(parsed).transpose()?,
        })
    }
}

/// Takes the due records of all producers.
pub async fn take_due(pool: &PgPool) -> Result<Vec<Waiting>, sqlx::Error> {
    let taken = sqlx::query_file_as!(Row, "src/outbox/take_due.sql", RECORDS_MAX);
    let rows = taken.fetch_all(pg::bounded(pool)).await?;
    rows.into_iter().map(Waiting::of).collect()
}

/// Takes one producer's records at once, even those reserved for the process that decided.
pub async fn take_own(pool: &PgPool, source: &str) -> Result<Vec<Waiting>, sqlx::Error> {
    let taken = sqlx::query_file_as!(Row, "src/outbox/take_own.sql", RECORDS_MAX, source);
    let rows = taken.fetch_all(pg::bounded(pool)).await?;
    rows.into_iter().map(Waiting::of).collect()
}

/// Returns whether no older record of the account is waiting, so that this one may be appended.
pub async fn is_first(pool: &PgPool, account: &AccountId, outbox_id: i64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select not exists (select from control.outbox as older
                              where older.account_id = mine.account_id
                                and older.outbox_id  < mine.outbox_id
                                and older.reservation_id is null) as "is_first!"
           from (select $1::text collate "C" as account_id, $2::bigint as outbox_id) as mine"#,
        account.as_str(),
        outbox_id
    )
    .fetch_one(pg::bounded(pool))
    .await
}

/// Returns the age of the oldest record in seconds; 0 if there is none.
pub async fn oldest_seconds(pool: &PgPool) -> Result<f64, sqlx::Error> {
    let oldest = sqlx::query_scalar!(
        r#"select extract(epoch from clock_timestamp() - created_at)::float8 as "seconds!"
           from control.outbox
           order by outbox_id
           limit 1"#
    )
    .fetch_optional(pg::bounded(pool))
    .await?;
    Ok(oldest.unwrap_or_default())
}

/// Appends records and returns those that the journal acknowledged, each with its position.
pub async fn append<'a>(journal: &Journal, waiting: &'a [Waiting]) -> Vec<(&'a Waiting, Position)> {
    let records: Vec<(&AccountId, &Vec<u8>)> = waiting.iter().map(|one| (&one.account, &one.event)).collect();
    let outcomes = journal.append_all(&records).await;
    waiting
        .iter()
        .zip(outcomes)
        .filter_map(|(one, outcome)| Some((one, position_of(one, outcome)?)))
        .collect()
}

fn position_of(one: &Waiting, outcome: Result<Position, AppendError>) -> Option<Position> {
    let noted = |error: &AppendError| {
        warn!(%error, account_id = %one.account, "a record of the outbox was not acknowledged");
    };
    outcome.inspect_err(noted).ok()
}

/// Deletes appended records.
pub async fn done(pool: &PgPool, outbox_ids: Vec<i64>) -> Result<(), sqlx::Error> {
    let done = sqlx::query!("delete from control.outbox where outbox_id = any($1)", &outbox_ids);
    done.execute(pg::bounded(pool)).await.map(drop)
}
