//! Drain: a service that is stopped finishes what it has begun, within seconds.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::client::{Load, open_accounts};
use crate::fleet::Fleet;

/// The limit for each stop, and for the fastest: a machine that stalls delays some of them, but not all.
const DRAIN_MAX: Duration = Duration::from_secs(30);
const FASTEST_MAX: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_stopped_under_load_drains_and_loses_nothing() -> Result<()> {
    let mut fleet = Fleet::start_alone(&["projector", "command-api", "alert-worker", "query-api"]).await?;
    open_accounts(&fleet).await?;
    let load = Load::start(&fleet)?;
    let mut fastest = Duration::MAX;
    for service in ["command-api", "projector", "alert-worker", "query-api"] {
        sleep(Duration::from_millis(700)).await;
        let stopped_at = Instant::now();
        fleet.signal(service, Signal::SIGTERM)?;
        let status = fleet.ended(service, DRAIN_MAX).await?;
        ensure!(status.success(), "{service} ended with {status}");
        fastest = fastest.min(stopped_at.elapsed());
        fleet.launch(service, None)?;
        fleet.ready(service).await?;
    }
    ensure!(fastest < FASTEST_MAX, "{fastest:?}");
    let sent = load.finish().await?;
    fleet.verify(sent).await
}
