//! Waiting for a position to be projected.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use engine::progress::{WaitConfig, Waiter};
use engine::progress_channel::payload;
use platform::pg::{self, Model, PgPool, Schema};
use platform::position::Position;
use platform::shutdown::CancellationToken;
use sqlx::AssertSqlSafe;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{FIRST, database};

const SECOND: Schema = Schema { model: Model::ReadModel, generation: 2 };

async fn put_checkpoint(pool: &PgPool, schema: Schema, partition: i32, next_offset: i64) -> Result<()> {
    let sql = format!(
        "insert into {schema}.checkpoint (partition, next_offset, fold_version, log_id)
         values ($1, $2, 1, $3)
         on conflict (partition) do update set next_offset = excluded.next_offset"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(partition).bind(next_offset).bind(Uuid::nil()).execute(pool).await?;
    Ok(())
}

async fn notify(pool: &PgPool, channel: &str, text: &str) -> Result<()> {
    sqlx::query("select pg_notify($1, $2)").bind(channel).bind(text).execute(pool).await?;
    Ok(())
}

fn at(partition: i32, offset: i64) -> Position {
    Position { partition, offset }
}

fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_waiter_is_notified_of_a_batch_and_polls_as_well() -> Result<()> {
    let database = database().await?;
    let pool = database.pool.clone();
    put_checkpoint(&pool, FIRST, 3, 5).await?;
    let waiter =
        Waiter::listen(pool.clone(), Model::ReadModel, WaitConfig::default(), CancellationToken::new())
            .await?;
    assert!(waiter.wait_for(at(3, 4), Instant::now()).await, "projected before it came");
    assert!(!waiter.wait_for(at(3, 5), Instant::now() + Duration::from_millis(600)).await);

    // The payload is in no table: only the notification can have woken the waiter.
    let text = payload(FIRST, &[at(3, 6)]).context("short")?;
    eventually(async || {
        notify(&pool, engine::progress_channel::PROJECTED_CHANNEL, &text).await?;
        Ok(waiter.wait_for(at(3, 5), Instant::now() + Duration::from_millis(100)).await)
    })
    .await?;

    // In the table, without a notification.
    put_checkpoint(&pool, FIRST, 4, 10).await?;
    assert!(waiter.wait_for(at(4, 9), within(30)).await);
    assert_eq!(waiter.next_offset(4), 10);
    Ok(())
}

#[tokio::test]
async fn a_waiter_goes_on_after_its_connection_is_cut() -> Result<()> {
    let database = database().await?;
    let pool = database.pool.clone();
    let waiter =
        Waiter::listen(pool.clone(), Model::ReadModel, WaitConfig::default(), CancellationToken::new())
            .await?;
    let listening = "select count(*) from pg_stat_activity
                      where datname = current_database() and query like 'LISTEN%'";
    eventually(async || Ok(sqlx::query_scalar::<_, i64>(listening).fetch_one(&pool).await? == 1)).await?;
    sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and query like 'LISTEN%'",
    )
    .execute(&pool)
    .await?;
    let text = payload(FIRST, &[at(1, 1)]).context("short")?;
    eventually(async || {
        notify(&pool, engine::progress_channel::PROJECTED_CHANNEL, &text).await?;
        Ok(waiter.wait_for(at(1, 0), Instant::now() + Duration::from_millis(100)).await)
    })
    .await
}

#[tokio::test]
async fn a_waiter_follows_a_flip() -> Result<()> {
    let database = database().await?;
    let pool = database.pool.clone();
    let waiter =
        Waiter::listen(pool.clone(), Model::ReadModel, WaitConfig::default(), CancellationToken::new())
            .await?;
    assert_eq!(waiter.schema(), FIRST);
    pg::create_generation(&pool, SECOND).await?;
    put_checkpoint(&pool, SECOND, 3, 9).await?;
    assert!(!waiter.wait_for(at(3, 8), Instant::now() + Duration::from_millis(400)).await, "not live yet");
    let mut flip = pool.begin().await?;
    pg::flip(&mut flip, SECOND).await?;
    flip.commit().await?;
    assert!(waiter.wait_for(at(3, 8), within(30)).await);
    assert_eq!(waiter.schema(), SECOND);
    Ok(())
}

/// Retries until the check holds, at most as long as a reconnect may take.
async fn eventually(check: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let end = within(60);
    while !check().await? {
        ensure!(Instant::now() < end, "not within 60 s");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
