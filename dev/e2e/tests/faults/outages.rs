//! Outages: the broker and the database die under load and come back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use local_stack::{Stack, StackOptions, TestSpace};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::client::{Load, open_accounts};
use crate::fleet::{self, Fleet};

/// Longer than the timeout of an append.
const FROZEN: Duration = Duration::from_secs(14);
/// Longer than a request's timeout for a connection.
const REFUSED_MAX: Duration = Duration::from_secs(60);
/// The limit for each recovery, and for the quickest: a machine that stalls delays some, but not all.
const RESUMED_MAX: Duration = Duration::from_secs(60);
const QUICKEST_MAX: Duration = Duration::from_secs(15);

async fn own_stack() -> Result<(Stack, TempDir, Fleet)> {
    let alone = fleet::alone().await;
    let folder = tempfile::tempdir()?;
    let options = StackOptions { data_dir: folder.path().join("data"), ..StackOptions::default() };
    let stack = Stack::start(options, |_| {}).await?;
    let space = TestSpace::within(stack.kafka_brokers.clone(), stack.database_url.clone()).await?;
    let fleet = Fleet::start_on(alone, space, &["projector", "command-api", "alert-worker"]).await?;
    open_accounts(&fleet).await?;
    Ok((stack, folder, fleet))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_and_the_database_killed_under_load_are_waited_for() -> Result<()> {
    let (mut stack, folder, mut fleet) = own_stack().await?;
    let load = Load::start(&fleet)?;
    sleep(Duration::from_secs(2)).await;

    stack.kill_kafka().await?;
    sleep(Duration::from_secs(2)).await;
    stack.start_kafka().await?;
    let mut quickest = resumed(&mut fleet).await?;

    // Long enough that appends time out which the broker stores when it wakes up.
    let broker = Pid::from_raw(i32::try_from(stack.kafka_pid().context("a broker of our own")?)?);
    kill(broker, Signal::SIGSTOP)?;
    sleep(FROZEN).await;
    kill(broker, Signal::SIGCONT)?;
    quickest = quickest.min(resumed(&mut fleet).await?);
    ensure!(load.refusals.unavailable.load(Ordering::Relaxed) > 0, "no append was given up");

    sleep(Duration::from_secs(1)).await;
    let before = load.refusals.unavailable.load(Ordering::Relaxed);
    stack.stop_postgres_immediate().await?;
    let down = Instant::now();
    while load.refusals.unavailable.load(Ordering::Relaxed) == before {
        ensure!(down.elapsed() < REFUSED_MAX, "no client was told to come back later");
        sleep(Duration::from_millis(100)).await;
    }
    stack.start_postgres().await?;
    quickest = quickest.min(resumed(&mut fleet).await?);
    ensure!(quickest < QUICKEST_MAX, "{quickest:?}");

    let sent = load.finish().await?;
    fleet.verify(sent).await?;
    drop(fleet);
    stack.stop().await?;
    Ok(folder.close()?)
}

/// Waits until every service reports ready again, without a restart, and returns how long that took.
async fn resumed(fleet: &mut Fleet) -> Result<Duration> {
    let since = Instant::now();
    for service in ["projector", "command-api", "alert-worker"] {
        fleet.ready(service).await?;
    }
    ensure!(since.elapsed() < RESUMED_MAX, "resumed only after {:?}", since.elapsed());
    Ok(since.elapsed())
}
