//! The outbox keeps events that follow a decision in Postgres from that decision's transaction until the journal has them.
//!
//! The process that decided appends them at once; a relay appends what is left. One process takes a record at a time, and
//! another takes it again where the first does not finish. The same record twice folds once. Records of one account keep
//! their order, since a later one may build on an earlier one: none is taken while an older one is there. Records that
//! settle holds build on none.

use ledger_core::event::{Event, wire};
use ledger_core::value::id::{EventId, Id, Source};
use platform::kafka::{AppendError, Journal};
use platform::pg::columns::parsed;
use platform::position::Position;
use sqlx::{PgConnection, PgPool};
use tracing::warn;

/// Records taken at a time.
const RECORDS_MAX: i64 = 500;

const PUT: &str = "
    insert into control.outbox (account_id, event_id, source, event, created_at, due_at)
    select $1, $2, $3, $4, now, now + make_interval(secs => $5)
    from clock_timestamp() as now
    returning outbox_id";

/// Puts an event in and returns its id in the outbox. [`take_due`] leaves it to the caller for so many seconds.
pub async fn put(
    connection: &mut PgConnection,
    event: &Event,
    lead_seconds: f64,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(PUT)
        .bind(event.account.as_str())
        .bind(event.id.as_str())
        .bind(event.source.as_str())
        .bind(wire::encode(event))
        .bind(lead_seconds)
        .fetch_one(connection)
        .await
}

/// A record that the journal may not have.
#[derive(Debug)]
pub struct Waiting {
    pub outbox_id: i64,
    /// The record's key.
    pub account: Id,
    pub event_id: EventId,
    pub source: Source,
    /// The record's value.
    pub event: Vec<u8>,
    /// The hold that it settles, where it settles one.
    pub reservation: Option<Id>,
}

/// Outbox id, account, event id, source, record, reservation.
type Row = (i64, String, String, String, Vec<u8>, Option<String>);

impl Waiting {
    fn of((outbox_id, account, event_id, source, event, reservation): Row) -> Result<Waiting, sqlx::Error> {
        Ok(Waiting {
            outbox_id,
            account: parsed(&account)?,
            event_id: parsed(&event_id)?,
            source: parsed(&source)?,
            event,
            reservation: reservation.as_deref().map(parsed).transpose()?,
        })
    }
}

const TAKE_DUE: &str = include_str!("take_due.sql");
const TAKE_OWN: &str = include_str!("take_own.sql");

/// Takes what is due, of all producers.
pub async fn take_due(pool: &PgPool) -> Result<Vec<Waiting>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(TAKE_DUE).bind(RECORDS_MAX).fetch_all(pool).await?;
    rows.into_iter().map(Waiting::of).collect()
}

/// Takes one producer's records at once: it need not wait until others may.
pub async fn take_own(pool: &PgPool, source: &str) -> Result<Vec<Waiting>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(TAKE_OWN).bind(RECORDS_MAX).bind(source).fetch_all(pool).await?;
    rows.into_iter().map(Waiting::of).collect()
}

const IS_FIRST: &str = r#"
    select not exists (select from control.outbox as older
                       where older.account_id = mine.account_id
                         and older.outbox_id  < mine.outbox_id
                         and older.reservation_id is null)
    from (select $1::text collate "C" as account_id, $2::bigint as outbox_id) as mine"#;

/// Returns whether no older record of the account waits, so that this one may be appended.
pub async fn is_first(pool: &PgPool, account: &Id, outbox_id: i64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(IS_FIRST).bind(account.as_str()).bind(outbox_id).fetch_one(pool).await
}

const OLDEST: &str = "
    select extract(epoch from clock_timestamp() - created_at)::float8
    from control.outbox
    order by outbox_id
    limit 1";

/// Returns how many seconds the oldest record has waited; 0 where none does.
pub async fn oldest_seconds(pool: &PgPool) -> Result<f64, sqlx::Error> {
    let oldest: Option<f64> = sqlx::query_scalar(OLDEST).fetch_optional(pool).await?;
    Ok(oldest.unwrap_or_default())
}

/// Appends records and returns those that the journal acknowledged, each with its position.
pub async fn append<'a>(journal: &Journal, waiting: &'a [Waiting]) -> Vec<(&'a Waiting, Position)> {
    let records: Vec<(&Id, &Vec<u8>)> = waiting.iter().map(|one| (&one.account, &one.event)).collect();
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

/// Deletes records that the journal has.
pub async fn done(pool: &PgPool, outbox_ids: Vec<i64>) -> Result<(), sqlx::Error> {
    let done = sqlx::query("delete from control.outbox where outbox_id = any($1)").bind(outbox_ids);
    done.execute(pool).await.map(drop)
}
