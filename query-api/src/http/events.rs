//! Events: what became of one event, what it cost by which prices, and which lots paid.

use axum::extract::State;
use chrono::{DateTime, Utc};
use ledger_core::event::Line;
use ledger_core::fold::{LotChange, Outcome, Reason};
use ledger_core::policy::hold::over_hold;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, CallId, EventId, Label, MessageId, ReservationId, Source, UserId};
use ledger_core::value::time::Time;
use platform::pg::columns::undecodable;
use platform::pg::{credits_of, time_of};
use platform::position::{AtLeast, Position};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::{FromRow, PgConnection};
use web::http::{Path, Problem, Query};
use web::openapi::{Route, get};

use crate::access::Seen;
use crate::answer::{self, Answer};
use crate::app::App;
use crate::reading::{self, Account};

/// Most later records of the same id that an answer names.
const REPEATS_MAX: i64 = 20;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct EventPath {
    event_id: EventId,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventQuery {
    /// The producer, where several have sent this id.
    source: Option<Source>,
    at_least: Option<AtLeast>,
}

/// The first record of an id.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Event")]
struct EventView {
    #[schemars(with = "AccountId")]
    account_id: String,
    #[schemars(with = "EventId")]
    event_id: String,
    #[schemars(with = "Source")]
    source: String,
    #[serde(rename = "type")]
    event_type: String,
    /// Its own position, not the read's.
    position: Position,
    #[schemars(with = "Outcome")]
    outcome: String,
    #[schemars(with = "Option<Reason>")]
    reason: Option<String>,
    /// The usage that had charged this call before, by its id and source.
    #[schemars(with = "Option<EventId>")]
    duplicate_of: Option<String>,
    #[schemars(with = "Option<Source>")]
    duplicate_of_source: Option<String>,
    /// What the provider calls the call.
    #[schemars(with = "Option<CallId>")]
    call_id: Option<String>,
    /// Usage: what was charged.
    credits: Option<Credits>,
    #[schemars(with = "Option<UserId>")]
    user_id: Option<String>,
    #[schemars(with = "Option<MessageId>")]
    message_id: Option<String>,
    /// Usage: the hold that it ended.
    #[schemars(with = "Option<ReservationId>")]
    reservation_id: Option<String>,
    /// What that hold held.
    held: Option<Credits>,
    /// What was charged beyond that.
    over_hold: Option<Credits>,
    occurred_at: Time,
    /// Ledger time of the record.
    recorded_at: Time,
    #[schemars(with = "Option<Label>")]
    actor: Option<String>,
    /// Price lines; none where credits were given.
    #[schemars(with = "Vec<Line>")]
    lines: Box<RawValue>,
    /// Lots touched, signed.
    #[schemars(with = "Vec<LotChange>")]
    lots: Box<RawValue>,
    /// What lots could not cover.
    overdraft: Credits,
    /// When it was reversed.
    reversed_at: Option<Time>,
    /// Later records of the same id, which had no effect.
    repeats: Vec<Repeat>,
}

#[derive(Serialize, JsonSchema)]
struct Repeat {
    position: Position,
    #[schemars(with = "Outcome")]
    outcome: String,
    recorded_at: Time,
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/events/{event_id}", one)
            .named("getEvent", "Returns what became of an event, what it cost and which lots paid.")
            .says(
                "`position` and `recorded_at` are the record's own; the headers say what the read reflects.",
            )
            .refuses(&["event_not_found", "ambiguous_event"]),
    ]
}

/// `GET /v1/accounts/{account}/events/{event_id}`
async fn one(
    State(app): State<App>,
    seen: Seen,
    Path(EventPath { event_id }): Path<EventPath>,
    Query(query): Query<EventQuery>,
) -> Result<Answer<EventView>, Problem> {
    let own = seen.user(None)?;
    let account = seen.account;
    let (reflects, event) = reading::of(&app, account, query.at_least, move |connection, account| {
        Box::pin(load(connection, account, event_id, query.source, own))
    })
    .await?;
    answer::plain(&reflects, event)
}

async fn load(
    connection: &mut PgConnection,
    account: &Account,
    event_id: EventId,
    source: Option<Source>,
    own: Option<String>,
) -> Result<EventView, Problem> {
    let source = match source {
        Some(source) => source.as_str().to_owned(),
        None => only_source(connection, account, &event_id).await?,
    };
    let mut event = match first(connection, account, &event_id, &source).await? {
        Some(event) => event,
        None => refused_only(connection, account, &event_id, &source)
            .await?
            .ok_or_else(|| not_found(&event_id))?,
    };
    if own.is_some() && own != event.user_id {
        return Err(Problem::forbidden());
    }
    event.repeats = repeats(connection, account, &event).await?;
    Ok(event)
}

pub(crate) fn not_found(event_id: &EventId) -> Problem {
    Problem::not_found("event_not_found", format!("event {event_id} does not exist"))
}

/// Returns the source of an id that came from one source alone.
pub(crate) async fn only_source(
    connection: &mut PgConnection,
    account: &Account,
    event_id: &EventId,
) -> Result<String, Problem> {
    let mut sources: Vec<String> = sqlx::query_scalar(
        "select source from event where account_id = $1 and event_id = $2
          union
         select source from refused where account_id = $1 and event_id = $2
          limit 2",
    )
    .bind(account.id())
    .bind(event_id.as_str())
    .fetch_all(connection)
    .await?;
    match (sources.pop(), sources.pop()) {
        (Some(source), None) => Ok(source),
        (None, _) => Err(not_found(event_id)),
        _ => {
            let detail = format!("event {event_id} came from several sources: name one with ?source=");
            Err(Problem::conflicting("ambiguous_event", detail))
        }
    }
}

const EVENT: &str = include_str!("event.sql");

async fn first(
    connection: &mut PgConnection,
    account: &Account,
    event_id: &EventId,
    source: &str,
) -> Result<Option<EventView>, sqlx::Error> {
    let row: Option<EventRow> = sqlx::query_as(EVENT)
        .bind(account.id())
        .bind(event_id.as_str())
        .bind(source)
        .fetch_optional(connection)
        .await?;
    row.map(|row| row.event(account)).transpose()
}

/// An event that came before the opening is not remembered; its record is still shown.
async fn refused_only(
    connection: &mut PgConnection,
    account: &Account,
    event_id: &EventId,
    source: &str,
) -> Result<Option<EventView>, sqlx::Error> {
    let row: Option<EventRow> = sqlx::query_as(
        r#"select "offset", event_id, source, type, outcome, reason, null as credits,
                  null as duplicate_of, null as duplicate_of_source, data->>'call_id' as call_id,
                  data->>'user_id' as user_id, data->>'message_id' as message_id,
                  data->>'reservation_id' as reservation_id, data->>'held' as held, recorded_at as occurred_at,
                  recorded_at, null as actor, null::timestamptz as reversed_at,
                  coalesce(data->>'lines', '[]') as lines, '[]' as lots, '0' as overdraft
             from refused
            where account_id = $1
              and event_id = $2
              and source = $3
            order by "offset"
            limit 1"#,
    )
    .bind(account.id())
    .bind(event_id.as_str())
    .bind(source)
    .fetch_optional(connection)
    .await?;
    row.map(|row| row.event(account)).transpose()
}

/// A row of `event` with what it did to lots, or a row of `refused`.
#[derive(FromRow)]
struct EventRow {
    offset: i64,
    event_id: String,
    source: String,
    r#type: String,
    outcome: String,
    reason: Option<String>,
    duplicate_of: Option<String>,
    duplicate_of_source: Option<String>,
    call_id: Option<String>,
    credits: Option<String>,
    user_id: Option<String>,
    message_id: Option<String>,
    reservation_id: Option<String>,
    held: Option<String>,
    occurred_at: DateTime<Utc>,
    recorded_at: DateTime<Utc>,
    actor: Option<String>,
    reversed_at: Option<DateTime<Utc>>,
    /// JSON.
    lines: String,
    /// JSON.
    lots: String,
    overdraft: String,
}

impl EventRow {
    fn event(self, account: &Account) -> Result<EventView, sqlx::Error> {
        let credits = self.credits.as_deref().map(credits_of).transpose()?;
        let held = self.held.as_deref().map(credits_of).transpose()?;
        Ok(EventView {
            account_id: account.id().to_owned(),
            event_id: self.event_id,
            source: self.source,
            event_type: self.r#type,
            position: Position { partition: account.position.partition, offset: self.offset },
            outcome: self.outcome,
            reason: self.reason,
            duplicate_of: self.duplicate_of,
            duplicate_of_source: self.duplicate_of_source,
            call_id: self.call_id,
            credits,
            user_id: self.user_id,
            message_id: self.message_id,
            reservation_id: self.reservation_id,
            held,
            over_hold: credits.zip(held).map(|(credits, held)| over_hold(credits, held)),
            occurred_at: time_of(self.occurred_at),
            recorded_at: time_of(self.recorded_at),
            actor: self.actor,
            lines: RawValue::from_string(self.lines).map_err(undecodable)?,
            lots: RawValue::from_string(self.lots).map_err(undecodable)?,
            overdraft: credits_of(&self.overdraft)?,
            reversed_at: self.reversed_at.map(time_of),
            repeats: Vec::new(),
        })
    }
}

/// A row of `refused`: a later record of an id.
#[derive(FromRow)]
struct RepeatRow {
    offset: i64,
    outcome: String,
    recorded_at: DateTime<Utc>,
}

async fn repeats(
    connection: &mut PgConnection,
    account: &Account,
    event: &EventView,
) -> Result<Vec<Repeat>, sqlx::Error> {
    let rows: Vec<RepeatRow> = sqlx::query_as(
        r#"select "offset", outcome, recorded_at
             from refused
            where account_id = $1
              and event_id = $2
              and source = $3
              and "offset" <> $4
            order by "offset"
            limit $5"#,
    )
    .bind(account.id())
    .bind(&event.event_id)
    .bind(&event.source)
    .bind(event.position.offset)
    .bind(REPEATS_MAX)
    .fetch_all(connection)
    .await?;
    let partition = account.position.partition;
    Ok(rows
        .into_iter()
        .map(|row| Repeat {
            position: Position { partition, offset: row.offset },
            outcome: row.outcome,
            recorded_at: time_of(row.recorded_at),
        })
        .collect())
}
