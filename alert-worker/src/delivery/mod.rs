//! Delivery: firings leave the outbox for `ledger.alerts`, and for people and programs as notifications.
//!
//! Four tasks, each of which any number of workers may run at once: *publish* firings, *expand* them to a notification
//! for each recipient on each channel, and *send* mails and webhooks, each channel by itself, so that one that hangs
//! holds up no other. A notification is leased, sent outside of any transaction, then marked: killed in between, it is
//! sent again with the same id. So everything arrives at least once, and receivers can tell a repetition.

mod contacts;
mod expand;
mod kept;
mod mail;
mod notice;
mod outbox;
mod publish;
mod queue;
mod redeliver;
#[cfg(test)]
mod samples;
mod target;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::future::BoxFuture;
use ledger_core::event::Channel;
use runtime::kafka::Appender;
use runtime::payment::ProviderName;
use runtime::pg::PgPool;
use runtime::shutdown::CancellationToken;
use runtime::{clock, failpoint};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

pub use kept::drop_old;
pub use notice::Notice;
pub use outbox::{About, OutboxRow, enqueue};
pub use publish::{FIRED, event_of};
pub use redeliver::{Redelivery, Which, redeliver};

use mail::Mailer;
use queue::{Due, Failure};
use webhook::Caller;

/// Notifications of one channel that a worker sends at the same time.
const SENDS_MAX: usize = 16;
/// How long a stop waits for what is being sent; the whole stop must stay under 10 s.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(7);
/// How often what waits and what is parked is counted.
const BACKLOG_PAUSE: Duration = Duration::from_secs(5);

/// Between two looks for what is older than it is kept.
const DROP_PAUSE: Duration = Duration::from_secs(600);
/// Days that notifications are kept, unless told otherwise.
const KEEP_DAYS: u32 = 400;

/// Milliseconds between two looks, unless told otherwise.
const INTERVAL_MS: u64 = 200;
/// Milliseconds before the second attempt, unless told otherwise.
const FIRST_BACKOFF_MS: u64 = 5_000;
/// Attempts, unless told otherwise: with the pauses between them five to ten hours.
const ATTEMPTS: i32 = 20;

/// How delivery runs.
#[derive(Debug, Clone, Args)]
pub struct DeliveryConfig {
    /// The mail server, as smtp://user:password@host:587?tls=required or smtps://...; without it mails are parked
    #[arg(
        long,
        env = "LEDGER_SMTP_URL",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub smtp_url: String,
    /// Who mails are from: set it to an address of yours, which the mail server lets this machine use
    #[arg(long, env = "LEDGER_MAIL_FROM", default_value = mail::FROM)]
    pub mail_from: String,
    /// Lets webhooks call private addresses, and by plain http: for trials, and where all admins are trusted
    #[arg(long, env = "LEDGER_WEBHOOK_ALLOW_PRIVATE", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub webhook_allow_private: bool,
    /// Milliseconds between two looks for something to deliver
    #[arg(long, env = "LEDGER_DELIVERY_INTERVAL_MS", default_value_t = INTERVAL_MS, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub delivery_interval_ms: u64,
    /// Milliseconds before the second attempt; each further pause is twice the one before, an hour at most
    #[arg(long, env = "LEDGER_DELIVERY_FIRST_BACKOFF_MS", default_value_t = FIRST_BACKOFF_MS, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    pub delivery_first_backoff_ms: u64,
    /// Attempts before a notification is parked; 20 are five to ten hours
    #[arg(long, env = "LEDGER_DELIVERY_ATTEMPTS", default_value_t = ATTEMPTS, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    pub delivery_attempts: i32,
    /// Days that notifications are kept once they are delivered or parked, with the addresses that they went to
    #[arg(long, env = "LEDGER_NOTIFICATIONS_KEEP_DAYS", default_value_t = KEEP_DAYS, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub notifications_keep_days: u32,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            smtp_url: String::new(),
            mail_from: mail::FROM.to_owned(),
            webhook_allow_private: false,
            delivery_interval_ms: INTERVAL_MS,
            delivery_first_backoff_ms: FIRST_BACKOFF_MS,
            delivery_attempts: ATTEMPTS,
            notifications_keep_days: KEEP_DAYS,
        }
    }
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("a notification can't be put in words: {0}")]
    Words(#[from] askama::Error),
    #[error("a firing can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Delivers until `shutdown`; `payer` moves the money that notices tell of. An error is a setting that can't work.
pub async fn run(
    config: DeliveryConfig,
    payer: ProviderName,
    pool: PgPool,
    alerts: Appender,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let pause = Duration::from_millis(config.delivery_interval_ms);
    let mails = Lane::new(Channel::Email, Sender::mail(&config)?, &config, &pool);
    let webhooks = Lane::new(Channel::Webhook, Sender::webhook(&config, &pool)?, &config, &pool);
    let publishing = every(pause, &shutdown, "publish", || {
        let (pool, alerts) = (pool.clone(), alerts.clone());
        Box::pin(async move { publish::round(&pool, &alerts).await })
    });
    let expanding = every(pause, &shutdown, "expand", || {
        let (pool, wake) = (pool.clone(), [mails.wake.clone(), webhooks.wake.clone()]);
        Box::pin(async move {
            let expanded = expand::round(&pool, payer).await?;
            if expanded.notifications > 0 {
                wake.iter().for_each(|lane| lane.notify_one());
            }
            Ok(expanded.is_more)
        })
    });
    let counting = every(BACKLOG_PAUSE, &shutdown, "count", || {
        let pool = pool.clone();
        Box::pin(async move { count(&pool).await.map(|()| false) })
    });
    let days = config.notifications_keep_days;
    let dropping = every(DROP_PAUSE, &shutdown, "drop", || {
        let pool = pool.clone();
        Box::pin(async move { Ok(drop_old(&pool, days).await?) })
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

/// Runs rounds until `shutdown`, at once again after one that left something.
///
/// A round may be dropped at any moment: its transaction is on a task of its own, which ends by itself.
async fn every(
    pause: Duration,
    shutdown: &CancellationToken,
    what: &'static str,
    round: impl Fn() -> BoxFuture<'static, anyhow::Result<bool>>,
) {
    loop {
        let more = tokio::select! {
            ended = round() => ended,
            () = shutdown.cancelled() => return,
        };
        match more {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => warn!(what, error = format!("{error:#}"), "delivery round failed, tried again"),
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Shows how many notifications wait and how many are parked.
async fn count(pool: &PgPool) -> anyhow::Result<()> {
    let backlog = queue::backlog(pool).await?;
    for channel in Channel::ALL {
        let found = backlog.iter().find(|(name, ..)| name == channel.as_str());
        let (pending, parked) = found.map_or((0, 0), |(_, pending, parked)| (*pending, *parked));
        metrics::gauge!("ledger_notifications_pending", "channel" => channel.as_str()).set(pending as f64);
        metrics::gauge!("ledger_notifications_parked", "channel" => channel.as_str()).set(parked as f64);
    }
    Ok(())
}

/// What sends the notifications of a channel.
#[derive(Clone)]
enum Sender {
    Mail(Box<Mailer>),
    Webhook(Box<Caller>),
    /// Parks them, for this reason.
    Nothing(&'static str),
}

impl Sender {
    fn mail(config: &DeliveryConfig) -> anyhow::Result<Sender> {
        if config.smtp_url.is_empty() {
            return Ok(Sender::Nothing("no mail server is configured"));
        }
        Ok(Sender::Mail(Box::new(Mailer::new(&config.smtp_url, &config.mail_from)?)))
    }

    fn webhook(config: &DeliveryConfig, pool: &PgPool) -> anyhow::Result<Sender> {
        Ok(Sender::Webhook(Box::new(Caller::new(pool.clone(), config.webhook_allow_private)?)))
    }

    async fn send(&self, due: &Due) -> Result<(), Failure> {
        match self {
            Sender::Mail(mailer) => mailer.send(due, clock::now()).await,
            Sender::Webhook(caller) => caller.send(due, clock::now()).await,
            Sender::Nothing(reason) => Err(Failure::park(reason)),
        }
    }
}

/// Sends the notifications of one channel.
#[derive(Clone)]
struct Lane {
    channel: Channel,
    sender: Sender,
    pool: PgPool,
    /// Something may be due before the next look.
    wake: Arc<Notify>,
    first_backoff: Duration,
    attempts_max: i32,
}

impl Lane {
    fn new(channel: Channel, sender: Sender, config: &DeliveryConfig, pool: &PgPool) -> Lane {
        Lane {
            channel,
            sender,
            pool: pool.clone(),
            wake: Arc::default(),
            first_backoff: Duration::from_millis(config.delivery_first_backoff_ms),
            attempts_max: config.delivery_attempts,
        }
    }

    /// Sends what is due until `shutdown`, then lets end what is being sent.
    async fn run(&self, pause: Duration, shutdown: &CancellationToken) {
        let mut sending = JoinSet::new();
        while !shutdown.is_cancelled() {
            let free = SENDS_MAX - sending.len();
            let leased = if free == 0 { Vec::new() } else { self.lease(free).await };
            let is_more = free > 0 && leased.len() == free;
            for due in leased {
                let lane = self.clone();
                sending.spawn(async move { lane.attempt(&due).await });
            }
            // With slots free and nothing due, time decides; with none free, the first that ends.
            tokio::select! {
                Some(_) = sending.join_next() => {}
                () = self.wake.notified() => {}
                () = sleep(pause), if !is_more || sending.is_empty() => {}
                () = shutdown.cancelled() => {}
            }
        }
        self.drain(sending).await;
    }

    /// What does not end in time is sent again when its lease has run out.
    async fn drain(&self, mut sending: JoinSet<()>) {
        let ended = async { while sending.join_next().await.is_some() {} };
        if timeout(DRAIN_TIME_MAX, ended).await.is_err() {
            warn!(channel = self.channel.as_str(), "cut off notifications that were being sent");
        }
    }

    async fn lease(&self, rows_max: usize) -> Vec<Due> {
        match queue::lease(&self.pool, self.channel, rows_max).await {
            Ok(leased) => leased,
            Err(error) => {
                warn!(channel = self.channel.as_str(), %error, "nothing can be leased, tried again");
                Vec::new()
            }
        }
    }

    /// Sends one, then marks what became of it; where it can't be marked, the lease runs out and it is sent again.
    async fn attempt(&self, due: &Due) {
        let started = Instant::now();
        let sent = self.sender.send(due).await;
        failpoint::hit("delivery.after_send");
        let channel = self.channel.as_str();
        metrics::histogram!("ledger_delivery_seconds", "channel" => channel).record(started.elapsed());
        let (result, marked) = match sent {
            Ok(()) => ("delivered", self.delivered(due).await),
            Err(Failure::Retry { reason, after }) if due.attempts < self.attempts_max => {
                ("retry", self.retry(due, &reason, after).await)
            }
            Err(Failure::Retry { reason, .. }) => ("parked", self.park(due, &reason).await),
            Err(Failure::Park { reason }) => ("parked", self.park(due, &reason).await),
        };
        metrics::counter!("ledger_delivery_attempts_total", "channel" => channel, "result" => result)
            .increment(1);
        if let Err(error) = marked {
            warn!(notification_id = due.notification_id, %error, "not marked, so it will be sent again");
        }
    }

    async fn delivered(&self, due: &Due) -> Result<(), sqlx::Error> {
        debug!(account_id = due.account_id, notification_id = due.notification_id, "notification delivered");
        queue::delivered(&self.pool, due).await
    }

    async fn retry(&self, due: &Due, reason: &str, after: Option<Duration>) -> Result<(), sqlx::Error> {
        let pause = queue::pause_after(due.attempts, self.first_backoff, after);
        let (id, attempts) = (&due.notification_id, due.attempts);
        warn!(
            account_id = due.account_id,
            notification_id = id,
            attempts,
            reason,
            ?pause,
            "notification not delivered yet"
        );
        queue::retry(&self.pool, due, pause, reason).await
    }

    async fn park(&self, due: &Due, reason: &str) -> Result<(), sqlx::Error> {
        let (id, attempts) = (&due.notification_id, due.attempts);
        warn!(account_id = due.account_id, notification_id = id, attempts, reason, "notification parked");
        queue::park(&self.pool, due, reason).await
    }
}
