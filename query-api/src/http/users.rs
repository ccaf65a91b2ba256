//! Users: each user's usage in the open period, and the part that counts toward a limit.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use engine::tables::commitments;
use ledger_core::account::limit::Limits;
use ledger_core::policy::hold::UserFigures;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::UserId;
use platform::pg::Amount;
use platform::pg::columns;
use platform::position::AtLeast;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use web::http::{Problem, Query};

use crate::access::Seen;
use crate::answer::{self, Format, Record};
use crate::app::App;
use crate::list::{self, Limit, Page};
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

/// A user with usage in the open period, or with open holds.
#[derive(Debug, Serialize)]
struct User {
    user_id: String,
    /// Usage of the period minus its reversals.
    used: Credits,
    /// The part that counts toward limits.
    counted: Credits,
    held: Credits,
    /// None if no limit applies.
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
    State(app): State<App>,
    seen: Seen,
    headers: HeaderMap,
    Query(query): Query<UsersQuery>,
) -> Result<Response, Problem> {
    let format = Format::of(&headers);
    let only = seen.user(None)?;
    let after: Option<String> = list::decode(query.cursor.as_deref())?;
    let (over_budget, limit) = (query.over_budget, query.limit);
    let (reflects, page) = reading::of(&app, seen.account, query.at_least, move |connection, account| {
        let wanted = Wanted { only, over_budget, after, limit };
        Box::pin(async move { load(connection, account, wanted).await })
    })
    .await?;
    answer::page(&reflects, &format, &HEADER, page)
}

struct Wanted {
    only: Option<String>,
    over_budget: bool,
    after: Option<String>,
    limit: Limit,
}

/// Limits in the form that statements compare; empty if limits are off.
#[derive(Default)]
struct InForce {
    default_limit: Option<Amount>,
    excluded_features: Vec<String>,
    /// Limits of single users; null is no limit.
    custom: BTreeMap<String, Option<Credits>>,
}

impl InForce {
    /// Exclusions define what counts even if limits are off.
    fn of(limits: Option<&Limits>) -> Self {
        let Some(limits) = limits else { return Self::default() };
        let excluded_features = limits.excluded_features.iter().map(ToString::to_string).collect();
        if !limits.enabled {
            return Self { excluded_features, ..Self::default() };
        }
        let custom = limits.custom.iter().map(|(user, limit)| (user.to_string(), limit.amount())).collect();
        Self { default_limit: limits.default_limit.map(Amount), excluded_features, custom }
    }

    fn limit_of(&self, user: &str) -> Option<Credits> {
        self.custom.get(user).copied().unwrap_or_else(|| self.default_limit.map(|Amount(limit)| limit))
    }

    /// Returns the users to read; none for everyone. Without a default limit only users with a limit of their own can
    /// be over budget, so no other usage is read.
    fn candidates(&self, wanted: &Wanted) -> Option<Vec<String>> {
        let only = wanted.only.as_ref();
        if !wanted.over_budget || self.default_limit.is_some() {
            return only.map(|user| vec![user.clone()]);
        }
        let limited = self.custom.iter().filter(|(_, limit)| limit.is_some()).map(|(user, _)| user);
        Some(limited.filter(|user| only.is_none_or(|only| only == *user)).cloned().collect())
    }
}

async fn load(
    connection: &mut PgConnection,
    account: &Account,
    wanted: Wanted,
) -> Result<Page<User>, Problem> {
    let limits = InForce::of(account.core.limits.as_ref());
    let candidates = limits.candidates(&wanted);
    let rows = sqlx::query(AssertSqlSafe(statement(&wanted, candidates.is_some())))
        .bind(account.id())
        .bind(account.core.period.index)
        .bind(wanted.after.as_deref().unwrap_or_default())
        .bind(candidates)
        .bind(&limits.excluded_features)
        .bind(limits.default_limit)
        .bind(Json(&limits.custom))
        .fetch_all(&mut *connection)
        .await?;
    let mut users = rows.iter().map(user_of).collect::<Result<Vec<User>, sqlx::Error>>()?;
    let mut holders = BTreeSet::new();
    if !wanted.over_budget {
        holders = add_holders(connection, account, &limits, &wanted, &mut users).await?;
    }
    let mut page = Page::cut(users, wanted.limit, |user| user.user_id.clone());
    note_held(connection, account, &mut page.items).await?;
    // A user whose holds have expired holds nothing, although the sums may still include them.
    page.items.retain(|user| user.held.is_positive() || !holders.contains(&user.user_id));
    Ok(page)
}

/// Adds users in the same range of ids who hold credits and have no usage yet, and returns them.
async fn add_holders(
    connection: &mut PgConnection,
    account: &Account,
    limits: &InForce,
    wanted: &Wanted,
    users: &mut Vec<User>,
) -> Result<BTreeSet<String>, sqlx::Error> {
    let (after, only) = (wanted.after.as_deref().unwrap_or_default(), wanted.only.as_deref());
    let sql = match only {
        Some(_) => next_holder("$2", "and user_id = $3"),
        None => format!(
            "with recursive holder as (
                 ({})
                 union all
                 select next.user_id
                   from holder
                   cross join lateral ({}) as next
             )
             select user_id
               from holder
              where $3::text is null
              limit {}",
            next_holder("$2", ""),
            next_holder("holder.user_id", ""),
            wanted.limit.rows_to_ask()
        ),
    };
    let holders: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(account.id())
        .bind(after)
        .bind(only)
        .fetch_all(connection)
        .await?;
    let mut added = BTreeSet::new();
    for user_id in holders {
        if let Err(place) = users.binary_search_by(|user| user.user_id.cmp(&user_id)) {
            let limit = limits.limit_of(&user_id);
            let blocked = limit.is_some_and(|limit| limit <= Credits::ZERO);
            let (used, counted, held) = (Credits::ZERO, Credits::ZERO, Credits::ZERO);
            added.insert(user_id.clone());
            users.insert(place, User { user_id, used, counted, held, limit, blocked });
        }
    }
    users.truncate(usize::try_from(wanted.limit.rows_to_ask()).unwrap_or(usize::MAX));
    Ok(added)
}

/// Steps from one user to the next by the key, however many holds each has.
fn next_holder(after: &str, only: &str) -> String {
    format!(
        "select user_id
           from control.user_hold
          where account_id = $1
            and user_id > {after}
            and held <> 0
            {only}
          order by account_id, user_id
          limit 1"
    )
}

/// Sets the total of each user's open holds.
async fn note_held(
    connection: &mut PgConnection,
    account: &Account,
    users: &mut [User],
) -> Result<(), Problem> {
    let ids: Result<Vec<UserId>, sqlx::Error> =
        users.iter().map(|user| columns::parsed(&user.user_id)).collect();
    let (_, figures) = commitments::held(connection, &account.core.account, ids?).await?;
    for user in users {
        let held = figures.get(user.user_id.as_str()).map(UserFigures::all_held);
        user.held = held.unwrap_or_default();
    }
    Ok(())
}

/// Returns the query. A condition is present only if it is needed, so that the planner can use the key's order or find
/// the few users by it.
///
fn statement(wanted: &Wanted, of_candidates: bool) -> String {
    let candidates = if of_candidates { "and user_id = any($4)" } else { "and $4::text[] is null" };
    let over_budget = if wanted.over_budget { "where counted >= max" } else { "" };
    format!(
        "with used as (
             select user_id, sum(used) as used,
                    coalesce(sum(used) filter (where feature <> all($5)), 0) as counted
               from user_usage
              where account_id = $1
                and period_index = $2
                and user_id > $3
                {candidates}
              group by user_id
              order by user_id
         ),
         limited as (
             select used.*, case when $7 ? user_id then ($7 ->> user_id)::numeric else $6 end as max
               from used
         )
         select user_id, used::text, counted::text, max::text
           from limited
         {over_budget}
          order by user_id
          limit {}",
        wanted.limit.rows_to_ask()
    )
}

fn user_of(row: &sqlx::postgres::PgRow) -> Result<User, sqlx::Error> {
    let (counted, limit) = (columns::amount(row, "counted")?, columns::optional_amount(row, "max")?);
    Ok(User {
        user_id: row.try_get("user_id")?,
        used: columns::amount(row, "used")?,
        counted,
        held: Credits::ZERO,
        limit,
        blocked: limit.is_some_and(|limit| counted >= limit),
    })
}
