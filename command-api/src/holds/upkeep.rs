//! Upkeep: marks expired holds, and deletes old holds, decisions and first answers to writes.
//!
//! No request waits for it: reads ignore expired holds whether they are marked or not.

use std::time::Duration;

use ledger_core::value::id::AccountId;
use platform::heartbeat::Heartbeat;
use platform::periodic::{Rounds, every};
use platform::pg::{self, PgConnection, PgPool};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::HoldsConfig;
use super::request::Ask;
use crate::app::App;

/// Pause between two searches for settling holds whose usage is projected.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two searches for expired holds.
const EXPIRE_PAUSE: Duration = Duration::from_secs(10);
/// Pause between two deletions of old rows.
const DROP_PAUSE: Duration = Duration::from_secs(600);
/// Delay of the first deletion, short enough that a process that restarts often deletes as well.
const FIRST_DROP: Duration = Duration::from_secs(300);
const ACCOUNTS_MAX: i64 = 1_000;
const DROPPED_MAX: i64 = 5_000;
/// Usage older than 35 days is refused (`request::limits::TOO_OLD_SECONDS`): no usage can settle a hold that ended
/// before.
const HOLD_DAYS: i32 = 40;

pub async fn keep_up(app: App, config: HoldsConfig, heartbeat: Heartbeat, shutdown: CancellationToken) {
    let upkeep = Upkeep {
        app,
        config,
        shutdown: shutdown.clone(),
        expire_at: Instant::now() + EXPIRE_PAUSE,
        drop_at: Instant::now() + FIRST_DROP,
        expired_after: String::new(),
    };
    every(SETTLE_PAUSE, &shutdown, &heartbeat, upkeep).await;
}

struct Upkeep {
    app: App,
    config: HoldsConfig,
    shutdown: CancellationToken,
    expire_at: Instant,
    drop_at: Instant,
    /// The last account searched for expired holds.
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

// The usage of a halted account is behind its checkpoint and not folded: its holds wait, and take nobody's turn.
const SETTLED: &str = r#"
    select distinct hold.account_id
    from control.hold
    join checkpoint on checkpoint.partition = hold."partition"
    where hold.state = 'settling' and checkpoint.next_offset > hold."offset"
      and not exists (select from halted where halted.account_id = hold.account_id)
    limit $1"#;

async fn settled(app: &App) -> Result<Vec<String>, sqlx::Error> {
    pg::read(&app.pool, app.waiter.schema(), |connection| {
        Box::pin(async move { sqlx::query_scalar(SETTLED).bind(ACCOUNTS_MAX).fetch_all(connection).await })
    })
    .await
}

/// Ends expired holds, a bounded number of accounts at each round.
async fn expire(app: &App, after: &mut String) -> Result<(), sqlx::Error> {
    let rows = sqlx::query_file!("src/holds/holding.sql", after.as_str(), ACCOUNTS_MAX);
    let rows = rows.fetch_all(pg::bounded(&app.pool)).await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|read| read == ACCOUNTS_MAX);
    *after = rows.last().filter(|_| is_full).map(|last| last.account_id.clone()).unwrap_or_default();
    let due = rows.into_iter().filter(|row| row.is_due).map(|row| row.account_id).collect();
    sweep(app, Ok(due)).await
}

/// Deletes holds, decisions and first answers past their retention, until `shutdown`.
pub async fn drop_old(
    pool: &PgPool,
    config: HoldsConfig,
    shutdown: &CancellationToken,
) -> Result<(), sqlx::Error> {
    let days = |days: u32| i32::try_from(days).unwrap_or(i32::MAX);
    drop_all(pool, Old::Holds, HOLD_DAYS, shutdown).await?;
    drop_all(pool, Old::Decisions, days(config.decisions_days), shutdown).await?;
    drop_all(pool, Old::Answers, days(config.idempotency_days), shutdown).await
}

/// What is deleted once it is old.
#[derive(Debug, Clone, Copy)]
enum Old {
    Holds,
    Decisions,
    /// First answers to writes with an id of their own.
    Answers,
}

impl Old {
    /// Deletes at most [`DROPPED_MAX`] rows older than `days`, and returns how many.
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
            Old::Answers => {
                sqlx::query_file_scalar!("src/holds/drop_answers.sql", days, DROPPED_MAX)
                    .fetch_one(connection)
                    .await
            }
        }
    }
}

/// Deletes in chunks, which keeps locks short, until no old row is left.
async fn drop_all(
    pool: &PgPool,
    old: Old,
    days: i32,
    shutdown: &CancellationToken,
) -> Result<(), sqlx::Error> {
    while !shutdown.is_cancelled() {
        let dropped = pg::write(pool, move |connection| {
            Box::pin(async move {
                // The planner can't know that old rows are few or none: it would scan the whole table for them.
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
