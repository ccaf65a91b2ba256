//! Past rows: usage and users' own limits as they stood at an instant, from the rows of the account's events.
//!
//! The tables of sums hold the present alone. An event's row says when it was reversed, so usage of the past is read
//! from the events of the periods asked for: time grows with their number, memory does not.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use ledger_core::account::Core;
use ledger_core::event::{Data, Limit, Usage, wire};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::UserId;
use ledger_core::value::time::{Time, Zone};
use platform::pg::{self, columns};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use web::http::Problem;

use crate::as_of::{At, EVENTS_MAX};
use crate::reading::Account;

/// Where the rows of a stretch of an account's history are, by offset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// All of them come after this offset.
    pub after: i64,
    /// None comes after this one. An entry may stand at it: what time alone did is booked with the next event.
    pub last: i64,
}

/// Returns where the rows from `from` to a state are. Snapshots bound them, at most 1,000 events too far on each side.
pub(crate) async fn bounds(
    connection: &mut PgConnection,
    account: &Account,
    from: Time,
    at: At,
) -> Result<Bounds, sqlx::Error> {
    let row = sqlx::query(
        r#"select (select "offset"
                     from snapshot
                    where account_id = $1
                      and ledger_time < $2
                    order by ledger_time desc, "offset" desc
                    limit 1) as after,
                  (select "offset"
                     from snapshot
                    where account_id = $1
                      and ledger_time > $3
                    order by ledger_time, "offset"
                    limit 1) as last"#,
    )
    .bind(account.id())
    .bind(pg::timestamp(from))
    .bind(pg::timestamp(at.time))
    .fetch_one(connection)
    .await?;
    let (after, last): (Option<i64>, Option<i64>) = (row.try_get("after")?, row.try_get("last")?);
    Ok(Bounds { after: after.unwrap_or(-1), last: last.unwrap_or(i64::MAX) })
}

/// Returns the statement's condition that event `e` is usage which had applied at a state; `$1` is the account and `$2`
/// the state's time.
pub(crate) fn is_usage(bounds: Bounds, at: At) -> String {
    let last = bounds.last.min(at.through);
    format!(
        r#"e.account_id = $1
           and e."offset" > {}
           and e."offset" <= {last}
           and e.ledger_time <= $2
           and e.type = 'ledger.usage.recorded.v1'
           and e.outcome = 'applied'"#,
        bounds.after
    )
}

/// Returns the statement's condition that usage `e` had been reversed at a state, whichever period that was in.
pub(crate) fn is_reversed(bounds: Bounds, at: At) -> String {
    let through = at.through;
    let last = bounds.last.min(through);
    // A row has no offset of its reversal: of one at the very instant, the reversal's own row says whether it had come.
    format!(
        r#"(e.reversed_at < $2
            or e.reversed_at = $2
               and ({through} = {max}
                    or exists (select
                                 from event as reversal
                                where reversal.account_id = $1
                                  and reversal."offset" > e."offset"
                                  and reversal."offset" <= {last}
                                  and reversal.ledger_time = $2
                                  and reversal.type = 'ledger.usage.reversed.v1'
                                  and reversal.outcome = 'applied'
                                  and reversal.data->>'event_id' = e.event_id
                                  and reversal.data->>'source' = e.source)))"#,
        max = i64::MAX
    )
}

/// A usage that had applied at an instant.
#[derive(Debug)]
pub(crate) struct Used {
    pub usage: Usage,
    pub credits: Credits,
    pub period_index: i64,
    pub occurred_at: Time,
    /// Whether it was reversed within its period: it counts no more.
    pub is_reversed: bool,
}

/// What usage to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// One period, and when it began; none reads all of them.
    pub period: Option<(i64, Time)>,
    pub user: Option<&'a str>,
    pub at: At,
}

/// Calls `take` with each usage, in order.
///
/// Problems: 422 where there are more than [`EVENTS_MAX`].
pub(crate) async fn each_usage(
    connection: &mut PgConnection,
    account: &Account,
    wanted: Wanted<'_>,
    mut take: impl FnMut(Used) -> Result<(), Problem> + Send,
) -> Result<(), Problem> {
    let at = wanted.at;
    let from = wanted.period.map_or(Time::MIN, |(_, starts_at)| starts_at);
    let bounds = bounds(connection, account, from, at).await?;
    let in_period =
        wanted.period.map(|(index, _)| format!("and e.period_index = {index}")).unwrap_or_default();
    let of_user = if wanted.user.is_some() { "and e.user_id = $3" } else { "and $3::text is null" };
    let sql = format!(
        r#"select e.type, e.data::text, e.credits::text, e.period_index, e.occurred_at,
                  coalesce({reversed} and (period.ends_at is null or e.reversed_at < period.ends_at), false)
                      as is_reversed
             from event as e
             left join period on period.account_id = e.account_id and period.index = e.period_index
            where {usage}
              {in_period}
              {of_user}
            order by e."offset""#,
        usage = is_usage(bounds, at),
        reversed = is_reversed(bounds, at),
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(account.id()).bind(pg::timestamp(at.time));
    let mut rows = query.bind(wanted.user).fetch(connection);
    let mut events = 0;
    while let Some(row) = rows.try_next().await? {
        events += 1;
        if events > EVENTS_MAX {
            return Err(too_long());
        }
        take(used_of(&row)?)?;
    }
    Ok(())
}

fn too_long() -> Problem {
    Problem::unprocessable("history_too_long", format!("there are more than {EVENTS_MAX} events to read"))
}

fn used_of(row: &PgRow) -> Result<Used, sqlx::Error> {
    let (event_type, data): (&str, &str) = (row.try_get("type")?, row.try_get("data")?);
    let Some(Ok(Data::UsageRecorded(usage))) = wire::data(event_type, data) else {
        return Err(columns::undecodable("an applied usage can't be read"));
    };
    Ok(Used {
        usage,
        credits: columns::amount(row, "credits")?,
        period_index: row.try_get("period_index")?,
        occurred_at: columns::time(row, "occurred_at")?,
        is_reversed: row.try_get("is_reversed")?,
    })
}

/// Returns when a period that has begun by a state began; none if the account has not had it by then.
pub(crate) async fn period_start(
    connection: &mut PgConnection,
    account: &Account,
    core: &Core,
    index: i64,
) -> Result<Option<Time>, sqlx::Error> {
    if index == core.period.index {
        return Ok(Some(core.period.starts_at));
    }
    if index > core.period.index {
        return Ok(None);
    }
    let row = sqlx::query("select starts_at from period where account_id = $1 and index = $2")
        .bind(account.id())
        .bind(index)
        .fetch_optional(connection)
        .await?;
    row.map(|row| columns::time(&row, "starts_at")).transpose()
}

/// Returns the time zone of each period that had events: days of usage are its days.
pub(crate) async fn zones(
    connection: &mut PgConnection,
    account: &Account,
) -> Result<BTreeMap<i64, Zone>, sqlx::Error> {
    let rows = sqlx::query(
        "select (core->'core'->'period'->>'index')::bigint as index,
                min(core->'core'->'periods'->'schedule'->>'timezone') as zone
           from snapshot
          where account_id = $1
          group by 1",
    )
    .bind(account.id())
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("index")?, columns::variant(row, "zone")?))).collect()
}

/// Returns the limits that users had of their own at a state.
pub(crate) async fn own_limits(
    connection: &mut PgConnection,
    account: &Account,
    core: &Core,
    at: At,
) -> Result<BTreeMap<UserId, Limit>, Problem> {
    let mut own = BTreeMap::new();
    if core.limits.is_none() {
        return Ok(own);
    }
    if core.events > EVENTS_MAX {
        return Err(too_long());
    }
    let bounds = bounds(connection, account, account.core.opened_at, at).await?;
    let mut rows = sqlx::query(
        r#"select type, data::text
             from event
            where account_id = $1
              and "offset" <= $2
              and ledger_time <= $3
              and type in ('ledger.limits.set.v1', 'ledger.user_limit.set.v1')
              and outcome = 'applied'
            order by "offset""#,
    )
    .bind(account.id())
    .bind(bounds.last.min(at.through))
    .bind(pg::timestamp(at.time))
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let (event_type, data): (&str, &str) = (row.try_get("type")?, row.try_get("data")?);
        match wire::data(event_type, data) {
            Some(Ok(Data::LimitsSet(set))) => {
                if let Some(custom) = set.custom {
                    own = custom.into_iter().collect();
                }
            }
            Some(Ok(Data::UserLimitSet(set))) => match set.limit {
                Some(limit) => {
                    own.insert(set.user_id, limit);
                }
                None => {
                    own.remove(&set.user_id);
                }
            },
            _ => return Err(columns::undecodable("applied limits can't be read").into()),
        }
    }
    Ok(own)
}
