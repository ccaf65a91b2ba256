//! Holds: how much open holds take of accounts, read in one statement with where the generation stands.
//!
//! A hold is open unless it ended in `control`, its time is over, or the generation being read has usage that ended it.
//! Sums are kept beside the gate, so a statement takes off only what has ended and was not swept up yet.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ledger_core::value::credits::Credits;
use ledger_core::policy::hold::{ByFeature, UserFigures};
use ledger_core::value::id::{Id, Label};
use ledger_core::value::time::Time;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::pg::{self, credits_of, time_of};
use crate::position::Position;

/// An account that is asked about.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The account.
    pub account: Id,
    /// The period whose usage is read.
    pub period_index: i64,
    /// On a test account: the instant asked about, where it lies after its ledger time.
    pub at: Option<Time>,
    /// Users whose figures are wanted.
    pub users: Vec<Id>,
}

/// Where an account stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Its last event that is projected.
    pub offset: i64,
    /// How far its partition is projected: the last record.
    pub position: Position,
    /// Whether an event of an unknown type halts it.
    pub halted: bool,
    /// The database's clock; on test accounts ledger time.
    pub now: Time,
    /// All open holds.
    pub held: Credits,
    /// Holds whose time is over and which are not noted so yet.
    pub due: i64,
    /// Settling holds whose usage is projected and which are not noted so yet.
    pub ended: i64,
    /// The users asked about.
    pub users: BTreeMap<Id, UserFigures>,
}

/// What one statement saw.
#[derive(Debug, Clone)]
pub struct Standings {
    /// The generation that was live; none where no account exists.
    pub live: Option<i32>,
    /// Accounts that exist.
    pub accounts: BTreeMap<Id, Standing>,
}

// Laterals, so that each account and user costs look-ups by index whatever the sizes of the tables. The instant is
// made once a row: a clock in a list of columns keeps its subquery apart.
const STANDINGS: &str = r#"
    with standing as materialized (
        select wanted.account_id, wanted.period_index, account."offset", account.partition, checkpoint.next_offset,
               parked.halted, instant.now, due.n as due, ended.n as ended,
               coalesce(gate.held, 0) - due.held - ended.held as held
        from unnest($1::text[], $2::bigint[], $3::timestamptz[]) as wanted (account_id, period_index, at)
        join account    on account.account_id   = wanted.account_id
        join checkpoint on checkpoint.partition = account.partition
        left join control.gate on gate.account_id = wanted.account_id
        cross join lateral (
            select case account.clock
                       when 'test' then greatest(account.ledger_time, wanted.at)
                       else clock_timestamp()
                   end as now
        ) as instant
        cross join lateral (
            select (select true
                    from parked
                    where parked.account_id = wanted.account_id
                    order by parked.account_id, parked."offset"
                    limit 1) is not null as halted
        ) as parked
        cross join lateral (
            select count(*) as n, coalesce(sum(hold.counts), 0) as held
            from control.hold
            where hold.account_id = wanted.account_id and hold.state = 'held' and hold.expires_at <= instant.now
        ) as due
        cross join lateral (
            select count(*) as n, coalesce(sum(hold.counts), 0) as held
            from control.hold
            where hold.account_id = wanted.account_id and hold.state = 'settling'
              and exists (select from ended_hold
                          where ended_hold.account_id     = hold.account_id
                            and ended_hold.reservation_id = hold.reservation_id)
        ) as ended
    )
    select (select live from control.generation where model = 'read_model'),
           standing.account_id, standing."offset", standing.partition, standing.next_offset, standing.halted,
           standing.now, standing.held::text, standing.due, standing.ended,
           asker.user_id, usage.features, usage.used, holds.features, holds.held
    from standing
    left join unnest($4::text[], $5::text[]) as asker (account_id, user_id)
         on asker.account_id = standing.account_id
    left join lateral (
        select array_agg(user_usage.feature) as features, array_agg(user_usage.used::text) as used
        from user_usage
        where user_usage.account_id   = standing.account_id
          and user_usage.period_index = standing.period_index
          and user_usage.user_id      = asker.user_id
    ) as usage on true
    left join lateral (
        select array_agg(sums.feature) as features, array_agg(sums.held::text) as held
        from (
            select parts.feature, sum(parts.held) as held
            from (
                select user_hold.feature, user_hold.held
                from control.user_hold
                where user_hold.account_id = standing.account_id and user_hold.user_id = asker.user_id
                union all
                select coalesce(hold.feature, ''), -hold.counts
                from control.hold
                where standing.due > 0
                  and hold.account_id = standing.account_id and hold.user_id = asker.user_id
                  and hold.state = 'held' and hold.expires_at <= standing.now
                union all
                select coalesce(hold.feature, ''), -hold.counts
                from control.hold
                where standing.ended > 0
                  and hold.account_id = standing.account_id and hold.user_id = asker.user_id
                  and hold.state = 'settling'
                  and exists (select from ended_hold
                              where ended_hold.account_id     = hold.account_id
                                and ended_hold.reservation_id = hold.reservation_id)
            ) as parts
            group by parts.feature
        ) as sums
    ) as holds on true"#;

/// Reads where accounts stand, in one statement; accounts that do not exist are left out.
pub async fn standings(connection: &mut PgConnection, asked: &[Asked]) -> Result<Standings, sqlx::Error> {
    let accounts: Vec<&str> = asked.iter().map(|one| one.account.as_str()).collect();
    let periods: Vec<i64> = asked.iter().map(|one| one.period_index).collect();
    let instants: Vec<Option<DateTime<Utc>>> = asked.iter().map(|one| one.at.map(pg::timestamp)).collect();
    let askers =
        asked.iter().flat_map(|one| one.users.iter().map(|user| (one.account.as_str(), user.as_str())));
    let (of_accounts, users): (Vec<&str>, Vec<&str>) = askers.unzip();
    let query =
        sqlx::query(STANDINGS).bind(accounts).bind(periods).bind(instants).bind(of_accounts).bind(users);
    let mut standings = Standings { live: None, accounts: BTreeMap::new() };
    for row in &query.fetch_all(connection).await? {
        standings.live = Some(row.try_get(0)?);
        let account = named(row, 1)?;
        if !standings.accounts.contains_key(&account) {
            standings.accounts.insert(account.clone(), standing(row)?);
        }
        let user: Option<&str> = row.try_get(10)?;
        if let (Some(user), Some(standing)) = (user, standings.accounts.get_mut(&account)) {
            let figures = UserFigures { used: by_feature(row, 11)?, held: by_feature(row, 13)? };
            standing.users.insert(Id::new(user).map_err(undecodable)?, figures);
        }
    }
    Ok(standings)
}

/// Reads what all open holds of one account take, and those of some of its users, in the caller's snapshot.
pub async fn held(
    connection: &mut PgConnection,
    account: &Id,
    users: Vec<Id>,
) -> Result<(Credits, BTreeMap<Id, UserFigures>), sqlx::Error> {
    let asked = Asked { account: account.clone(), period_index: 0, at: None, users };
    let mut standings = standings(connection, &[asked]).await?;
    let standing = standings.accounts.remove(account);
    Ok(standing.map_or_else(Default::default, |standing| (standing.held, standing.users)))
}

fn standing(row: &PgRow) -> Result<Standing, sqlx::Error> {
    let next_offset: i64 = row.try_get(4)?;
    let now: DateTime<Utc> = row.try_get(6)?;
    Ok(Standing {
        offset: row.try_get(2)?,
        position: Position { partition: row.try_get(3)?, offset: next_offset - 1 },
        halted: row.try_get(5)?,
        now: time_of(now),
        held: credits_of(row.try_get(7)?)?,
        due: row.try_get(8)?,
        ended: row.try_get(9)?,
        users: BTreeMap::new(),
    })
}

/// Reads two arrays, features and amounts; '' is no feature.
fn by_feature(row: &PgRow, first: usize) -> Result<ByFeature, sqlx::Error> {
    let features: Option<Vec<String>> = row.try_get(first)?;
    let amounts: Option<Vec<String>> = row.try_get(first + 1)?;
    let mut sums = ByFeature::new();
    for (feature, amount) in features.into_iter().flatten().zip(amounts.into_iter().flatten()) {
        let feature =
            if feature.is_empty() { None } else { Some(Label::new(&feature).map_err(undecodable)?) };
        sums.insert(feature, credits_of(&amount)?);
    }
    Ok(sums)
}

fn named(row: &PgRow, column: usize) -> Result<Id, sqlx::Error> {
    Id::new(row.try_get(column)?).map_err(undecodable)
}

fn undecodable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}
