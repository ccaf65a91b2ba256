//! Entries: the lines of an account's ledger, newest first.

use axum::extract::State;
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use ledger_core::fold::{EntryType, LotChange};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::EventId;
use ledger_core::value::time::Time;
use platform::pg::columns::undecodable;
use platform::pg::{credits_of, time_of};
use platform::position::{AtLeast, Position};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use web::http::{Problem, Query};
use web::openapi::{Route, get};

use crate::access::Whole;
use crate::answer::{self, Answer, Format, Now, Record};
use crate::app::App;
use crate::list::{self, Limit, Page};
use crate::reading::{self, Account};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntriesQuery {
    /// Only lines of this type.
    #[serde(rename = "type")]
    entry_type: Option<EntryType>,
    #[serde(default)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    at_least: Option<AtLeast>,
}

/// One line of an account's ledger.
#[derive(Serialize, JsonSchema)]
struct Entry {
    entry_id: String,
    #[serde(rename = "type")]
    #[schemars(with = "EntryType")]
    entry_type: String,
    amount: Credits,
    balance_after: Credits,
    credit_balance_after: Credits,
    #[schemars(with = "EventId")]
    event_id: String,
    recorded_at: Time,
    occurred_at: Time,
    #[schemars(with = "Vec<LotChange>")]
    lots: Box<RawValue>,
    #[serde(skip)]
    cursor: Cursor,
}

/// Log offset of the event being folded when it was booked, and order within it.
type Cursor = (i64, i32);

const HEADER: [&str; 9] = [
    "entry_id",
    "type",
    "amount",
    "balance_after",
    "credit_balance_after",
    "event_id",
    "recorded_at",
    "occurred_at",
    "lots",
];

impl Record for Entry {
    fn values(&self) -> Vec<String> {
        vec![
            self.entry_id.clone(),
            self.entry_type.clone(),
            self.amount.to_string(),
            self.balance_after.to_string(),
            self.credit_balance_after.to_string(),
            self.event_id.clone(),
            self.recorded_at.to_string(),
            self.occurred_at.to_string(),
            flat_lots(&self.lots),
        ]
    }
}

/// Writes lots as `g1=-5 plan:2=-1`.
fn flat_lots(lots: &RawValue) -> String {
    #[derive(Deserialize)]
    struct Change {
        grant_id: String,
        amount: String,
    }
    let changes: Vec<Change> = serde_json::from_str(lots.get()).unwrap_or_default();
    let flat: Vec<String> =
        changes.iter().map(|change| format!("{}={}", change.grant_id, change.amount)).collect();
    flat.join(" ")
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/entries", list)
            .named("listEntries", "Lists the lines of the account's ledger, newest first.")
            .says("Answers with CSV if `Accept` prefers `text/csv`."),
        answer::csv(get("/v1/accounts/{account}/entries.csv", list))
            .named("exportEntries", "Lists the lines of the account's ledger as CSV, newest first.")
            .says("The lots of a line read `g1=-5 plan:2=-1`."),
    ]
}

/// `GET /v1/accounts/{account}/entries`
async fn list(
    State(app): State<App>,
    Whole(account): Whole,
    headers: HeaderMap,
    Query(query): Query<EntriesQuery>,
) -> Result<Answer<Now<Page<Entry>>>, Problem> {
    let format = Format::of(&headers);
    let before: Option<Cursor> = list::decode(query.cursor.as_deref())?;
    let (entry_type, limit) = (query.entry_type, query.limit);
    let (reflects, page) = reading::of(&app, account, query.at_least, move |connection, account| {
        Box::pin(load(connection, account, entry_type, before, limit))
    })
    .await?;
    answer::page(&reflects, &format, &HEADER, page)
}

async fn load(
    connection: &mut PgConnection,
    account: &Account,
    entry_type: Option<EntryType>,
    before: Option<Cursor>,
    limit: Limit,
) -> Result<Page<Entry>, Problem> {
    let (offset, seq) = before.unwrap_or((i64::MAX, i32::MAX));
    let rows: Vec<EntryRow> = sqlx::query_as(AssertSqlSafe(statement(entry_type, limit)))
        .bind(account.id())
        .bind(offset)
        .bind(seq)
        .fetch_all(connection)
        .await?;
    let partition = account.position.partition;
    let entries: Result<Vec<Entry>, sqlx::Error> = rows.into_iter().map(|row| row.entry(partition)).collect();
    Ok(Page::cut(entries?, limit, |entry| entry.cursor))
}

/// Usage is in the events, every other line in the entries: each gives a page in the order of its key, and the
/// newest of both are the page. A type is written into the statement, so that the plan knows how rare it is.
fn statement(entry_type: Option<EntryType>, limit: Limit) -> String {
    let rows = limit.rows_to_ask();
    let of_type = match &entry_type {
        Some(wanted) => format!("and type = '{}'", wanted.as_str()),
        None => String::new(),
    };
    let of_entries = format!(
        r#"(select "offset", seq, type, amount::text, balance_after::text, credit_balance_after::text,
                   event_id, recorded_at, occurred_at, lots::text
              from entry
             where account_id = $1
               and ("offset", seq) < ($2, $3)
               {of_type}
             order by "offset" desc, seq desc
             limit {rows})"#
    );
    let of_usage = format!(
        r#"(select "offset", entry_seq as seq, 'consumed' as type, (-credits)::text as amount, balance_after::text,
                   credit_balance_after::text, event_id, ledger_time as recorded_at, occurred_at,
                   coalesce(lots::text, '[]') as lots
              from event
             where account_id = $1
               and ("offset", entry_seq) < ($2, $3)
               and entry_seq is not null
             order by "offset" desc, entry_seq desc
             limit {rows})"#
    );
    match entry_type {
        Some(EntryType::Consumed) => of_usage,
        Some(_) => of_entries,
        None => format!(
            r#"select * from ({of_entries} union all {of_usage}) as both_tables
                order by "offset" desc, seq desc
                limit {rows}"#
        ),
    }
}

/// A row of `entry`, or the line of a usage from its row of `event`.
#[derive(FromRow)]
struct EntryRow {
    offset: i64,
    seq: i32,
    r#type: String,
    amount: String,
    balance_after: String,
    credit_balance_after: String,
    event_id: String,
    recorded_at: DateTime<Utc>,
    occurred_at: DateTime<Utc>,
    /// JSON.
    lots: String,
}

impl EntryRow {
    fn entry(self, partition: i32) -> Result<Entry, sqlx::Error> {
        let (offset, seq) = (self.offset, self.seq);
        Ok(Entry {
            entry_id: format!("{}:{seq}", Position { partition, offset }),
            entry_type: self.r#type,
            amount: credits_of(&self.amount)?,
            balance_after: credits_of(&self.balance_after)?,
            credit_balance_after: credits_of(&self.credit_balance_after)?,
            event_id: self.event_id,
            recorded_at: time_of(self.recorded_at),
            occurred_at: time_of(self.occurred_at),
            lots: RawValue::from_string(self.lots).map_err(undecodable)?,
            cursor: (offset, seq),
        })
    }
}

#[cfg(test)]
mod tests {
    use ledger_core::fold;

    use super::*;

    #[test]
    fn every_type_that_the_fold_books_can_be_asked_for() {
        use fold::EntryType as Folded;
        let all = [
            Folded::Granted,
            Folded::Purchased,
            Folded::ToppedUp,
            Folded::Consumed,
            Folded::Reversed,
            Folded::Expired,
            Folded::RolledOut,
            Folded::RolledIn,
            Folded::Refunded,
            Folded::Voided,
            Folded::Adjusted,
        ];
        for folded in all {
            let name = format!("\"{}\"", folded.as_str());
            let asked: EntryType = serde_json::from_str(&name).expect("a type of the contract");
            assert_eq!(asked, folded);
            assert_eq!(asked.as_str(), folded.as_str());
        }
    }

    #[test]
    fn lots_are_flattened_for_spreadsheets() {
        let lots = r#"[{"grant_id":"g1","source":"promo","amount":"-5"},{"grant_id":"plan:2","source":"plan","amount":"-1"}]"#;
        let lots = RawValue::from_string(lots.into()).expect("json");
        assert_eq!(flat_lots(&lots), "g1=-5 plan:2=-1");
    }
}
