//! Upkeep: marks holds that ended by themselves, and deletes old holds and decisions.
//!
//! Nothing waits for it: reads leave out what has ended whether it is marked or not.

use std::time::Duration;

use ledger_core::value::id::AccountId;
use platform::periodic::{Rounds, every};
use platform::pg::{self, PgConnection, PgPool};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::HoldsConfig;
use super::request::Ask;
use crate::app::App;

/// Between two searches for settling holds whose usage is projected.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);
/// Between two searches for holds whose time is over.
const EXPIRE_PAUSE: Duration = Duration::from_secs(10);
/// Between two deletions of what is old.
const DROP_PAUSE: Duration = Duration::from_secs(600);
/// Before the first of them: a process that is restarted often drops all the same.
const FIRST_DROP: Duration = Duration::from_secs(300);
/// Accounts of one search.
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
    /// The last account that was searched for expired holds.
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
        let account = AccountId::new(&account).map_err(|error| sqlx::Error::Decode(error.into()))?;
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

/// Sweeps accounts with holds whose time is over, some at each round.
async fn expire(app: &App, after: &mut String) -> Result<(), sqlx::Error> {
    let rows = sqlx::query_file!("src/holds/holding.sql", after.as_str(), ACCOUNTS_MAX);
    let rows = rows.fetch_all(&app.pool).await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|read| read == ACCOUNTS_MAX);
    *after = rows.last().filter(|_| is_full).map(|last| last.account_id.clone()).unwrap_or_default();
    let due = rows.into_iter().filter(|row| row.is_due).map(|row| row.account_id).collect();
    sweep(app, Ok(due)).await
}

/// Drops holds and decisions that are older than they are kept, until `shutdown`.
pub async fn drop_old(
    pool: &PgPool,
    config: HoldsConfig,
    shutdown: &CancellationToken,
) -> Result<(), sqlx::Error> {
    let days = i32::try_from(config.decisions_days).unwrap_or(i32::MAX);
    drop_all(pool, Old::Holds, HOLD_DAYS, shutdown).await?;
    drop_all(pool, Old::Decisions, days, shutdown).await
}

/// What is dropped once it is old.
#[derive(Debug, Clone, Copy)]
enum Old {
    Holds,
    Decisions,
}

impl Old {
    /// Drops at most [`DROPPED_MAX`] rows older than `days`, and returns how many it dropped.
    async fn drop_some(self, connection: &mut PgConnection, days: i32) -> Result<i64, sqlx::Error> {
        match self {
            Old::Holds => {
                sqlx::query_file_scalar!("src/holds/drop_holds.sql", days, DROPPED_MAX)
                    .fetch_one(connection)
                    .await
            }
            Old::Decisions => {
                sqlx::query_file_scalar!("src/holds/drop_decisions.sql", days, DROPPED_MAX)
                    .fetch_one(connection)
                    .await
            }
        }
    }
}

/// Drops piece by piece, so that nobody waits for long, until nothing so old is left.
async fn drop_all(
    pool: &PgPool,
    old: Old,
    days: i32,
    shutdown: &CancellationToken,
) -> Result<(), sqlx::Error> {
    while !shutdown.is_cancelled() {
        let dropped = pg::write(pool, move |connection| {
            Box::pin(async move {
                // Old rows are few or none, which the planner can't know: it would read a table to its end for them.
                sqlx::raw_sql("set local enable_seqscan = off").execute(&mut *connection).await?;
                old.drop_some(connection, days).await
            })
        });
        if dropped.await? < DROPPED_MAX {
            break;
        }
    }
    Ok(())
}
