//! Periods: what each billing period came to, newest first, the open one on top.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use ledger_core::value::credits::Credits;
use ledger_core::value::time::Time;
use platform::pg::columns;
use platform::position::AtLeast;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use web::http::{Problem, Query};

use crate::access::Whole;
use crate::answer;
use crate::app::App;
use crate::list::{self, Limit, Page};
use crate::reading::{self, Account};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PeriodsQuery {
    #[serde(default)]
    limit: Limit,
    cursor: Option<String>,
    at_least: Option<AtLeast>,
}

/// Figures of a period; so far, where it is open.
#[derive(Debug, Serialize)]
struct PeriodView {
    index: i64,
    starts_at: Time,
    ends_at: Time,
    /// Usage less its reversals within the period.
    used: Credits,
    /// The same by category; usage without one is under "".
    by_category: BTreeMap<String, Credits>,
    /// Every lot that started in it.
    granted: Credits,
    /// What expired in it or at its end.
    expired: Credits,
    /// What went on into the next.
    rolled_over: Credits,
}

/// `GET /v1/accounts/{account}/periods`
pub(crate) async fn list(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<PeriodsQuery>,
) -> Result<Response, Problem> {
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

async fn closed(
    connection: &mut PgConnection,
    account: &Account,
    before: Option<i64>,
    limit: Limit,
) -> Result<Vec<PeriodView>, sqlx::Error> {
    let rows = sqlx::query(
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
    rows.iter().map(period_of).collect()
}

fn period_of(row: &PgRow) -> Result<PeriodView, sqlx::Error> {
    Ok(PeriodView {
        index: row.try_get("index")?,
        starts_at: columns::time(row, "starts_at")?,
        ends_at: columns::time(row, "ends_at")?,
        used: columns::amount(row, "used")?,
        by_category: BTreeMap::new(),
        granted: columns::amount(row, "granted")?,
        expired: columns::amount(row, "expired")?,
        rolled_over: columns::amount(row, "rolled_over")?,
    })
}

async fn add_categories(
    connection: &mut PgConnection,
    account: &Account,
    periods: &mut [PeriodView],
) -> Result<(), sqlx::Error> {
    let indexes: Vec<i64> = periods.iter().map(|period| period.index).collect();
    let rows = sqlx::query(
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
    for row in &rows {
        let index: i64 = row.try_get("period_index")?;
        if let Some(period) = periods.iter_mut().find(|period| period.index == index) {
            period.by_category.insert(row.try_get("category")?, columns::amount(row, "credits")?);
        }
    }
    Ok(())
}
