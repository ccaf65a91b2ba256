//! Drain: a service that is told to stop ends what it has begun, and soon.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tokio::time::sleep;

use crate::client::{Load, open_accounts};
use crate::fleet::Fleet;

const DRAIN_MAX: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_service_told_to_stop_under_load_drains_and_loses_nothing() -> Result<()> {
    let mut fleet = Fleet::start_alone(&["projector", "command-api", "alert-worker", "query-api"]).await?;
    open_accounts(&fleet).await?;
    let load = Load::start(&fleet)?;
    for service in ["command-api", "projector", "alert-worker", "query-api"] {
        sleep(Duration::from_millis(700)).await;
        fleet.signal(service, Signal::SIGTERM)?;
        let status = fleet.ended(service, DRAIN_MAX).await?;
        ensure!(status.success(), "{service} ended with {status}");
        fleet.launch(service, None)?;
        fleet.ready(service).await?;
    }
    let sent = load.finish().await?;
    fleet.verify(sent).await
}
