//! Table `own_limit`: users' own limits, and how many of them are in force. The projector writes it.

use std::collections::BTreeMap;

use ledger_core::account::limit::{Limits, OwnLimit};
use ledger_core::event::Limit;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, UserId};
use platform::pg::columns::{amount, name, optional_amount};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};

const NAMED: &str = "
    select user_id, series, amount::text
    from own_limit
    where account_id = $1
      and user_id    = any($2)";

/// Reads the own limits of some users as stored, void ones among them.
pub async fn named(
    connection: &mut PgConnection,
    account: &AccountId,
    users: &[&str],
) -> Result<BTreeMap<UserId, OwnLimit>, sqlx::Error> {
    let rows = sqlx::query(NAMED).bind(account.as_str()).bind(users).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((name(row, "user_id")?, read(row, row.try_get("series")?, "amount")?))).collect()
}

const IN_FORCE: &str = "
    select user_id, amount::text
    from own_limit
    where account_id = $1
      and series     = $2
      and user_id    > $3
    order by user_id
    limit $4";

/// Reads own limits that are in force, in the order of users after `after`.
pub async fn in_force(
    connection: &mut PgConnection,
    (account, limits): (&AccountId, &Limits),
    after: Option<&UserId>,
    rows_max: i64,
) -> Result<Vec<(UserId, Limit)>, sqlx::Error> {
    let series = limits.series.cast_signed();
    let query = sqlx::query(IN_FORCE).bind(account.as_str()).bind(series);
    let query = query.bind(after.map_or("", UserId::as_str)).bind(rows_max);
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(|row| Ok((name(row, "user_id")?, read(row, series, "amount")?.limit))).collect()
}

/// Most own limits that are read for the lowest: as many users can be looked up within some 10 ms.
pub const LOWEST_MAX: usize = 1_001;

/// Reads the lowest own limits of a series in their order. Those that are unlimited are not among them.
pub async fn lowest(
    connection: &mut PgConnection,
    account: &AccountId,
    series: i64,
) -> Result<Vec<(UserId, Credits)>, sqlx::Error> {
    let sql = format!(
        "select user_id, amount::text
         from own_limit
         where account_id = $1
           and series     = $2
           and amount is not null
         order by account_id, series, own_limit.amount
         limit {LOWEST_MAX}"
    );
    let rows =
        sqlx::query(AssertSqlSafe(sql)).bind(account.as_str()).bind(series).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((name(row, "user_id")?, amount(row, "amount")?))).collect()
}

/// Returns how many users have an own limit that is in force.
pub async fn count(connection: &mut PgConnection, account: &AccountId) -> Result<i64, sqlx::Error> {
    let counted = sqlx::query_scalar("select own_limits from account where account_id = $1");
    counted.bind(account.as_str()).fetch_one(connection).await
}

/// Reads a row whose amount is null where the limit is none.
pub(crate) fn read(row: &PgRow, series: i64, amount: &str) -> Result<OwnLimit, sqlx::Error> {
    let limit = optional_amount(row, amount)?.map_or(Limit::Unlimited, Limit::At);
    Ok(OwnLimit { series: series.cast_unsigned(), limit })
}
