//! Commitments: the sums of open holds per account, read in one statement with the position of the generation.
//!
//! A hold is open unless it ended in `control`, has expired, or the generation being read has usage that ended it.
//! `control.gate` and `control.user_hold` keep the sums, so the statement only subtracts the holds that have ended and
//! are not yet marked so.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ledger_core::policy::hold::{ByFeature, UserFigures};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, Label, UserId};
use ledger_core::value::time::Time;
use platform::pg::columns::{amount, name, optional_name, parsed, time};
use platform::pg::{credits_of, timestamp};
use platform::position::Position;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::own_limit;

/// An account to read, and which of its figures.
#[derive(Debug, Clone)]
pub struct AccountQuery {
    pub account: AccountId,
    /// The period whose usage is read.
    pub period_index: i64,
    /// On a test account: the instant to read at, if later than the account's ledger time.
    pub at: Option<Time>,
    /// Users whose figures are also read.
    pub users: Vec<UserId>,
}

/// An account's open holds, and the position at which they were read.
#[derive(Debug, Clone)]
pub struct AccountStanding {
    /// Offset of the account's last projected event.
    pub offset: i64,
    /// The last projected record of its partition.
    pub position: Position,
    /// Whether an event of an unknown type halts the account.
    pub halted: bool,
    /// The database's clock; on test accounts ledger time.
    pub now: Time,
    pub held: Credits,
    /// Holds that have expired but are not marked so yet.
    pub due: i64,
    /// Settling holds whose usage is projected but which are not marked as settled yet.
    pub ended: i64,
    pub users: BTreeMap<UserId, UserFigures>,
}

/// The result of one statement.
#[derive(Debug, Clone)]
pub struct Standings {
    /// The live generation; `None` if no account exists.
    pub live: Option<i32>,
    /// Accounts that exist.
    pub accounts: BTreeMap<AccountId, AccountStanding>,
}

const STANDINGS: &str = include_str!("commitments.sql");

/// Reads the standings of accounts in one statement; accounts that do not exist are left out.
pub async fn standings(
    connection: &mut PgConnection,
    queries: &[AccountQuery],
) -> Result<Standings, sqlx::Error> {
    let accounts: Vec<&str> = queries.iter().map(|query| query.account.as_str()).collect();
    let periods: Vec<i64> = queries.iter().map(|query| query.period_index).collect();
    let instants: Vec<Option<DateTime<Utc>>> = queries.iter().map(|query| query.at.map(timestamp)).collect();
    let users = queries
        .iter()
        .flat_map(|query| query.users.iter().map(|user| (query.account.as_str(), user.as_str())));
    let (of_accounts, users): (Vec<&str>, Vec<&str>) = users.unzip();
    let query =
        sqlx::query(STANDINGS).bind(accounts).bind(periods).bind(instants).bind(of_accounts).bind(users);
    let mut standings = Standings { live: None, accounts: BTreeMap::new() };
    for row in &query.fetch_all(connection).await? {
        standings.live = Some(row.try_get("live")?);
        let account: AccountId = name(row, "account_id")?;
        if !standings.accounts.contains_key(&account) {
            standings.accounts.insert(account.clone(), standing(row)?);
        }
        let user = user_figures(row)?;
        if let (Some((user, figures)), Some(standing)) = (user, standings.accounts.get_mut(&account)) {
            standing.users.insert(user, figures);
        }
    }
    Ok(standings)
}

/// Reads the sum of one account's open holds, and those of some users, in the caller's snapshot.
pub async fn held(
    connection: &mut PgConnection,
    account: &AccountId,
    users: Vec<UserId>,
) -> Result<(Credits, BTreeMap<UserId, UserFigures>), sqlx::Error> {
    let query = AccountQuery { account: account.clone(), period_index: 0, at: None, users };
    let mut standings = standings(connection, &[query]).await?;
    let standing = standings.accounts.remove(account);
    Ok(standing.map_or_else(Default::default, |standing| (standing.held, standing.users)))
}

fn standing(row: &PgRow) -> Result<AccountStanding, sqlx::Error> {
    let next_offset: i64 = row.try_get("next_offset")?;
    Ok(AccountStanding {
        offset: row.try_get("offset")?,
        position: Position { partition: row.try_get("partition")?, offset: next_offset - 1 },
        halted: row.try_get("halted")?,
        now: time(row, "now")?,
        held: amount(row, "held")?,
        due: row.try_get("due")?,
        ended: row.try_get("ended")?,
        users: BTreeMap::new(),
    })
}

/// Reads the user of a row, if it has one.
fn user_figures(row: &PgRow) -> Result<Option<(UserId, UserFigures)>, sqlx::Error> {
    let Some(user) = optional_name(row, "user_id")? else { return Ok(None) };
    let series: Option<i64> = row.try_get("own_series")?;
    let own_limit = series.map(|series| own_limit::read(row, series, "own_amount")).transpose()?;
    Ok(Some((
        user,
        UserFigures {
            used: by_feature(row, "used_features", "used_credits")?,
            held: by_feature(row, "held_features", "held_credits")?,
            own_limit,
        },
    )))
}

/// Reads two arrays, features and amounts; '' means no feature.
fn by_feature(row: &PgRow, features: &str, amounts: &str) -> Result<ByFeature, sqlx::Error> {
    let features: Option<Vec<String>> = row.try_get(features)?;
    let amounts: Option<Vec<String>> = row.try_get(amounts)?;
    let mut sums = ByFeature::new();
    for (feature, amount) in features.into_iter().flatten().zip(amounts.into_iter().flatten()) {
        let feature: Option<Label> = if feature.is_empty() { None } else { Some(parsed(&feature)?) };
        sums.insert(feature, credits_of(&amount)?);
    }
    Ok(sums)
}
