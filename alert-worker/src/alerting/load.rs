//! Loads the state of the rules for each core, and the pages of users.

use std::collections::HashMap;

use engine::consume::WorkerError;
use engine::fold::{Account, Accounts};
use ledger_core::policy::alert::{LimitPage, MissingUsers, Past, UserPage, Users, Watch};
use ledger_core::value::id::{AccountId, UserId};
use platform::pg::Amount;
use serde::de::DeserializeOwned;
use sqlx::{FromRow, PgConnection};

use super::watched::Watched;

/// Users evaluated at once when a rule is edited: their firings fit in memory and in one statement.
const PART_USERS_MAX: u16 = 5_000;

#[derive(FromRow)]
struct WatchRow {
    account_id: String,
    watch: String,
}

/// Loads the state of the rules of these accounts.
pub async fn watches(tx: &mut PgConnection, accounts: Vec<&mut Account<Watched>>) -> Result<(), WorkerError> {
    if accounts.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = accounts.iter().map(|account| account.id.as_str()).collect();
    let rows: Vec<WatchRow> =
        sqlx::query_as("select account_id, watch::text from account where account_id = any($1)")
            .bind(ids)
            .fetch_all(tx)
            .await?;
    let mut watches: HashMap<String, String> =
        rows.into_iter().map(|row| (row.account_id, row.watch)).collect();
    for account in accounts {
        let watch =
            watches.remove(account.id.as_str()).ok_or_else(|| unreadable("an account has no watch"))?;
        account.side_state.watch = serde_json::from_str::<Watch>(&watch).map_err(unreadable)?;
    }
    Ok(())
}

// Lateral with a limit: forces one index look-up per name, whatever table sizes the planner assumes.
const PAGES: &str = "
    select wanted.n, found.page
    from unnest($1::text[], $2::bigint[], $3::text[]) with ordinality as wanted(account_id, period_index, user_id, n)
    cross join lateral (
        select page::text
        from user_page
        where user_page.account_id   = wanted.account_id
          and user_page.period_index = wanted.period_index
          and user_page.user_id      = wanted.user_id
        limit 1
    ) as found";

#[derive(FromRow)]
struct PageRow {
    n: i64,
    page: String,
}

/// Returns the stored pages, each with the number of its name, from 1.
async fn pages(
    tx: &mut PgConnection,
    accounts: Vec<String>,
    periods: Vec<Option<i64>>,
    users: Vec<&str>,
) -> Result<HashMap<i64, UserPage>, WorkerError> {
    let rows: Vec<PageRow> =
        sqlx::query_as(PAGES).bind(accounts).bind(periods).bind(users).fetch_all(tx).await?;
    rows.iter().map(|row| Ok((row.n, page_of(&row.page)?))).collect()
}

const LIMIT_PAGES: &str = "
    select wanted.n, found.page
    from unnest($1::text[], $2::text[]) with ordinality as wanted(account_id, user_id, n)
    cross join lateral (
        select page::text
        from limit_page
        where limit_page.account_id = wanted.account_id
          and limit_page.user_id    = wanted.user_id
        limit 1
    ) as found";

/// Returns the stored pages of limits, each with the number of its name, from 1.
async fn limit_pages(
    tx: &mut PgConnection,
    accounts: Vec<String>,
    users: Vec<&str>,
) -> Result<HashMap<i64, LimitPage>, WorkerError> {
    let rows: Vec<PageRow> = sqlx::query_as(LIMIT_PAGES).bind(accounts).bind(users).fetch_all(tx).await?;
    rows.iter().map(|row| Ok((row.n, page_of(&row.page)?))).collect()
}

/// Loads the pages of users, each with its account's index; accounts that are not stored have none.
pub async fn users(
    tx: &mut PgConnection,
    mut wanted: Vec<(usize, &UserId)>,
    accounts: &mut Accounts<Watched>,
) -> Result<(), WorkerError> {
    wanted.sort_unstable();
    wanted.dedup();
    wanted.retain(|(at, _)| accounts.at(*at).stored);
    if wanted.is_empty() {
        return Ok(());
    }
    let (mut ids, mut periods, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for (at, user) in &wanted {
        let account = accounts.at(*at);
        ids.push(account.id.to_string());
        periods.push(account.side_state.users.period_index());
        names.push(user.as_str());
    }
    let mut pages = pages(&mut *tx, ids, periods, names).await?;
    for (n, (at, user)) in (1_i64..).zip(&wanted) {
        accounts.at(*at).side_state.users.load((*user).clone(), pages.remove(&n));
    }
    limits(tx, wanted, accounts).await
}

/// Loads the pages of users' limits, of accounts that have any.
async fn limits(
    tx: &mut PgConnection,
    mut wanted: Vec<(usize, &UserId)>,
    accounts: &mut Accounts<Watched>,
) -> Result<(), WorkerError> {
    wanted.retain(|(at, _)| accounts.at(*at).side_state.watch.has_own_limits());
    if wanted.is_empty() {
        return Ok(());
    }
    let ids = wanted.iter().map(|(at, _)| accounts.at(*at).id.to_string()).collect();
    let names = wanted.iter().map(|(_, user)| user.as_str()).collect();
    let mut pages = limit_pages(tx, ids, names).await?;
    for (n, (at, user)) in (1_i64..).zip(wanted) {
        accounts.at(at).side_state.users.load_limit(user.clone(), pages.remove(&n));
    }
    Ok(())
}

/// Loads the pages that the evaluation of one account found missing.
pub async fn missing(
    tx: &mut PgConnection,
    account: &AccountId,
    users: &mut Users,
    missing: MissingUsers,
) -> Result<(), WorkerError> {
    let period = users.period_index();
    match missing {
        MissingUsers::These(wanted) => {
            let names: Vec<&str> = wanted.iter().map(UserId::as_str).collect();
            let ids = vec![account.to_string(); names.len()];
            let mut limits = limit_pages(&mut *tx, ids.clone(), names.clone()).await?;
            let mut pages = pages(tx, ids, vec![period; names.len()], names).await?;
            for (n, user) in (1_i64..).zip(wanted) {
                users.load_limit(user.clone(), limits.remove(&n));
                users.load(user, pages.remove(&n));
            }
        }
        MissingUsers::Next { past, after } => next(tx, account, users, past, after.as_ref()).await?,
    }
    Ok(())
}

// Continues in the order of the index, so that each user of a period is visited once.
const NEXT: &str = "
    select user_page.user_id, user_page.page::text, own.page::text as limit_page
    from user_page
    left join lateral (
        select series, amount, page
        from limit_page
        where limit_page.account_id = user_page.account_id
          and limit_page.user_id    = user_page.user_id
        limit 1
    ) as own on true
    where user_page.account_id   = $1
      and user_page.period_index = $2
      and user_page.user_id      > $3
      and (user_page.used >= $4 or own.series = $5 and user_page.used >= own.amount)
    order by user_page.user_id
    limit $6";

#[derive(FromRow)]
struct UserRow {
    user_id: String,
    page: String,
    limit_page: Option<String>,
}

/// Loads the next users affected by the edit of a rule.
async fn next(
    tx: &mut PgConnection,
    account: &AccountId,
    users: &mut Users,
    past: Past,
    after: Option<&UserId>,
) -> Result<(), WorkerError> {
    let rows: Vec<UserRow> = sqlx::query_as(NEXT)
        .bind(account.as_str())
        .bind(users.period_index())
        .bind(after.map_or("", UserId::as_str))
        .bind(past.usage.map(Amount))
        .bind(past.own_limits.map(u64::cast_signed))
        .bind(i64::from(PART_USERS_MAX))
        .fetch_all(tx)
        .await?;
    let mut pages = Vec::with_capacity(rows.len());
    for row in &rows {
        let user = UserId::new(&row.user_id).map_err(unreadable)?;
        let limit = row.limit_page.as_deref().map(page_of).transpose()?;
        pages.push((user, page_of(&row.page)?, limit));
    }
    users.load_next(pages, rows.len() < usize::from(PART_USERS_MAX));
    Ok(())
}

fn page_of<T: DeserializeOwned>(json: &str) -> Result<T, WorkerError> {
    serde_json::from_str(json).map_err(unreadable)
}

/// Another program or a bug wrote this row: nothing may be folded on top of it.
fn unreadable(cause: impl std::fmt::Display) -> WorkerError {
    WorkerError::Internal(format!("a row of the alerting model can't be read: {cause}"))
}
