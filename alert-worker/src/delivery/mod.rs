//! Delivery: publishes firings from the outbox to `ledger.alerts`, and notifies people and programs.
//!
//! Four tasks, each of which any number of workers may run concurrently: *publish* firings, *expand* them to a
//! notification per recipient and channel, and *send* mails and webhooks, each channel separately, so that a slow one
//! does not block the others. A notification is leased, sent outside of any transaction, then marked; if the worker is
//! killed in between, it is sent again with the same id. So delivery is at least once, and receivers detect repeats by
//! the id.

mod attempt;
mod config;
mod contacts;
mod error;
mod expand;
mod mail;
mod notice;
mod notification;
mod outbox;
mod publish;
mod redeliver;
mod retention;
#[cfg(test)]
mod samples;
mod send;
mod target;
mod webhook;

use std::time::Duration;

use futures::future::BoxFuture;
use ledger_core::event::Channel;
use payments::ProviderName;
use platform::kafka::Appender;
use platform::periodic::{Rounds, every};
use platform::pg::PgPool;
use platform::shutdown::CancellationToken;

pub use config::DeliveryConfig;
pub use notice::Notice;
pub use outbox::{About, OutboxRow, enqueue};
pub use publish::{FIRED, event_of};
pub use redeliver::{Redelivery, Which, redeliver};
pub use retention::drop_old;

use send::ChannelSender;

/// Pause between two counts of waiting and parked notifications.
const BACKLOG_PAUSE: Duration = Duration::from_secs(5);

/// Pause between two rounds of retention.
const DROP_PAUSE: Duration = Duration::from_secs(600);

/// Delivers until `shutdown`; `payer` is the provider named in notices. Fails only on an invalid setting.
pub async fn run(
    config: DeliveryConfig,
    payer: ProviderName,
    pool: PgPool,
    alerts: Appender,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let pause = Duration::from_millis(config.delivery_interval_ms);
    let mails = ChannelSender::of_mails(&config, &pool)?;
    let webhooks = ChannelSender::of_webhooks(&config, &pool)?;
    let publishing = run_rounds(pause, &shutdown, "publish", &pool, move |pool| {
        let alerts = alerts.clone();
        async move { publish::round(&pool, &alerts).await }
    });
    let wake = [mails.wake.clone(), webhooks.wake.clone()];
    let expanding = run_rounds(pause, &shutdown, "expand", &pool, move |pool| {
        let wake = wake.clone();
        async move {
            let expanded = expand::round(&pool, payer).await?;
            if expanded.notifications > 0 {
                wake.iter().for_each(|channel| channel.notify_one());
            }
            Ok(expanded.is_more)
        }
    });
    let counting = run_rounds(BACKLOG_PAUSE, &shutdown, "count", &pool, |pool| async move {
        count(&pool).await.map(|()| false)
    });
    let days = config.notifications_keep_days;
    let dropping = run_rounds(DROP_PAUSE, &shutdown, "drop", &pool, move |pool| async move {
        Ok(drop_old(&pool, days).await?)
    });
    tokio::join!(
        publishing,
        expanding,
        counting,
        dropping,
        mails.run(pause, &shutdown),
        webhooks.run(pause, &shutdown)
    );
    Ok(())
}

/// A delivery task; its next round follows at once if the last one left work.
struct Task {
    pause: Duration,
    shutdown: CancellationToken,
    round: Box<dyn Fn() -> BoxFuture<'static, anyhow::Result<bool>> + Send + Sync>,
}

impl Rounds for Task {
    /// Safe to drop at any moment: its transaction runs on a task of its own.
    async fn round(&mut self) -> anyhow::Result<Duration> {
        let is_more = tokio::select! {
            ended = (self.round)() => ended?,
            () = self.shutdown.cancelled() => false,
        };
        Ok(if is_more { Duration::ZERO } else { self.pause })
    }
}

/// Runs one task of delivery on clones of the pool until `shutdown`.
async fn run_rounds<F>(
    pause: Duration,
    shutdown: &CancellationToken,
    what: &'static str,
    pool: &PgPool,
    round: impl Fn(PgPool) -> F + Send + Sync + 'static,
) where
    F: Future<Output = anyhow::Result<bool>> + Send + 'static,
{
    let pool = pool.clone();
    let round = Box::new(move || -> BoxFuture<'static, _> { Box::pin(round(pool.clone())) });
    every(pause, shutdown, what, Task { pause, shutdown: shutdown.clone(), round }).await;
}

/// Records the metrics of waiting and parked notifications.
async fn count(pool: &PgPool) -> anyhow::Result<()> {
    let backlog = notification::backlog(pool).await?;
    for channel in Channel::ALL {
        let found = backlog.iter().find(|found| found.channel == channel.as_str());
        let (pending, parked) = found.map_or((0, 0), |found| (found.pending, found.parked));
        metrics::gauge!("ledger_notifications_pending", "channel" => channel.as_str()).set(pending as f64);
        metrics::gauge!("ledger_notifications_parked", "channel" => channel.as_str()).set(parked as f64);
    }
    Ok(())
}
