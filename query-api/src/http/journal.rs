//! Journal: the records of one account as they stand in the journal, newest first.

use axum::extract::State;
use chrono::{DateTime, Utc};
use ledger_core::fold::{Outcome, Reason};
use ledger_core::value::id::{EventId, Label, Source};
use ledger_core::value::schema::EventData;
use ledger_core::value::time::Time;
use platform::pg::columns::undecodable;
use platform::pg::{time_of, timestamp};
use platform::position::{AtLeast, Position};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use web::http::{Problem, Query};
use web::openapi::{Route, get};

use crate::access::Whole;
use crate::answer::{self, Answer, Now};
use crate::app::App;
use crate::list::{self, Limit, Page};
use crate::reading::{self, Account};

/// Records that one page looks at: a rare type among a million others must not cost a scan of all.
const SCANNED_MAX: i64 = 20_000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsQuery {
    /// Only events of this type, such as `ledger.credits.granted.v1`.
    #[serde(rename = "type")]
    event_type: Option<String>,
    /// Only records at this offset of the account's partition, or before it.
    up_to: Option<i64>,
    /// Only events at this ledger time or later.
    from: Option<Time>,
    /// Only events before this ledger time.
    to: Option<Time>,
    #[serde(default)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    at_least: Option<AtLeast>,
}

/// A record of the journal, and what became of it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "JournalEvent")]
struct Recorded {
    /// Its own position, not the read's.
    position: Position,
    #[schemars(with = "EventId")]
    event_id: String,
    #[schemars(with = "Source")]
    source: String,
    #[serde(rename = "type")]
    event_type: String,
    #[schemars(with = "Outcome")]
    outcome: String,
    #[schemars(with = "Option<Reason>")]
    reason: Option<String>,
    /// Who wrote it; null where a record had no effect.
    #[schemars(with = "Option<Label>")]
    actor: Option<String>,
    /// Null where a record had no effect.
    occurred_at: Option<Time>,
    /// Ledger time of the record.
    recorded_at: Time,
    /// The event's data as in the journal.
    #[schemars(with = "EventData")]
    data: Box<RawValue>,
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/events", list)
            .named("listEvents", "Lists the account's records of the journal with what became of them, newest first.")
            .says(
                "Also those that had no effect: duplicates, conflicts and refused ones. A page looks at 20,000 records at \
                 most, so with a filter it may have fewer than its limit, or none, and still a `next_cursor`.",
            ),
    ]
}

/// `GET /v1/accounts/{account}/events`
async fn list(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<EventsQuery>,
) -> Result<Answer<Now<Page<Recorded>>>, Problem> {
    let before: Option<i64> = list::decode(query.cursor.as_deref())?;
    let at_least = query.at_least;
    let (reflects, page) = reading::of(&app, account, at_least, move |connection, account| {
        Box::pin(async move { load(connection, account, query, before).await })
    })
    .await?;
    answer::object(&reflects, page)
}

/// Records are in one of two tables, each in the order of the journal. Ledger time has that order too.
fn statement(limit: Limit) -> String {
    let part = |table: &str, columns: &str, time: &str| {
        format!(
            r#"(select "offset", event_id, source, type, outcome, reason, data, {columns}, {time} as recorded_at
                  from {table}
                 where account_id = $1
                   and "offset" < $2
                   and ($3::timestamptz is null or {time} < $3)
                 order by "offset" desc
                 limit {SCANNED_MAX})"#
        )
    };
    let events = part("event", "actor, occurred_at", "ledger_time");
    let refused = part("refused", "null as actor, null::timestamptz as occurred_at", "recorded_at");
    format!(
        r#"with scanned as (
               select * from ({events} union all {refused}) as both_tables order by "offset" desc limit {SCANNED_MAX}
           ),
           found as (
               select * from scanned
                where ($4::timestamptz is null or recorded_at >= $4)
                  and ($5::text is null or type = $5)
                order by "offset" desc
                limit {rows}
           ),
           -- Where the next page goes on if this one is not full.
           scan as (select count(*) as scanned, min("offset") as last, min(recorded_at) as since from scanned)
           select "offset", event_id, source, type, outcome, reason, data::text, actor, occurred_at, recorded_at,
                  scan.scanned, scan.last, scan.since
             from scan
             left join found on true
            order by "offset" desc"#,
        rows = limit.rows_to_ask()
    )
}

async fn load(
    connection: &mut PgConnection,
    account: &Account,
    query: EventsQuery,
    before: Option<i64>,
) -> Result<Page<Recorded>, Problem> {
    let (from, up_to) = (query.from, query.up_to.map(|offset| offset.saturating_add(1)));
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(statement(query.limit)))
        .bind(account.id())
        .bind(before.into_iter().chain(up_to).min().unwrap_or(i64::MAX))
        .bind(query.to.map(timestamp))
        .bind(from.map(timestamp))
        .bind(query.event_type)
        .fetch_all(connection)
        .await?;
    let unseen = rows.first().and_then(|row| row.unseen(from));
    let partition = account.position.partition;
    let found = rows.into_iter().filter_map(|row| row.recorded(partition).transpose());
    let page = Page::cut(found.collect::<Result<Vec<_>, _>>()?, query.limit, |one| one.position.offset);
    Ok(page.or_after(unseen))
}

/// A record that was found, or none, beside how far the page has looked.
#[derive(FromRow)]
struct Row {
    offset: Option<i64>,
    event_id: Option<String>,
    source: Option<String>,
    r#type: Option<String>,
    outcome: Option<String>,
    reason: Option<String>,
    /// JSON.
    data: Option<String>,
    actor: Option<String>,
    occurred_at: Option<DateTime<Utc>>,
    recorded_at: Option<DateTime<Utc>>,
    scanned: i64,
    last: Option<i64>,
    since: Option<DateTime<Utc>>,
}

impl Row {
    /// Returns the last record that was looked at, if older ones may fit.
    fn unseen(&self, from: Option<Time>) -> Option<i64> {
        let is_before = self.since.zip(from).is_some_and(|(since, from)| time_of(since) < from);
        self.last.filter(|_| self.scanned == SCANNED_MAX && !is_before)
    }

    fn recorded(self, partition: i32) -> Result<Option<Recorded>, sqlx::Error> {
        let Row { offset: Some(offset), recorded_at: Some(recorded_at), .. } = self else { return Ok(None) };
        Ok(Some(Recorded {
            position: Position { partition, offset },
            event_id: self.event_id.unwrap_or_default(),
            source: self.source.unwrap_or_default(),
            event_type: self.r#type.unwrap_or_default(),
            outcome: self.outcome.unwrap_or_default(),
            reason: self.reason,
            actor: self.actor,
            occurred_at: self.occurred_at.map(time_of),
            recorded_at: time_of(recorded_at),
            data: RawValue::from_string(self.data.unwrap_or_default()).map_err(undecodable)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(scanned: i64, last: Option<i64>, since: Option<&str>) -> Row {
        let since = since.map(|since| since.parse::<Time>().map(timestamp).expect("a time"));
        Row {
            offset: None,
            event_id: None,
            source: None,
            r#type: None,
            outcome: None,
            reason: None,
            data: None,
            actor: None,
            occurred_at: None,
            recorded_at: None,
            scanned,
            last,
            since,
        }
    }

    #[test]
    fn a_page_goes_on_where_it_stopped_looking() {
        let from = |text: &str| Some(text.parse::<Time>().expect("a time"));
        let since = Some("2026-01-05T00:00:00Z");
        assert_eq!(row(SCANNED_MAX, Some(7), since).unseen(None), Some(7));
        assert_eq!(row(SCANNED_MAX, Some(7), since).unseen(from("2026-01-04T00:00:00Z")), Some(7));
        // All before that is too old.
        assert_eq!(row(SCANNED_MAX, Some(7), since).unseen(from("2026-01-06T00:00:00Z")), None);
        // The account's first record was looked at.
        assert_eq!(row(SCANNED_MAX - 1, Some(7), since).unseen(None), None);
        assert_eq!(row(0, None, None).unseen(None), None);
    }
}
