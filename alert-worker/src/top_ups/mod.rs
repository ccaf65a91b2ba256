//! Top-ups: carries out what the fold asks for, and tells the journal what came of it.
//!
//! What the fold wants is written down in its own transaction (`decided`): a proposal with its start in the outbox. Only a
//! start that the fold has *applied* is charged (`charge`), under the attempt's id, which the provider charges once however
//! often and by however many workers it is asked. Outcomes go back by the outbox. An answer that does not come is unknown:
//! the same key is asked again, for 20 hours; then a person decides. Replaying history finds everything done.

mod charge;
mod decided;
mod person;
mod relay;
mod store;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use platform::kafka::Journal;
use platform::pg::PgPool;
use platform::shutdown::CancellationToken;
use payments::{CALL_TIME_MAX, Provider};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use charge::Asker;

pub use decided::Decided;
pub use person::{DecideError, Decision, decide};
pub(crate) use store::write;

/// Milliseconds between two looks, unless told otherwise.
const INTERVAL_MS: u64 = 100;
/// Milliseconds before an unknown outcome is asked for again, unless told otherwise.
const FIRST_BACKOFF_MS: u64 = 5_000;

/// Calls that one attempt may need: a look-up, the payment method's owner, the charge, and a look-up where it was refused.
const CALLS_MAX: u64 = 4;
/// Milliseconds that the database may take beside them.
const LEASE_SLACK_MS: u64 = 20_000;
/// Milliseconds of a lease, unless told otherwise: it ends by itself only where the worker is gone.
const LEASE_MS: u64 = CALLS_MAX * CALL_TIME_MAX.as_millis() as u64 + LEASE_SLACK_MS;

/// How long a stop waits for the provider; the whole stop must stay under 10 s.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(7);
/// Between two looks for attempts that this database has lost, and for those that wait for a person.
const LOOKOUT_PAUSE: Duration = Duration::from_secs(5);
/// Between two looks where the first one failed.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// How top-ups run.
#[derive(Debug, Clone, Args)]
pub struct TopUpConfig {
    /// Milliseconds between two looks for top-ups to be charged
    #[arg(long, env = "LEDGER_TOP_UP_INTERVAL_MS", default_value_t = INTERVAL_MS, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub top_up_interval_ms: u64,
    /// Milliseconds before the payment provider is asked again what it did not answer; each further pause is twice the one before, an hour at most
    #[arg(long, env = "LEDGER_TOP_UP_FIRST_BACKOFF_MS", default_value_t = FIRST_BACKOFF_MS, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    pub top_up_first_backoff_ms: u64,
    /// Milliseconds after which another worker asks about an attempt whose worker does not say what came of it; longer than four calls of 20 s may take
    #[arg(long, env = "LEDGER_TOP_UP_LEASE_MS", default_value_t = LEASE_MS, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub top_up_lease_ms: u64,
}

impl Default for TopUpConfig {
    fn default() -> Self {
        Self {
            top_up_interval_ms: INTERVAL_MS,
            top_up_first_backoff_ms: FIRST_BACKOFF_MS,
            top_up_lease_ms: LEASE_MS,
        }
    }
}

/// Charges what has started and tells the journal, until `shutdown`; what is being charged is finished first.
pub async fn run(
    config: TopUpConfig,
    pool: PgPool,
    journal: Journal,
    provider: Arc<dyn Provider>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    info!(provider = provider.name().as_str(), "topping up");
    let pause = Duration::from_millis(config.top_up_interval_ms);
    let mut asker = Asker::new(config, pool.clone(), provider);
    let mut lookout = Lookout { adopted: false, next: Instant::now() };
    let mut cut_off = pin!(drained(&shutdown));
    while !shutdown.is_cancelled() {
        let done = tokio::select! {
            done = round(&pool, &journal, &mut asker, &mut lookout) => done,
            () = &mut cut_off => return Ok(()),
        };
        let wait = match done {
            Ok(()) => pause,
            Err(error) => {
                warn!(%error, "a round of top-ups failed, trying again");
                pause.max(FAILED_PAUSE)
            }
        };
        tokio::select! {
            // What it came to is relayed at once.
            Some(()) = asker.answered() => {}
            () = shutdown.cancelled() => {}
            () = sleep(wait) => {}
        }
    }
    tokio::select! {
        () = finish(&pool, &journal, &mut asker) => {}
        // Who is cut off here has asked under a key, and whoever asks next gets the same answer.
        () = &mut cut_off => warn!("cut off top-ups that were being charged"),
    }
    Ok(())
}

/// Waits for what is being asked, and relays what it came to.
async fn finish(pool: &PgPool, journal: &Journal, asker: &mut Asker) {
    while asker.answered().await.is_some() {}
    if let Err(error) = relay::round(pool, journal).await {
        warn!(%error, "outcomes of top-ups are left to whoever relays next");
    }
}

/// Completes when a stop has waited long enough for the provider.
async fn drained(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    sleep(DRAIN_TIME_MAX).await;
}

/// What is looked for now and then.
struct Lookout {
    /// Whether every attempt that this database has lost is found.
    adopted: bool,
    next: Instant,
}

impl Lookout {
    async fn look(&mut self, pool: &PgPool) -> Result<(), sqlx::Error> {
        if Instant::now() < self.next {
            return Ok(());
        }
        if !self.adopted {
            self.adopted = store::adopt(pool).await?;
        }
        metrics::gauge!("ledger_top_ups_parked").set(store::count_parked(pool).await? as f64);
        self.next = Instant::now() + LOOKOUT_PAUSE;
        Ok(())
    }
}

async fn round(
    pool: &PgPool,
    journal: &Journal,
    asker: &mut Asker,
    lookout: &mut Lookout,
) -> Result<(), sqlx::Error> {
    lookout.look(pool).await?;
    relay::round(pool, journal).await?;
    asker.ask_due().await
}
