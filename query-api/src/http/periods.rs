//! Periods: what each billing period came to, newest first, the open one on top.

use std::collections::BTreeMap;

use axum::extract::State;
use chrono::{DateTime, Utc};
use ledger_core::value::credits::Credits;
use ledger_core::value::schema::Amounts;
use ledger_core::value::time::Time;
use platform::pg::{credits_of, time_of};
use platform::position::AtLeast;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection};
use web::http::{Problem, Query};
use web::openapi::{Route, get};

use crate::access::Whole;
use crate::answer::{self, Answer, Now};
use crate::app::App;
use crate::list::{self, Limit, Page};
use crate::reading::{self, Account};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PeriodsQuery {
    #[serde(default)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    at_least: Option<AtLeast>,
}

/// Figures of a period; so far, where it is open.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PeriodFigures")]
struct PeriodView {
    index: i64,
    starts_at: Time,
    ends_at: Time,
    /// Usage less its reversals within the period.
    used: Credits,
    /// The same by category; usage without one is under "".
    #[schemars(with = "Amounts")]
    by_category: BTreeMap<String, Credits>,
    /// Every lot that started in it.
    granted: Credits,
    /// What expired in it or at its end.
    expired: Credits,
    /// What went on into the next.
    rolled_over: Credits,
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/periods", list)
            .named("listPeriods", "Lists what each billing period came to, newest first.")
            .says("The open period is on top, with its figures so far."),
    ]
}

/// `GET /v1/accounts/{account}/periods`
async fn list(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<PeriodsQuery>,
) -> Result<Answer<Now<Page<PeriodView>>>, Problem> {
    let before: Option<i64> = list::decode(query.cursor.as_deref())?;
    let limit = query.limit;
    let (reflects, page) = reading::of(&app, account, query.at_least, move |connection, account| {
        Box::pin(load(connection, account, before, limit))
    })
    .await?;
    answer::object(&reflects, page)
}

async fn load(
    connection: &mut PgConnection,
    account: &Account,
    before: Option<i64>,
    limit: Limit,
) -> Result<Page<PeriodView>, Problem> {
    let mut periods = Vec::new();
    if before.is_none_or(|before| account.core.period.index < before) {
        periods.push(open(account));
    }
    periods.extend(closed(connection, account, before, limit).await?);
    let mut page = Page::cut(periods, limit, |period| period.index);
    add_categories(connection, account, &mut page.items).await?;
    Ok(page)
}

fn open(account: &Account) -> PeriodView {
    let (period, figures) = (account.core.period, &account.core.figures);
    PeriodView {
        index: period.index,
        starts_at: period.starts_at,
        ends_at: period.ends_at,
        used: figures.used,
        by_category: BTreeMap::new(),
        granted: figures.granted,
        expired: figures.expired,
        rolled_over: Credits::ZERO,
    }
}

/// A row of `period`.
#[derive(FromRow)]
struct PeriodRow {
    index: i64,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    used: String,
    granted: String,
    expired: String,
    rolled_over: String,
}

impl TryFrom<PeriodRow> for PeriodView {
    type Error = sqlx::Error;

    fn try_from(row: PeriodRow) -> Result<PeriodView, sqlx::Error> {
        Ok(PeriodView {
            index: row.index,
            starts_at: time_of(row.starts_at),
            ends_at: time_of(row.ends_at),
            used: credits_of(&row.used)?,
            by_category: BTreeMap::new(),
            granted: credits_of(&row.granted)?,
            expired: credits_of(&row.expired)?,
            rolled_over: credits_of(&row.rolled_over)?,
        })
    }
}

async fn closed(
    connection: &mut PgConnection,
    account: &Account,
    before: Option<i64>,
    limit: Limit,
) -> Result<Vec<PeriodView>, sqlx::Error> {
    let rows: Vec<PeriodRow> = sqlx::query_as(
        "select index, starts_at, ends_at, used::text, granted::text, expired::text, rolled_over::text
           from period
          where account_id = $1
            and index < $2
          order by index desc
          limit $3",
    )
    .bind(account.id())
    .bind(before.unwrap_or(i64::MAX))
    .bind(limit.rows_to_ask())
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(PeriodView::try_from).collect()
}

/// A row of `category_usage`.
#[derive(FromRow)]
struct CategoryRow {
    period_index: i64,
    category: String,
    credits: String,
}

async fn add_categories(
    connection: &mut PgConnection,
    account: &Account,
    periods: &mut [PeriodView],
) -> Result<(), sqlx::Error> {
    let indexes: Vec<i64> = periods.iter().map(|period| period.index).collect();
    let rows: Vec<CategoryRow> = sqlx::query_as(
        "select period_index, category, credits::text
           from category_usage
          where account_id = $1
            and period_index = any($2)
            and events > 0",
    )
    .bind(account.id())
    .bind(indexes)
    .fetch_all(connection)
    .await?;
    for row in rows {
        if let Some(period) = periods.iter_mut().find(|period| period.index == row.period_index) {
            period.by_category.insert(row.category, credits_of(&row.credits)?);
        }
    }
    Ok(())
}
