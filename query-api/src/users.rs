//! Users: what each has used in the open period.

use axum::extract::State as Shared;
use axum::http::HeaderMap;
use axum::response::Response;
use ledger_core::credits::Credits;
use runtime::http::{Problem, Query};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::State;
use crate::access::Seen;
use crate::answer::{self, Format, Record};
use crate::columns;
use crate::list::{self, AtLeast, Limit, Page};
use crate::reading::{self, Account};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsersQuery {
    #[serde(default)]
    over_budget: bool,
    #[serde(default)]
    limit: Limit,
    cursor: Option<String>,
    at_least: Option<AtLeast>,
}

/// A user with usage in the open period.
#[derive(Debug, Serialize)]
struct User {
    user_id: String,
    /// Usage of the period less its reversals.
    used: Credits,
    /// What of it counts toward limits.
    counted: Credits,
    /// Open holds.
    held: Credits,
    /// None where no limit applies.
    limit: Option<Credits>,
    /// Whether counted usage has reached the limit.
    blocked: bool,
}

const HEADER: [&str; 6] = ["user_id", "used", "counted", "held", "limit", "blocked"];

impl Record for User {
    fn values(&self) -> Vec<String> {
        vec![
            self.user_id.clone(),
            self.used.to_string(),
            self.counted.to_string(),
            self.held.to_string(),
            self.limit.map(|limit| limit.to_string()).unwrap_or_default(),
            self.blocked.to_string(),
        ]
    }
}

/// `GET /v1/accounts/{account}/users`
pub(crate) async fn list(
    Shared(state): Shared<State>,
    seen: Seen,
    headers: HeaderMap,
    Query(query): Query<UsersQuery>,
) -> Result<Response, Problem> {
    let format = Format::of(&headers);
    let only = seen.user(None)?;
    let after: Option<String> = list::decode(query.cursor.as_deref())?;
    let (over_budget, limit) = (query.over_budget, query.limit);
    let (reflects, page) = reading::of(&state, seen.account, query.at_least, move |connection, account| {
        Box::pin(async move {
            if over_budget {
                // Over budget is counted >= limit, and no account has limits yet.
                return Ok(Page { items: Vec::new(), next_cursor: None });
            }
            load(connection, account, only, after, limit).await
        })
    })
    .await?;
    answer::page(&reflects, &format, &HEADER, page)
}

async fn load(
    connection: &mut PgConnection,
    account: &Account,
    only: Option<String>,
    after: Option<String>,
    limit: Limit,
) -> Result<Page<User>, Problem> {
    // A condition only where it is needed: then every plan can use the key's order, or find the one user by it.
    let of_user = if only.is_some() { "and user_id = $4" } else { "and $4::text is null" };
    // A user whose usage was all reversed has no usage in the period.
    let sql = format!(
        "select user_id, sum(used)::text as used
           from user_usage
          where account_id = $1
            and period_index = $2
            and user_id > $3
            {of_user}
          group by user_id
         having sum(events) > 0
          order by user_id
          limit {}",
        limit.rows_to_ask()
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(account.id())
        .bind(account.core.period.index)
        .bind(after.unwrap_or_default())
        .bind(only)
        .fetch_all(connection)
        .await?;
    let users: Result<Vec<User>, sqlx::Error> = rows.iter().map(user_of).collect();
    Ok(Page::cut(users?, limit, |user| user.user_id.clone()))
}

fn user_of(row: &sqlx::postgres::PgRow) -> Result<User, sqlx::Error> {
    let used = columns::amount(row, "used")?;
    Ok(User {
        user_id: row.try_get("user_id")?,
        used,
        // No feature is excluded and no hold exists before limits and holds do.
        counted: used,
        held: Credits::ZERO,
        limit: None,
        blocked: false,
    })
}
