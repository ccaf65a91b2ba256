//! Users: each user's usage in the open period, and the part that counts toward a limit.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::http::HeaderMap;
use engine::tables::{commitments, own_limit, user_total};
use ledger_core::account::limit::Limits;
use ledger_core::policy::hold::UserFigures;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::UserId;
use ledger_core::value::time::Time;
use platform::pg::Amount;
use platform::pg::columns;
use platform::position::AtLeast;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection, Row};
use web::http::{Problem, Query};
use web::openapi::{Route, get};

use crate::access::Seen;
use crate::answer::{self, Answer, Format, Now, Record};
use crate::app::App;
use crate::as_of::{self, At};
use crate::http::ranking::{Place, Walk, keep_first};
use crate::list::{self, Beginning, Limit, Page};
use crate::past_rows;
use crate::reading::{self, Account};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsersQuery {
    /// Only users whose counted usage has reached their limit.
    #[serde(default)]
    over_budget: bool,
    #[serde(default)]
    sort: Sort,
    /// Only users whose id begins so; every character stands for itself.
    q: Option<Beginning>,
    #[serde(default)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// Shows the users as they stood at this ledger time, without holds, from at most 1,000,000 events.
    as_of: Option<Time>,
    at_least: Option<AtLeast>,
}

/// The order of the list; a cursor belongs to the order that it came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "UserSort")]
enum Sort {
    /// By id; the default.
    #[default]
    #[serde(rename = "user")]
    ByUser,
    /// The largest usage first, equal ones by id; users who only hold have used 0. Who uses more while pages are read
    /// may appear twice.
    #[serde(rename = "-used")]
    LargestFirst,
}

/// A user with usage in the open period, or with open holds.
#[derive(Debug, Serialize, JsonSchema)]
struct User {
    #[schemars(with = "UserId")]
    user_id: String,
    /// Usage of the period minus its reversals.
    used: Credits,
    /// The part that counts toward limits.
    counted: Credits,
    /// All open holds of the user, whatever for.
    held: Credits,
    /// Null if no limit applies.
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

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/users", list)
            .named("listUsers", "Lists the users with usage in the open period or with open holds.")
            .says(
                "Members see their own row. A page may have fewer users than its limit, or none, and still a \
                 `next_cursor`. Answers with CSV if `Accept` prefers `text/csv`.",
            )
            .refuses(&["history_too_long"]),
        answer::csv(get("/v1/accounts/{account}/users.csv", list))
            .named("exportUsers", "Lists the users with usage in the open period or with open holds as CSV."),
    ]
}

/// `GET /v1/accounts/{account}/users`
async fn list(
    State(app): State<App>,
    seen: Seen,
    headers: HeaderMap,
    Query(query): Query<UsersQuery>,
) -> Result<Answer<Now<Page<User>>>, Problem> {
    let format = Format::of(&headers);
    let only = seen.user(None)?;
    let order = Order::read(query.sort, query.cursor.as_deref())?;
    let UsersQuery { over_budget, q, limit, as_of, .. } = query;
    let (reflects, page) = reading::of(&app, seen.account, query.at_least, move |connection, account| {
        let wanted = Wanted { only, over_budget, q, order, limit, holds: as_of.is_none() };
        Box::pin(async move {
            match At::asked(account, as_of)? {
                Some(at) => load_at(connection, account, &wanted, at).await,
                None => load(connection, account, wanted).await,
            }
        })
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
    /// Whether open holds are shown: they exist only in the present.
    holds: bool,
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
    /// The series of users' own limits; none is in force without it.
    series: Option<i64>,
}

impl InForce {
    /// Exclusions define what counts even if limits are off.
    fn of(limits: Option<&Limits>) -> Self {
        let Some(limits) = limits else { return Self::default() };
        let excluded_features = limits.excluded_features.iter().map(ToString::to_string).collect();
        if !limits.enabled {
            return Self { excluded_features, ..Self::default() };
        }
        let series = Some(limits.series.cast_signed());
        Self { default_limit: limits.default_limit.map(Amount), excluded_features, series }
    }
}

async fn load(
    connection: &mut PgConnection,
    account: &Account,
    wanted: Wanted,
) -> Result<Page<User>, Problem> {
    let limits = InForce::of(account.core.limits.as_ref());
    let mut candidates = wanted.only.as_ref().map(|user| vec![user.clone()]);
    if candidates.is_none() {
        candidates = largest(connection, account, &limits, &wanted).await?;
    }
    let mut users = figures(connection, account, &limits, &wanted, candidates.as_deref()).await?;
    let mut holders = BTreeSet::new();
    if wanted.holds && !wanted.over_budget && wanted.reaches_unused(&users) {
        holders = add_holders(connection, account, &wanted, &mut users).await?;
    }
    let mut page = wanted.order.cut(users, wanted.limit);
    if wanted.holds {
        note_held(connection, account, &mut page.items).await?;
    }
    // A user whose holds have expired holds nothing, although the sums may still include them.
    page.items.retain(|user| user.held.is_positive() || !holders.contains(&user.user_id));
    Ok(page)
}

/// Returns the same list as it stood at an instant, from the events of the period that was open then.
async fn load_at(
    connection: &mut PgConnection,
    account: &Account,
    wanted: &Wanted,
    at: At,
) -> Result<Page<User>, Problem> {
    let core = as_of::core_at(connection, account, at).await?;
    let own = past_rows::own_limits(connection, account, &core, at).await?;
    let limits = core.limits.as_ref();
    let mut sums: BTreeMap<UserId, (Credits, Credits)> = BTreeMap::new();
    let period = Some((core.period.index, core.period.starts_at));
    let of_period = past_rows::Wanted { period, user: wanted.only.as_deref(), at };
    past_rows::each_usage(connection, account, of_period, |used| {
        let Some(user) = &used.usage.user_id else { return Ok(()) };
        // A user whose usage was all reversed is still one of the period.
        let (sum, counted) = sums.entry(user.clone()).or_default();
        if used.is_reversed {
            return Ok(());
        }
        *sum = sum.plus(used.credits).map_err(Problem::internal)?;
        if limits.is_none_or(|limits| limits.counts(used.usage.feature.as_ref())) {
            *counted = counted.plus(used.credits).map_err(Problem::internal)?;
        }
        Ok(())
    })
    .await?;
    let in_force = limits.filter(|limits| limits.enabled);
    let users = sums.into_iter().map(|(user_id, (used, counted))| {
        let limit = in_force.and_then(|limits| limits.limit_of(own.get(&user_id).copied()));
        let blocked = limit.is_some_and(|limit| counted >= limit);
        User { user_id: user_id.to_string(), used, counted, held: Credits::ZERO, limit, blocked }
    });
    let mut users: Vec<User> = users.filter(|user| wanted.shows(user)).collect();
    wanted.order.sort(&mut users);
    Ok(wanted.order.cut(users, wanted.limit))
}

impl Wanted {
    /// Returns whether a user belongs to this page or a later one.
    fn shows(&self, user: &User) -> bool {
        let is_after = match &self.order {
            Order::ByUser(after) => after.as_ref().is_none_or(|after| user.user_id > *after),
            Order::LargestFirst(after) => after.as_ref().is_none_or(|after| user.place() > *after),
        };
        is_after
            && (user.blocked || !self.over_budget)
            && self.q.as_ref().is_none_or(|q| user.user_id.starts_with(&q.0))
    }

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
    let rows = wanted.rows();
    let mut walk = Walk::new(account.core.period.index, after.clone(), rows);
    let mut first: Vec<Place> = Vec::new();
    let mut apart = None;
    if wanted.over_budget {
        let own = LowLimits::read(connection, account, limits).await?;
        keep_first(&mut first, over_budget(connection, account, limits, wanted, &own.users).await?, rows);
        apart = Some(own);
    }
    loop {
        let is_full = first.len() == rows && first.last().is_some_and(|last| walk.is_past(last));
        if is_full || apart.as_ref().is_some_and(|own| own.has_nobody_else(&walk)) {
            break;
        }
        if wanted.q.is_some() && walk.looked_at >= LOOKED_AT {
            return Ok(None);
        }
        let Some(mut part) = walk.next(connection, account).await? else { break };
        if let Some(q) = &wanted.q {
            part.retain(|place| place.user_id.starts_with(&q.0));
        }
        if wanted.over_budget {
            let ids: Vec<String> = part.into_iter().map(|place| place.user_id).collect();
            part = over_budget(connection, account, limits, wanted, &ids).await?;
        }
        keep_first(&mut first, part, rows);
    }
    Ok(Some(first.into_iter().map(|place| place.user_id).collect()))
}

/// Users who may be over budget with little usage. They are read apart, so that the ranking need not be walked down to
/// the lowest of all limits.
struct LowLimits {
    users: Vec<String>,
    /// The lowest limit of everybody else; none if no one else has a limit.
    lowest_of_others: Option<Credits>,
}

impl LowLimits {
    async fn read(
        connection: &mut PgConnection,
        account: &Account,
        limits: &InForce,
    ) -> Result<Self, sqlx::Error> {
        let default_limit = limits.default_limit.map(|Amount(limit)| limit);
        let mut own = match limits.series {
            Some(series) => own_limit::lowest(connection, &account.core.account, series).await?,
            None => Vec::new(),
        };
        own.retain(|(_, limit)| default_limit.is_none_or(|default_limit| *limit < default_limit));
        // They come in their order, so that all further ones are as high as the last.
        let further = if own.len() == own_limit::LOWEST_MAX { own.pop() } else { None };
        let lowest_of_others = further.map(|(_, limit)| limit).or(default_limit);
        Ok(Self { users: own.into_iter().map(|(user, _)| user.to_string()).collect(), lowest_of_others })
    }

    /// Returns whether all who may be over budget are among these users, or have been returned by the walk.
    fn has_nobody_else(&self, walk: &Walk) -> bool {
        self.lowest_of_others.is_none_or(|lowest| walk.is_below(lowest))
    }
}

/// Returns the places of those who are over budget.
async fn over_budget(
    connection: &mut PgConnection,
    account: &Account,
    limits: &InForce,
    wanted: &Wanted,
    candidates: &[String],
) -> Result<Vec<Place>, sqlx::Error> {
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let over = figures(connection, account, limits, wanted, Some(candidates)).await?;
    Ok(over.iter().map(User::place).collect())
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
    // Without a default only users with a limit of their own can be over budget, so no other usage is read.
    let is_of_own = wanted.over_budget && limits.default_limit.is_none();
    let statement = match (&wanted.order, candidates) {
        (Order::ByUser(_), None) if is_of_own => over_own_limit(wanted),
        (Order::ByUser(_) | Order::LargestFirst(_), _) => statement(wanted, candidates.is_some()),
    };
    let rows = sqlx::query(AssertSqlSafe(statement))
        .bind(account.id())
        .bind(account.core.period.index)
        .bind(after_user)
        .bind(candidates)
        .bind(&limits.excluded_features)
        .bind(limits.default_limit)
        .bind(limits.series)
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
        .fetch_all(&mut *connection)
        .await?;
    let known: BTreeSet<String> = users.iter().map(|user| user.user_id.clone()).collect();
    let new: Vec<&str> = holders.iter().map(String::as_str).filter(|user| !known.contains(*user)).collect();
    let own = own_limit::named(connection, &account.core.account, &new).await?;
    let mut added = BTreeSet::new();
    for user_id in new {
        let limit = account.core.limit_of(own.get(user_id));
        let blocked = limit.is_some_and(|limit| limit <= Credits::ZERO);
        let (used, counted, held) = (Credits::ZERO, Credits::ZERO, Credits::ZERO);
        added.insert(user_id.to_owned());
        users.push(User { user_id: user_id.to_owned(), used, counted, held, limit, blocked });
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
    let begins = begins(wanted, "user_id");
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
             select used.*, case when own.series is null then $6 else own.amount end as max
               from used
               left join lateral (
                   select series, amount
                     from own_limit
                    where own_limit.account_id = $1
                      and own_limit.user_id = used.user_id
                      and own_limit.series = $7
                    limit 1
               ) as own on true
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

/// Returns the query of users over their own limit, by id: one look-up of usage for each user who has one.
fn over_own_limit(wanted: &Wanted) -> String {
    let begins = begins(wanted, "own.user_id");
    format!(
        "select own.user_id, used.used::text, used.counted::text, own.amount::text as max
           from own_limit as own
           cross join lateral (
               select sum(used) as used,
                      coalesce(sum(used) filter (where feature <> all($5)), 0) as counted
                 from user_usage
                where user_usage.account_id = $1
                  and user_usage.period_index = $2
                  and user_usage.user_id = own.user_id
               having count(*) > 0
           ) as used
          where own.account_id = $1
            and own.series = $7
            and own.user_id > coalesce($3, '')
            {begins}
            and used.counted >= own.amount
            and $4::text[] is null
            and $6::numeric is null
            and $10::numeric is null
          order by own.account_id, own.series, own.user_id
          limit {}",
        wanted.limit.rows_to_ask()
    )
}

fn begins(wanted: &Wanted, column: &str) -> String {
    match wanted.q {
        Some(_) => format!("and {column} >= $8 and {column} < $9"),
        None => "and $8::text is null and $9::text is null".to_owned(),
    }
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
