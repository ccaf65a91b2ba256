//! Upkeep: marks holds that ended by themselves, and deletes old holds and decisions.
//!
//! Nothing waits for it: reads leave out what has ended whether it is marked or not.

use std::time::Duration;

use ledger_core::value::id::Id;
use platform::periodic::{Rounds, every};
use platform::pg::{self, PgPool};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::HoldsConfig;
use super::request::Ask;
use crate::app::App;

/// Between two looks for settling holds whose usage is projected.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks for holds whose time is over.
const EXPIRE_PAUSE: Duration = Duration::from_secs(10);
/// Between two looks for what is old.
const DROP_PAUSE: Duration = Duration::from_secs(600);
/// Before the first of them: a process that is restarted often drops all the same.
const FIRST_DROP: Duration = Duration::from_secs(300);
/// Accounts of one look.
const ACCOUNTS_MAX: i64 = 1_000;
/// Rows dropped by one statement.
const DROPPED_MAX: i64 = 5_000;
/// Usage is refused once it is older than 35 days (`request::limits::TOO_OLD_SECONDS`): nobody settles a hold that ended before.
const HOLD_DAYS: i32 = 40;

/// Keeps up until `shutdown`.
pub async fn keep_up(app: App, config: HoldsConfig, shutdown: CancellationToken) {
    let upkeep = Upkeep {
        app,
        config,
        shutdown: shutdown.clone(),
        expire_at: Instant::now() + EXPIRE_PAUSE,
        drop_at: Instant::now() + FIRST_DROP,
        expired_after: String::new(),
    };
    every(SETTLE_PAUSE, &shutdown, "holds", upkeep).await;
}

struct Upkeep {
    app: App,
    config: HoldsConfig,
    shutdown: CancellationToken,
    expire_at: Instant,
    drop_at: Instant,
    /// The last account that was looked at for expired holds.
    expired_after: String,
}

impl Rounds for Upkeep {
    async fn round(&mut self) -> anyhow::Result<Duration> {
        let app = &self.app;
        note(sweep(app, settled(app).await).await);
        if Instant::now() >= self.expire_at {
            self.expire_at = Instant::now() + EXPIRE_PAUSE;
            note(expire(app, &mut self.expired_after).await);
        }
        if Instant::now() >= self.drop_at {
            self.drop_at = Instant::now() + DROP_PAUSE;
            note(drop_old(&app.pool, self.config, &self.shutdown).await);
        }
        Ok(SETTLE_PAUSE)
    }
}

fn note(done: Result<(), sqlx::Error>) {
    if let Err(error) = done {
        warn!(%error, "holds could not be kept up, trying again");
    }
}

async fn sweep(app: &App, accounts: Result<Vec<String>, sqlx::Error>) -> Result<(), sqlx::Error> {
    for account in accounts? {
        let account = Id::new(&account).map_err(|error| sqlx::Error::Decode(error.into()))?;
        app.holds.notify(&account, Ask::Sweep).await;
    }
    Ok(())
}

const SETTLED: &str = r#"
    select distinct hold.account_id
    from control.hold
    join checkpoint on checkpoint.partition = hold."partition"
    where hold.state = 'settling' and checkpoint.next_offset > hold."offset"
    limit $1"#;

/// Returns accounts with settling holds whose usage is projected.
async fn settled(app: &App) -> Result<Vec<String>, sqlx::Error> {
    pg::read(&app.pool, app.waiter.schema(), |connection| {
        Box::pin(async move { sqlx::query_scalar(SETTLED).bind(ACCOUNTS_MAX).fetch_all(connection).await })
    })
    .await
}

// From one account to the next by the index, and the first hold to end of each, however many it has.
const HOLDING: &str = "
    with recursive holding as (
        (select account_id
         from control.hold
         where state = 'held' and account_id > $1
         order by account_id
         limit 1)
        union all
        select next.account_id
        from holding
        cross join lateral (
            select hold.account_id
            from control.hold
            where hold.state = 'held' and hold.account_id > holding.account_id
            order by hold.account_id
            limit 1
        ) as next
    )
    select account_id,
           coalesce((select hold.expires_at <= clock_timestamp()
                     from control.hold
                     where hold.account_id = holding.account_id and hold.state = 'held'
                     order by hold.account_id, hold.expires_at
                     limit 1), false)
    from holding
    limit $2";

/// Sweeps accounts with holds whose time is over, some at each look.
async fn expire(app: &App, after: &mut String) -> Result<(), sqlx::Error> {
    let rows: Vec<(String, bool)> =
        sqlx::query_as(HOLDING).bind(after.as_str()).bind(ACCOUNTS_MAX).fetch_all(&app.pool).await?;
    *after = match rows.last() {
        Some((last, _)) if rows.len() as i64 == ACCOUNTS_MAX => last.clone(),
        _ => String::new(),
    };
    let due = rows.into_iter().filter(|(_, due)| *due).map(|(account, _)| account).collect();
    sweep(app, Ok(due)).await
}

// What a request has locked this moment is left for the next time. The clock is read once, and so the index is used.
// With a hold goes the sum of its user where that is 0; who holds again gets a new one.
const DROP_HOLDS: &str = "
    with dropped as (
        delete from control.hold
        where ctid = any(array(
            select ctid
            from control.hold
            where state in ('settled', 'released', 'expired')
              and created_at < (select clock_timestamp()) - make_interval(days => $1)
            limit $2
            for update skip locked))
        returning account_id, user_id, coalesce(feature, '') as feature
    ),
    emptied as (
        delete from control.user_hold
        using (select distinct account_id, user_id, feature from dropped where user_id is not null) as user_of
        where user_hold.account_id = user_of.account_id
          and user_hold.user_id    = user_of.user_id
          and user_hold.feature    = user_of.feature
          and user_hold.held       = 0
    )
    select count(*) from dropped";

const DROP_DECISIONS: &str = "
    with dropped as (
        delete from control.decision
        where ctid = any(array(
            select ctid
            from control.decision
            where logged_at < (select clock_timestamp()) - make_interval(days => $1)
            limit $2
            for update skip locked))
        returning 1
    )
    select count(*) from dropped";

/// Drops holds and decisions that are older than they are kept, until `shutdown`.
pub async fn drop_old(
    pool: &PgPool,
    config: HoldsConfig,
    shutdown: &CancellationToken,
) -> Result<(), sqlx::Error> {
    let days = i32::try_from(config.decisions_days).unwrap_or(i32::MAX);
    drop_all(pool, DROP_HOLDS, HOLD_DAYS, shutdown).await?;
    drop_all(pool, DROP_DECISIONS, days, shutdown).await
}

/// Drops piece by piece, so that nobody waits for long, until nothing so old is left.
async fn drop_all(
    pool: &PgPool,
    statement: &'static str,
    days: i32,
    shutdown: &CancellationToken,
) -> Result<(), sqlx::Error> {
    while !shutdown.is_cancelled() {
        let dropped = pg::write(pool, move |connection| {
            Box::pin(async move {
                // Old rows are few or none, which the planner can't know: it would read a table to its end for them.
                sqlx::raw_sql("set local enable_seqscan = off").execute(&mut *connection).await?;
                let drop = sqlx::query_scalar::<_, i64>(statement);
                drop.bind(days).bind(DROPPED_MAX).fetch_one(connection).await
            })
        });
        if dropped.await? < DROPPED_MAX {
            break;
        }
    }
    Ok(())
}
