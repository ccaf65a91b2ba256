//! Top-ups: carries out the top-ups that the fold decides, and reports their outcome to the journal.
//!
//! The fold's transaction writes its decisions (`decided`): a proposal, with its start in the outbox. Only a start that
//! the fold has *applied* is charged (`charge`), under the attempt's id, which the provider charges once, whatever the
//! number of calls and workers. Outcomes return through the outbox. Without an answer the outcome is unknown: the same
//! key is sent again, for 20 hours; then a person decides. A replay of history finds everything done.

mod charge;
mod config;
mod decided;
mod relay;
mod store;
mod wanted;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use engine::consume::WorkerError;
use payments::Provider;
use platform::heartbeat::Heartbeat;
use platform::kafka::Journal;
use platform::pg::PgPool;
use platform::shutdown::CancellationToken;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};
use uuid::Uuid;

use charge::Charger;
use wanted::Sweep;

pub use config::TopUpConfig;
pub use decided::Decided;
pub(crate) use store::{forget_open, write};

/// How long a stop waits for the provider; the whole stop must take less than 10 s.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(7);
/// Pause between two searches for attempts lost by this database, for top-ups that nobody has proposed, and for those
/// that wait for a person.
const LOOKOUT_PAUSE: Duration = Duration::from_secs(5);
/// Pause after a failed round.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// Who charges, and for which journal.
pub struct Payer {
    pub provider: Arc<dyn Provider>,
    pub log_id: Uuid,
}

/// Charges started attempts and reports the outcomes to the journal, until `shutdown`; then finishes the running
/// charges.
pub async fn run(
    config: TopUpConfig,
    pool: PgPool,
    journal: Journal,
    payer: Payer,
    heartbeat: Heartbeat,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Payer { provider, log_id } = payer;
    info!(provider = provider.name().as_str(), "topping up");
    let pause = Duration::from_millis(config.top_up_interval_ms);
    let mut charger = Charger::new(config, pool.clone(), provider, log_id);
    let mut lookout = Lookout { adopted: false, sweep: Sweep::default(), next: Instant::now() };
    let mut cut_off = pin!(drained(&shutdown));
    while !shutdown.is_cancelled() {
        heartbeat.beat();
        let done = tokio::select! {
            done = round(&pool, &journal, &mut charger, &mut lookout) => done,
            () = &mut cut_off => return Ok(()),
        };
        let wait = match done {
            Ok(()) => {
                heartbeat.rest();
                pause
            }
            Err(error) => {
                warn!(%error, "a round of top-ups failed, trying again");
                heartbeat.fail(error.to_string());
                pause.max(FAILED_PAUSE)
            }
        };
        tokio::select! {
            // The outcome is relayed at once.
            Some(()) = charger.answered() => {}
            () = shutdown.cancelled() => {}
            () = sleep(wait) => {}
        }
    }
    tokio::select! {
        () = finish(&pool, &journal, &mut charger) => {}
        // A cut-off charge was sent under a key, so the next worker gets the same answer.
        () = &mut cut_off => warn!("cut off top-ups that were being charged"),
    }
    Ok(())
}

/// Waits for the running charges, and relays their outcomes.
async fn finish(pool: &PgPool, journal: &Journal, charger: &mut Charger) {
    while charger.answered().await.is_some() {}
    if let Err(error) = relay::round(pool, journal).await {
        warn!(%error, "outcomes of top-ups are left to the next relay");
    }
}

/// Completes when a stop has waited long enough for the provider.
async fn drained(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    sleep(DRAIN_TIME_MAX).await;
}

/// The periodic searches.
struct Lookout {
    /// Whether every attempt lost by this database is found.
    adopted: bool,
    sweep: Sweep,
    next: Instant,
}

impl Lookout {
    async fn search(&mut self, pool: &PgPool) -> Result<(), WorkerError> {
        if Instant::now() < self.next {
            return Ok(());
        }
        if !self.adopted {
            self.adopted = store::adopt(pool).await?;
        }
        // While the past is still folded, what an account wants may have been done.
        if self.adopted {
            self.sweep.go_on(pool).await?;
        }
        metrics::gauge!("ledger_top_ups_parked").set(store::count_parked(pool).await? as f64);
        self.next = Instant::now() + LOOKOUT_PAUSE;
        Ok(())
    }
}

async fn round(
    pool: &PgPool,
    journal: &Journal,
    charger: &mut Charger,
    lookout: &mut Lookout,
) -> Result<(), WorkerError> {
    lookout.search(pool).await?;
    relay::round(pool, journal).await?;
    Ok(charger.charge_due().await?)
}
