//! Delivery: publishes firings from the outbox to `ledger.alerts`, and notifies people and programs.
//!
//! Four tasks, each of which any number of workers may run concurrently: *publish* firings, *expand* them to a
//! notification per recipient and channel, and *send* mails and webhooks, each channel separately, so that a slow one
//! does not block the others. A notification is leased, sent outside of any transaction, then marked; if the worker is
//! killed in between, it is sent again with the same id. So delivery is at least once, and receivers detect repeats by
//! the id.

mod attempt;
mod config;
mod error;
mod expand;
mod mail;
mod notice;
mod notification;
mod outbox;
mod publish;
mod retention;
#[cfg(test)]
mod samples;
mod send;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ledger_core::event::Channel;
use payments::ProviderName;
use platform::heartbeat::{Heartbeat, supervise};
use platform::kafka::Appender;
use platform::periodic::{Rounds, every};
use platform::pg::PgPool;
use platform::shutdown::CancellationToken;

pub use config::DeliveryConfig;
pub use notice::Notice;
pub(crate) use notification::park_waiting;
pub use outbox::{About, OutboxRow, enqueue};
pub use publish::{FIRED, event_of};
pub use retention::drop_old;

use send::ChannelSender;

/// Pause between two counts of waiting and parked notifications.
const BACKLOG_PAUSE: Duration = Duration::from_secs(5);

/// Pause between two rounds of retention.
const DROP_PAUSE: Duration = Duration::from_secs(600);

/// The signs of life of the tasks.
#[derive(Debug, Clone)]
pub struct Heartbeats {
    publish: Heartbeat,
    expand: Heartbeat,
    count: Heartbeat,
    retention: Heartbeat,
    mails: Heartbeat,
    webhooks: Heartbeat,
}

impl Default for Heartbeats {
    fn default() -> Self {
        Self {
            publish: Heartbeat::new("delivery.publish"),
            expand: Heartbeat::new("delivery.expand"),
            count: Heartbeat::new("delivery.count"),
            retention: Heartbeat::new("delivery.retention"),
            mails: Heartbeat::new("delivery.mails"),
            webhooks: Heartbeat::new("delivery.webhooks"),
        }
    }
}

impl Heartbeats {
    pub fn all(&self) -> [&Heartbeat; 6] {
        [&self.publish, &self.expand, &self.count, &self.retention, &self.mails, &self.webhooks]
    }
}

/// Delivers until `shutdown`, each task under supervision; `payer` is the provider named in notices. Fails only on an
/// invalid setting.
pub async fn run(
    config: DeliveryConfig,
    payer: ProviderName,
    pool: PgPool,
    alerts: Appender,
    heartbeats: Heartbeats,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let pause = Duration::from_millis(config.delivery_interval_ms);
    let mails = ChannelSender::of_mails(&config, &pool)?;
    let webhooks = ChannelSender::of_webhooks(&config, &pool)?;
    let wake = [mails.wake.clone(), webhooks.wake.clone()];
    let tasks = Tasks { pool, shutdown: shutdown.clone() };
    let publishing = tasks.supervised(pause, &heartbeats.publish, move |pool| {
        let alerts = alerts.clone();
        async move { publish::round(&pool, &alerts).await }
    });
    let expanding = tasks.supervised(pause, &heartbeats.expand, move |pool| {
        let wake = wake.clone();
        async move {
            let expanded = expand::round(&pool, payer).await?;
            if expanded.notifications > 0 {
                wake.iter().for_each(|channel| channel.notify_one());
            }
            Ok(expanded.is_more)
        }
    });
    let counting = tasks.supervised(BACKLOG_PAUSE, &heartbeats.count, |pool| async move {
        count(&pool).await.map(|()| false)
    });
    let days = config.notifications_keep_days;
    let dropping = tasks.supervised(DROP_PAUSE, &heartbeats.retention, move |pool| async move {
        Ok(drop_old(&pool, days).await?)
    });
    let mailing = tasks.sending(pause, &heartbeats.mails, mails);
    let calling = tasks.sending(pause, &heartbeats.webhooks, webhooks);
    tokio::try_join!(publishing, expanding, counting, dropping, mailing, calling)?;
    Ok(())
}

struct Tasks {
    pool: PgPool,
    shutdown: CancellationToken,
}

impl Tasks {
    /// Runs one task in rounds, on clones of the pool, until the shutdown.
    async fn supervised<F>(
        &self,
        pause: Duration,
        heartbeat: &Heartbeat,
        round: impl Fn(PgPool) -> F + Send + Sync + 'static,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<bool>> + Send + 'static,
    {
        let pool = self.pool.clone();
        let round: Round = Arc::new(move || Box::pin(round(pool.clone())));
        supervise(heartbeat.clone(), self.shutdown.clone(), || {
            let (shutdown, heartbeat) = (self.shutdown.clone(), heartbeat.clone());
            let task = Task { pause, shutdown: shutdown.clone(), round: Arc::clone(&round) };
            async move { every(pause, &shutdown, &heartbeat, task).await }
        })
        .await
    }

    async fn sending(
        &self,
        pause: Duration,
        heartbeat: &Heartbeat,
        sender: ChannelSender,
    ) -> anyhow::Result<()> {
        supervise(heartbeat.clone(), self.shutdown.clone(), || {
            let (shutdown, heartbeat, sender) = (self.shutdown.clone(), heartbeat.clone(), sender.clone());
            async move { sender.run(pause, &heartbeat, &shutdown).await }
        })
        .await
    }
}

type Round = Arc<dyn Fn() -> BoxFuture<'static, anyhow::Result<bool>> + Send + Sync>;

/// A delivery task; its next round follows at once if the last one left work.
struct Task {
    pause: Duration,
    shutdown: CancellationToken,
    round: Round,
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
