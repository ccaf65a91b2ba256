//! Kills: at each step where it matters; `campaign` kills at random.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::client::{Load, open_accounts};
use crate::fleet::{Fleet, PARTITIONS};

const ALL: [&str; 3] = ["projector", "command-api", "alert-worker"];
/// A service aborts as soon as the load passes its failpoint.
const ABORT_MAX: Duration = Duration::from_secs(120);
/// Longer than a consumer's session with the broker: the group gives its partitions to another.
const FROZEN: Duration = Duration::from_secs(13);

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_loses_nothing_and_counts_nothing_twice() -> Result<()> {
    let mut fleet = Fleet::start(&ALL).await?;
    open_accounts(&fleet).await?;
    let load = Load::start(&fleet)?;
    for (service, failpoint) in [
        ("command-api", "api.before_append:20"),
        ("command-api", "api.after_append:20"),
        ("command-api", "ingress.before_append:3"),
        ("command-api", "ingress.after_append:3"),
        ("projector", "projector.before_commit:5"),
        ("projector", "projector.after_commit:5"),
        ("alert-worker", "alert-worker.before_commit:5"),
        ("alert-worker", "alert-worker.after_commit:5"),
    ] {
        fleet.kill(service)?;
        fleet.launch(service, Some(failpoint))?;
        fleet.aborted(service, ABORT_MAX).await?;
        fleet.launch(service, None)?;
        fleet.ready(service).await?;
    }
    let lost = load.refusals.lost.load(std::sync::atomic::Ordering::Relaxed);
    ensure!(lost > 0, "no client felt a kill");
    let sent = load.finish().await?;
    fleet.verify(sent).await?;
    ensure!(fleet.notified().await? > 0, "nothing has fired");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_wakes_up_after_its_partitions_were_given_away_writes_nothing() -> Result<()> {
    let mut fleet = Fleet::start(&[&ALL[..], &["projector.2", "alert-worker.2"]].concat()).await?;
    open_accounts(&fleet).await?;
    let load = Load::start(&fleet)?;
    sleep(Duration::from_secs(2)).await;
    for frozen in ["projector", "alert-worker"] {
        fleet.signal(frozen, Signal::SIGSTOP)?;
    }
    sleep(FROZEN).await;
    for frozen in ["projector", "alert-worker"] {
        fleet.signal(frozen, Signal::SIGCONT)?;
    }
    sleep(Duration::from_secs(2)).await;
    // And back: the process that was idle takes over.
    fleet.kill("projector.2")?;
    fleet.kill("alert-worker.2")?;
    let sent = load.finish().await?;
    fleet.verify(sent).await
}

/// Less than the session of the process that was killed, which others would wait for.
const BACK_MAX: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn a_named_process_that_was_killed_folds_on_within_seconds_of_its_start() -> Result<()> {
    let mut fleet = Fleet::start_alone(&["projector"]).await?;
    fleet.set_env(
        "projector",
        vec![("LEDGER_INSTANCE_ID".to_owned(), "the projector of this test".to_owned())],
    );
    // Once without measuring: the member without a name has to leave the group.
    for measured in [false, true] {
        let before = claims(&fleet).await?;
        fleet.kill("projector")?;
        fleet.launch("projector", None)?;
        fleet.ready("projector").await?;
        let ready = Instant::now();
        while claims(&fleet).await?.iter().any(|claim| before.contains(claim)) {
            ensure!(ready.elapsed() < ABORT_MAX, "some partition was never claimed again");
            sleep(Duration::from_millis(50)).await;
        }
        ensure!(!measured || ready.elapsed() < BACK_MAX, "folds on only after {:?}", ready.elapsed());
    }
    Ok(())
}

/// Returns the claim of each partition, once there are all of them.
async fn claims(fleet: &Fleet) -> Result<Vec<Uuid>> {
    let deadline = Instant::now() + ABORT_MAX;
    loop {
        let claims: Vec<Uuid> =
            sqlx::query_scalar("select epoch from read_model_1.checkpoint where epoch is not null")
                .fetch_all(&fleet.pool)
                .await?;
        if i32::try_from(claims.len()) == Ok(PARTITIONS) {
            return Ok(claims);
        }
        ensure!(Instant::now() < deadline, "only {} partitions were claimed", claims.len());
        sleep(Duration::from_millis(50)).await;
    }
}
