//! Outbox: events that follow a decision in Postgres, in `control.outbox` from its transaction until the journal has them.
//!
//! Whoever decided appends at once, or a relay does: records are taken by one process at a time, in the order that they
//! were put in, and taken again where that process does not come to an end with them. The same record twice folds once.

use ledger_core::event::Event;
use ledger_core::id::{EventId, Id, Source};
use ledger_core::wire;
use sqlx::{PgConnection, PgPool};
use tracing::warn;

use crate::kafka::{AppendError, Journal};
use crate::position::Position;

/// Records of one look.
const RECORDS_MAX: i64 = 500;

const PUT: &str = "
    insert into control.outbox (account_id, event_id, source, event, created_at, due_at)
    select $1, $2, $3, $4, now, now + make_interval(secs => $5)
    from clock_timestamp() as now";

/// Puts an event in; relays leave it to whoever put it in for so many seconds.
pub async fn put(connection: &mut PgConnection, event: &Event, lead_seconds: f64) -> Result<(), sqlx::Error> {
    sqlx::query(PUT)
        .bind(event.account.as_str())
        .bind(event.id.as_str())
        .bind(event.source.as_str())
        .bind(wire::encode(event))
        .bind(lead_seconds)
        .execute(connection)
        .await
        .map(drop)
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

/// Number, account, event id, source, record, reservation.
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

macro_rules! take {
    ($which:literal) => {
        concat!(
            "with taken as (
                 update control.outbox
                 set due_at = clock_timestamp() + interval '10 seconds'
                 where outbox_id = any(array(
                     select outbox_id
                     from control.outbox
                     where ",
            $which,
            "
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

// The clock is read once, and so the index is used.
const TAKE_DUE: &str = take!("due_at <= (select clock_timestamp())");
const TAKE_OWN: &str = take!(
    "source = $2
     and (due_at <= (select clock_timestamp()) or due_at = created_at + make_interval(secs => $3))"
);

/// Takes what is due, whoever put it in.
pub async fn take_due(pool: &PgPool) -> Result<Vec<Waiting>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(TAKE_DUE).bind(RECORDS_MAX).fetch_all(pool).await?;
    rows.into_iter().map(Waiting::of).collect()
}

/// Takes one producer's records, those too that nobody has taken within the lead they were put in with.
pub async fn take_own(pool: &PgPool, source: &str, lead_seconds: f64) -> Result<Vec<Waiting>, sqlx::Error> {
    let take = sqlx::query_as(TAKE_OWN).bind(RECORDS_MAX).bind(source).bind(lead_seconds);
    let rows: Vec<Row> = take.fetch_all(pool).await?;
    rows.into_iter().map(Waiting::of).collect()
}

/// Appends records in their order, and returns those that the journal has, with where.
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
