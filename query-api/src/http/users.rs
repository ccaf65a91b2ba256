//! Users: each user's usage in the open period, and the part that counts toward a limit.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use engine::tables::{commitments, user_total};
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
use crate::http::ranking::{Place, Walk, keep_first};
use crate::list::{self, Beginning, Limit, Page};
use crate::reading::{self, Account};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsersQuery {
    #[serde(default)]
    over_budget: bool,
    #[serde(default)]
    sort: Sort,
    q: Option<Beginning>,
    #[serde(default)]
    limit: Limit,
    cursor: Option<String>,
    at_least: Option<AtLeast>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum Sort {
    #[default]
    #[serde(rename = "user")]
    ByUser,
    /// Equal ones by id.
    #[serde(rename = "-used")]
    LargestFirst,
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

impl User {
    fn place(&self) -> Place {
        Place::new(self.used, self.user_id.clone())
    }
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
    let order = Order::read(query.sort, query.cursor.as_deref())?;
    let UsersQuery { over_budget, q, limit, .. } = query;
    let (reflects, page) = reading::of(&app, seen.account, query.at_least, move |connection, account| {
        let wanted = Wanted { only, over_budget, q, order, limit };
        Box::pin(async move { load(connection, account, wanted).await })
    })
    .await?;
    answer::page(&reflects, &format, &HEADER, page)
}

struct Wanted {
    only: Option<String>,
    over_budget: bool,
    q: Option<Beginning>,
    order: Order,
    limit: Limit,
}

/// The order of the list, and the row after which the page begins.
#[derive(Debug, Clone)]
enum Order {
    ByUser(Option<String>),
    LargestFirst(Option<Place>),
}

impl Order {
    fn read(sort: Sort, cursor: Option<&str>) -> Result<Self, Problem> {
        Ok(match sort {
            Sort::ByUser => Self::ByUser(list::decode(cursor)?),
            Sort::LargestFirst => Self::LargestFirst(list::decode(cursor)?),
        })
    }

    /// Returns the user after whom those without usage begin.
    fn after_unused(&self) -> &str {
        match self {
            Self::ByUser(after) => after.as_deref().unwrap_or_default(),
            Self::LargestFirst(Some(after)) if after.used().is_zero() => &after.user_id,
            Self::LargestFirst(_) => "",
        }
    }

    fn sort(&self, users: &mut [User]) {
        match self {
            Self::ByUser(_) => users.sort_unstable_by(|a, b| a.user_id.cmp(&b.user_id)),
            Self::LargestFirst(_) => users.sort_unstable_by_key(User::place),
        }
    }

    fn cut(&self, users: Vec<User>, limit: Limit) -> Page<User> {
        match self {
            Self::ByUser(_) => Page::cut(users, limit, |user| user.user_id.clone()),
            Self::LargestFirst(_) => Page::cut(users, limit, User::place),
        }
    }
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

    /// Returns the lowest limit: nobody with less usage is over budget.
    fn lowest(&self) -> Option<Credits> {
        let default_limit = self.default_limit.map(|Amount(limit)| limit);
        self.custom.values().flatten().copied().chain(default_limit).min()
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
    let mut candidates = limits.candidates(&wanted);
    if candidates.is_none() && matches!(wanted.order, Order::LargestFirst(_)) {
        candidates = largest(connection, account, &limits, &wanted).await?;
    }
    let mut users = figures(connection, account, &limits, &wanted, candidates.as_deref()).await?;
    let mut holders = BTreeSet::new();
    if !wanted.over_budget && wanted.reaches_unused(&users) {
        holders = add_holders(connection, account, &limits, &wanted, &mut users).await?;
    }
    let mut page = wanted.order.cut(users, wanted.limit);
    note_held(connection, account, &mut page.items).await?;
    // A user whose holds have expired holds nothing, although the sums may still include them.
    page.items.retain(|user| user.held.is_positive() || !holders.contains(&user.user_id));
    Ok(page)
}

impl Wanted {
    fn rows(&self) -> usize {
        usize::try_from(self.limit.rows_to_ask()).unwrap_or(usize::MAX)
    }

    /// Returns whether users without usage may belong to the page: by usage they come last.
    fn reaches_unused(&self, users: &[User]) -> bool {
        match self.order {
            Order::ByUser(_) => true,
            Order::LargestFirst(_) => {
                users.len() < self.rows() || users.last().is_none_or(|last| last.used.is_zero())
            }
        }
    }
}

/// Rows of the ranking that are looked at for the beginning of an id. Where these do not fill a page, few users begin
/// so, and all of them are read.
const LOOKED_AT: usize = 1_000;

/// Returns the users with the most usage; none where all users are to be read, or all that begin as requested.
async fn largest(
    connection: &mut PgConnection,
    account: &Account,
    limits: &InForce,
    wanted: &Wanted,
) -> Result<Option<Vec<String>>, Problem> {
    let Order::LargestFirst(after) = &wanted.order else { return Ok(None) };
    if !user_total::has_totals(connection, account.id(), account.core.period.index).await? {
        return Ok(None);
    }
    let (rows, lowest) = (wanted.rows(), limits.lowest());
    let mut walk = Walk::new(after.clone(), rows);
    let mut first: Vec<Place> = Vec::new();
    while let Some(mut part) = walk.next(connection, account).await? {
        if let Some(q) = &wanted.q {
            part.retain(|place| place.user_id.starts_with(&q.0));
        }
        if wanted.over_budget {
            let ids: Vec<String> = part.into_iter().map(|place| place.user_id).collect();
            let over = figures(connection, account, limits, wanted, Some(&ids)).await?;
            part = over.iter().map(User::place).collect();
        }
        keep_first(&mut first, part, rows);
        let is_full = first.len() == rows && first.last().is_some_and(|last| walk.is_past(last));
        let nobody_else = wanted.over_budget && lowest.is_some_and(|lowest| walk.is_below(lowest));
        if is_full || nobody_else {
            break;
        }
        if wanted.q.is_some() && walk.looked_at >= LOOKED_AT {
            return Ok(None);
        }
    }
    Ok(Some(first.into_iter().map(|place| place.user_id).collect()))
}

/// Reads a page of users with their figures, those of some candidates or of everyone.
async fn figures(
    connection: &mut PgConnection,
    account: &Account,
    limits: &InForce,
    wanted: &Wanted,
    candidates: Option<&[String]>,
) -> Result<Vec<User>, sqlx::Error> {
    let (after_used, after_user) = match &wanted.order {
        Order::ByUser(after) => (None, after.as_deref()),
        Order::LargestFirst(after) => (
            after.as_ref().map(|after| Amount(after.used())),
            after.as_ref().map(|after| after.user_id.as_str()),
        ),
    };
    let rows = sqlx::query(AssertSqlSafe(statement(wanted, candidates.is_some())))
        .bind(account.id())
        .bind(account.core.period.index)
        .bind(after_user)
        .bind(candidates)
        .bind(&limits.excluded_features)
        .bind(limits.default_limit)
        .bind(Json(&limits.custom))
        .bind(wanted.q.as_ref().map(|q| q.0.as_str()))
        .bind(wanted.q.as_ref().map(Beginning::end))
        .bind(after_used)
        .fetch_all(&mut *connection)
        .await?;
    rows.iter().map(user_of).collect()
}

/// Adds users in the same range of the list who hold credits and have no usage yet, and returns them.
async fn add_holders(
    connection: &mut PgConnection,
    account: &Account,
    limits: &InForce,
    wanted: &Wanted,
    users: &mut Vec<User>,
) -> Result<BTreeSet<String>, sqlx::Error> {
    let sql = format!(
        "with recursive holder as (
             ({})
             union all
             select next.user_id
               from holder
               cross join lateral ({}) as next
         )
         select user_id
           from holder
          limit {}",
        next_holder("$2", wanted),
        next_holder("holder.user_id", wanted),
        wanted.limit.rows_to_ask()
    );
    let holders: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(account.id())
        .bind(wanted.order.after_unused())
        .bind(wanted.only.as_deref())
        .bind(wanted.q.as_ref().map(|q| q.0.as_str()))
        .bind(wanted.q.as_ref().map(Beginning::end))
        .bind(account.core.period.index)
        .fetch_all(connection)
        .await?;
    let known: BTreeSet<String> = users.iter().map(|user| user.user_id.clone()).collect();
    let mut added = BTreeSet::new();
    for user_id in holders.into_iter().filter(|user_id| !known.contains(user_id)) {
        let limit = limits.limit_of(&user_id);
        let blocked = limit.is_some_and(|limit| limit <= Credits::ZERO);
        let (used, counted, held) = (Credits::ZERO, Credits::ZERO, Credits::ZERO);
        added.insert(user_id.clone());
        users.push(User { user_id, used, counted, held, limit, blocked });
    }
    wanted.order.sort(users);
    users.truncate(wanted.rows());
    Ok(added)
}

/// Steps from one user to the next by the key, however many holds each has. By usage, who has some is elsewhere in the
/// list.
fn next_holder(after: &str, wanted: &Wanted) -> String {
    let only = if wanted.only.is_some() { "and user_id = $3" } else { "and $3::text is null" };
    let begins = match wanted.q {
        Some(_) => "and user_id >= $4 and user_id < $5",
        None => "and $4::text is null and $5::text is null",
    };
    let unused = match wanted.order {
        Order::ByUser(_) => "and $6::bigint is not null",
        Order::LargestFirst(_) => {
            "and not exists (select from user_usage as used
                             where used.account_id = $1 and used.period_index = $6
                               and used.user_id = user_hold.user_id)"
        }
    };
    format!(
        "select user_id
           from control.user_hold
          where account_id = $1
            and user_id > {after}
            and held <> 0
            {only}
            {begins}
            {unused}
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
fn statement(wanted: &Wanted, of_candidates: bool) -> String {
    let candidates = if of_candidates { "and user_id = any($4)" } else { "and $4::text[] is null" };
    let begins = match wanted.q {
        Some(_) => "and user_id >= $8 and user_id < $9",
        None => "and $8::text is null and $9::text is null",
    };
    let (after, behind, order) = match wanted.order {
        Order::ByUser(_) => ("and user_id > coalesce($3, '')", "$10::numeric is null", "user_id"),
        Order::LargestFirst(None) => {
            ("", "$3::text is null and $10::numeric is null", "limited.used desc, user_id")
        }
        Order::LargestFirst(Some(_)) => {
            ("", "(used < $10 or used = $10 and user_id > $3)", "limited.used desc, user_id")
        }
    };
    let over_budget = if wanted.over_budget { "and counted >= max" } else { "" };
    format!(
        "with used as (
             select user_id, sum(used) as used,
                    coalesce(sum(used) filter (where feature <> all($5)), 0) as counted
               from user_usage
              where account_id = $1
                and period_index = $2
                {after}
                {candidates}
                {begins}
              group by user_id
              order by user_id
         ),
         limited as (
             select used.*, case when $7 ? user_id then ($7 ->> user_id)::numeric else $6 end as max
               from used
         )
         select user_id, used::text, counted::text, max::text
           from limited
          where {behind}
            {over_budget}
          order by {order}
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
