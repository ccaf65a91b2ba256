//! Outbox: events that follow a decision in Postgres, in `control.outbox` from its transaction until the journal has them.
//!
//! Whoever decided appends at once, or a relay does: a record is taken by one process at a time, and taken again where
//! that process does not come to an end with it. The same record twice folds once. Records of one account keep their
//! order, since a later one may build on an earlier one: none is taken while an older one is there. Records that settle
//! holds build on none.

use ledger_core::event::{Event, wire};
use ledger_core::value::id::{EventId, Id, Source};
use sqlx::{PgConnection, PgPool};
use tracing::warn;

use crate::kafka::{AppendError, Journal};
use crate::position::Position;

/// Records of one look.
const RECORDS_MAX: i64 = 500;

const PUT: &str = "
    insert into control.outbox (account_id, event_id, source, event, created_at, due_at)
    select $1, $2, $3, $4, now, now + make_interval(secs => $5)
    from clock_timestamp() as now
    returning outbox_id";

/// Puts an event in, and returns its place. [`take_due`] leaves it to whoever put it in for so many seconds.
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
    /// Its place in the outbox.
    pub outbox_id: i64,
    /// Whose it is: the record's key.
    pub account: Id,
    /// The event's id.
    pub event_id: EventId,
    /// The event's producer.
    pub source: Source,
    /// The record.
    pub event: Vec<u8>,
    /// The hold that it settles.
    pub reservation: Option<Id>,
}

/// Place, account, event id, source, record, reservation.
type Row = (i64, String, String, String, Vec<u8>, Option<String>);

impl Waiting {
    fn of((outbox_id, account, event_id, source, event, reservation): Row) -> Result<Waiting, sqlx::Error> {
        Ok(Waiting {
            outbox_id,
            account: named(&account, Id::new)?,
            event_id: named(&event_id, EventId::new)?,
            source: named(&source, Source::new)?,
            event,
            reservation: reservation.map(|reservation| named(&reservation, Id::new)).transpose()?,
        })
    }
}

fn named<T, E>(text: &str, parse: fn(&str) -> Result<T, E>) -> Result<T, sqlx::Error>
where
    E: std::error::Error + Send + Sync + 'static,
{
    parse(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

macro_rules! older {
    ($of:literal) => {
        concat!(
            "(select from control.outbox as older
              where older.account_id = ",
            $of,
            ".account_id and older.outbox_id < ",
            $of,
            ".outbox_id and older.reservation_id is null)"
        )
    };
}

// The clock is read once, and so the index is used.
macro_rules! take {
    ($which:literal) => {
        concat!(
            "with taken as (
                 update control.outbox
                 set taken_until = clock_timestamp() + interval '10 seconds'
                 where outbox_id = any(array(
                     select outbox_id
                     from control.outbox as waiting
                     where ",
            $which,
            "
                       and (taken_until is null or taken_until <= (select clock_timestamp()))
                       and (reservation_id is not null or not exists ",
            older!("waiting"),
            ")
                     order by outbox_id
                     limit $1
                     for update skip locked))
                 returning outbox_id, account_id, event_id, source, event, reservation_id
             )
             select *
             from taken
             order by outbox_id"
        )
    };
}

const TAKE_DUE: &str = take!("due_at <= (select clock_timestamp())");
const TAKE_OWN: &str = take!("source = $2");

/// Takes what is due, whoever put it in.
pub async fn take_due(pool: &PgPool) -> Result<Vec<Waiting>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(TAKE_DUE).bind(RECORDS_MAX).fetch_all(pool).await?;
    rows.into_iter().map(Waiting::of).collect()
}

/// Takes one producer's records at once: he need not wait until others may.
pub async fn take_own(pool: &PgPool, source: &str) -> Result<Vec<Waiting>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(TAKE_OWN).bind(RECORDS_MAX).bind(source).fetch_all(pool).await?;
    rows.into_iter().map(Waiting::of).collect()
}

const IS_FIRST: &str = concat!(
    "select not exists ",
    older!("mine"),
    " from (select $1::text collate \"C\" as account_id, $2::bigint as outbox_id) as mine"
);

/// Says whether no older record of the account waits, so that this one may be appended.
pub async fn is_first(pool: &PgPool, account: &Id, outbox_id: i64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(IS_FIRST).bind(account.as_str()).bind(outbox_id).fetch_one(pool).await
}

const OLDEST: &str = "
    select extract(epoch from clock_timestamp() - created_at)::float8
    from control.outbox
    order by outbox_id
    limit 1";

/// Returns for how many seconds the oldest record has waited; 0 where none does.
pub async fn oldest_seconds(pool: &PgPool) -> Result<f64, sqlx::Error> {
    let oldest: Option<f64> = sqlx::query_scalar(OLDEST).fetch_optional(pool).await?;
    Ok(oldest.unwrap_or_default())
}

/// Appends records, and returns those that the journal has, with where.
pub async fn append<'a>(journal: &Journal, waiting: &'a [Waiting]) -> Vec<(&'a Waiting, Position)> {
    let records: Vec<(&Id, &Vec<u8>)> = waiting.iter().map(|one| (&one.account, &one.event)).collect();
    let outcomes = journal.append_all(&records).await;
    waiting
        .iter()
        .zip(outcomes)
        .filter_map(|(one, outcome)| Some((one, acknowledged(one, outcome)?)))
        .collect()
}

fn acknowledged(one: &Waiting, outcome: Result<Position, AppendError>) -> Option<Position> {
    let noted = |error: &AppendError| {
        warn!(%error, account_id = %one.account, "a record of the outbox was not acknowledged");
    };
    outcome.inspect_err(noted).ok()
}

/// Takes records out that the journal has.
pub async fn done(pool: &PgPool, outbox_ids: Vec<i64>) -> Result<(), sqlx::Error> {
    let done = sqlx::query("delete from control.outbox where outbox_id = any($1)").bind(outbox_ids);
    done.execute(pool).await.map(drop)
}
