//! Messages: the cost of one message, summed over its usage events.

use axum::extract::State;
use ledger_core::event::Line;
use ledger_core::fold::LotChange;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{MessageId, UserId};
use ledger_core::value::time::Time;
use platform::pg::columns;
use platform::position::AtLeast;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use web::http::{Path, Problem, Query};
use web::openapi::{Route, get};

use crate::access::Seen;
use crate::answer::{self, Answer, Now};
use crate::app::App;
use crate::reading::{self, Account};

#[derive(Deserialize, JsonSchema)]
pub(crate) struct MessagePath {
    message_id: MessageId,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageQuery {
    at_least: Option<AtLeast>,
}

/// Sums of a message's usage events that applied and were not reversed.
#[derive(Serialize, JsonSchema)]
struct Message {
    #[schemars(with = "MessageId")]
    message_id: String,
    credits: Credits,
    events: i64,
    /// Reversed events of the message.
    reversed: i64,
    /// Null if the message has events of several users.
    #[schemars(with = "Option<UserId>")]
    user_id: Option<String>,
    /// The time of its first event.
    occurred_at: Time,
    /// Price lines, grouped by their common fields.
    #[schemars(with = "Vec<Line>")]
    lines: Box<RawValue>,
    /// Draws, summed by lot.
    #[schemars(with = "Vec<LotChange>")]
    lots: Box<RawValue>,
    /// The part that lots could not cover.
    overdraft: Credits,
    /// The amount held by the holds that its usage ended; null if it ended none.
    held: Option<Credits>,
    /// The amount charged above those holds.
    over_hold: Option<Credits>,
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/messages/{message_id}", one)
            .named("getMessage", "Returns what a message cost, summed over its usage.")
            .says("Members see a message only if all of its usage is their own.")
            .refuses(&["message_not_found"]),
    ]
}

/// `GET /v1/accounts/{account}/messages/{message_id}`
async fn one(
    State(app): State<App>,
    seen: Seen,
    Path(MessagePath { message_id }): Path<MessagePath>,
    Query(query): Query<MessageQuery>,
) -> Result<Answer<Now<Message>>, Problem> {
    let own = seen.user(None)?;
    let (reflects, message) = reading::of(&app, seen.account, query.at_least, move |connection, account| {
        Box::pin(load(connection, account, message_id, own))
    })
    .await?;
    answer::object(&reflects, message)
}

const MESSAGE: &str = include_str!("message.sql");

async fn load(
    connection: &mut PgConnection,
    account: &Account,
    message_id: MessageId,
    own: Option<String>,
) -> Result<Message, Problem> {
    let row = sqlx::query(MESSAGE)
        .bind(account.id())
        .bind(message_id.as_str())
        .bind(&own)
        .fetch_one(&mut *connection)
        .await?;
    let (records, visible): (i64, i64) = (row.try_get("records")?, row.try_get("visible")?);
    if records == 0 {
        let detail = format!("no usage names message {message_id}");
        return Err(Problem::not_found("message_not_found", detail));
    }
    // A message is one sum: a member sees it only if all of it is their own.
    if own.is_some() && visible < records {
        return Err(Problem::forbidden());
    }
    let lines = lines(connection, account, &message_id).await?;
    let lots = lots(connection, account, &message_id).await?;
    Ok(message_of(&row, &message_id, lines, lots)?)
}

fn message_of(
    row: &PgRow,
    message_id: &MessageId,
    lines: Box<RawValue>,
    lots: Box<RawValue>,
) -> Result<Message, sqlx::Error> {
    Ok(Message {
        message_id: message_id.to_string(),
        credits: columns::amount(row, "credits")?,
        events: row.try_get("events")?,
        reversed: row.try_get("reversed")?,
        user_id: row.try_get("user_id")?,
        occurred_at: columns::time(row, "occurred_at")?,
        lines,
        lots,
        overdraft: columns::amount(row, "overdraft")?,
        held: columns::optional_amount(row, "held")?,
        over_hold: columns::optional_amount(row, "over_hold")?,
    })
}

async fn lines(
    connection: &mut PgConnection,
    account: &Account,
    message_id: &MessageId,
) -> Result<Box<RawValue>, sqlx::Error> {
    let row = sqlx::query(
        "select coalesce(json_agg(summed), '[]')::text as lines
           from (select line->>'quantity' as quantity,
                        trim_scale(sum((line->>'amount')::numeric))::text as amount,
                        line->>'unit_credits' as unit_credits,
                        line->>'per' as per,
                        trim_scale(sum((line->>'credits')::numeric))::text as credits,
                        line->>'rate_card' as rate_card,
                        (line->>'version')::bigint as version
                   from event
                  cross join lateral json_array_elements((data->>'lines')::json) as line
                  where account_id = $1
                    and message_id = $2
                    and outcome = 'applied'
                    and reversed_at is null
                  group by 1, 3, 4, 6, 7
                  order by 1, 6, 7, 3, 4) as summed",
    )
    .bind(account.id())
    .bind(message_id.as_str())
    .fetch_one(connection)
    .await?;
    columns::json(&row, "lines")
}

async fn lots(
    connection: &mut PgConnection,
    account: &Account,
    message_id: &MessageId,
) -> Result<Box<RawValue>, sqlx::Error> {
    let row = sqlx::query(
        "select coalesce(json_agg(summed), '[]')::text as lots
           from (select draw->>'grant_id' as grant_id,
                        draw->>'source' as source,
                        trim_scale(sum((draw->>'amount')::numeric))::text as amount
                   from event
                  cross join lateral json_array_elements(lots) as draw
                  where account_id = $1
                    and message_id = $2
                    and outcome = 'applied'
                    and reversed_at is null
                  group by 1, 2
                  order by 1) as summed",
    )
    .bind(account.id())
    .bind(message_id.as_str())
    .fetch_one(connection)
    .await?;
    columns::json(&row, "lots")
}
