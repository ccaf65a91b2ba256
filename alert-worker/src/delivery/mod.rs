//! Delivery: firings leave the outbox for `ledger.alerts`, and for people and programs as notifications.
//!
//! Four tasks, each of which any number of workers may run at once: *publish* firings, *expand* them to a notification
//! for each recipient on each channel, and *send* mails and webhooks, each channel by itself, so that one that hangs
//! holds up no other. A notification is leased, sent outside of any transaction, then marked: killed in between, it is
//! sent again with the same id. So everything arrives at least once, and receivers recognize a repetition by its id.

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

/// How often what waits and what is parked is counted.
const BACKLOG_PAUSE: Duration = Duration::from_secs(5);

/// Between two rounds that delete what is older than it is kept.
const DROP_PAUSE: Duration = Duration::from_secs(600);

/// Delivers until `shutdown`; `payer` moves the money that notices mention. An error is a setting that can't work.
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

/// A task of delivery, whose rounds say whether they left something; then the next comes at once.
struct Task {
    pause: Duration,
    shutdown: CancellationToken,
    round: Box<dyn Fn() -> BoxFuture<'static, anyhow::Result<bool>> + Send + Sync>,
}

impl Rounds for Task {
    /// May be dropped at any moment: its transaction is on a task of its own, which ends by itself.
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

/// Shows how many notifications wait and how many are parked.
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
