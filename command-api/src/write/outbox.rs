//! Outbox relay: appends records whose process crashed or whose append was not acknowledged.
//!
//! A decision's own process appends its records at once. A record that settles a hold is noted with the hold.

use std::time::Duration;

use engine::outbox::{self, Waiting};
use platform::heartbeat::Heartbeat;
use platform::periodic::{Rounds, every};
use platform::position::Position;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::app::App;
use crate::holds::request::{Ask, Landed};

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(500);
/// Pause between two measurements of the age of the oldest record.
const GAUGE_PAUSE: Duration = Duration::from_secs(5);

pub async fn relay(app: App, heartbeat: Heartbeat, shutdown: CancellationToken) {
    every(PAUSE, &shutdown, &heartbeat, Relay { app, gauge_at: Instant::now() }).await;
}

struct Relay {
    app: App,
    gauge_at: Instant,
}

impl Rounds for Relay {
    async fn round(&mut self) -> anyhow::Result<Duration> {
        if Instant::now() >= self.gauge_at {
            self.gauge_at = Instant::now() + GAUGE_PAUSE;
            if let Ok(seconds) = outbox::oldest_seconds(&self.app.pool).await {
                metrics::gauge!("ledger_outbox_oldest_seconds").set(seconds);
            }
        }
        let relayed = relay_once(&self.app).await?;
        // The next record of the same account may follow each relayed one.
        Ok(if relayed > 0 { Duration::ZERO } else { PAUSE })
    }
}

/// Returns how many records the journal has acknowledged.
async fn relay_once(app: &App) -> Result<usize, sqlx::Error> {
    let waiting = outbox::take_due(&app.pool).await?;
    if waiting.is_empty() {
        return Ok(0);
    }
    let appended = outbox::append(&app.journal, &waiting).await;
    let relayed = appended.len();
    info!(done = relayed, of = waiting.len(), "relayed from the outbox");
    let (landed, done): (Vec<_>, Vec<_>) =
        appended.into_iter().partition(|(one, _)| one.reservation.is_some());
    outbox::done(&app.pool, done.iter().map(|(one, _)| one.outbox_id).collect()).await?;
    // A record whose position is not stored is relayed again, and folds to a duplicate.
    for (one, position) in landed {
        note(app, one, position).await;
    }
    Ok(relayed)
}

async fn note(app: &App, one: &Waiting, position: Position) {
    let Some(reservation) = one.reservation.clone() else { return };
    let (event_id, source) = (one.event_id.clone(), one.source.clone());
    app.holds.notify(&one.account, Ask::Landed(Landed { reservation, event_id, source, position })).await;
}
