//! Sends the notifications of one channel, with bounded concurrency.

use std::sync::Arc;
use std::time::Duration;

use ledger_core::event::Channel;
use platform::heartbeat::Heartbeat;
use platform::pg::PgPool;
use platform::shutdown::CancellationToken;
use platform::{clock, failpoint};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};
use web::quota::Slots;

use super::attempt::{Failure, pause_after};
use super::config::DeliveryConfig;
use super::mail::Mailer;
use super::notification::{self, Due, Room};
use super::webhook::Caller;

/// Concurrent mails of one worker.
const MAILS_MAX: usize = 16;
/// Concurrent webhook calls of one worker.
const CALLS_MAX: usize = 64;
/// The part of them that one account may have, and the part that one target may have of the calls: a receiver that accepts
/// and never answers holds no more.
const SHARE: usize = 4;
/// Pause before another look at a target that has its share.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// How long a stop waits for running sends; the whole stop must take less than 10 s.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(7);

#[derive(Clone)]
enum Sender {
    Mail(Box<Mailer>),
    Webhook(Box<Caller>),
    /// Parks all notifications, for this reason.
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
        Ok(Sender::Webhook(Box::new(Caller::new(pool.clone(), config.webhook, CALLS_MAX / SHARE)?)))
    }

    async fn send(&self, due: &Due) -> Result<(), Failure> {
        match self {
            Sender::Mail(mailer) => mailer.send(due, clock::now()).await,
            Sender::Webhook(caller) => caller.send(due, clock::now()).await,
            Sender::Nothing(reason) => Err(Failure::park(reason)),
        }
    }
}

/// Leases and sends the notifications of one channel.
#[derive(Clone)]
pub(super) struct ChannelSender {
    channel: Channel,
    sender: Sender,
    pool: PgPool,
    /// Signals that something may be due before the next round.
    pub wake: Arc<Notify>,
    first_backoff: Duration,
    attempts_max: i32,
    sends_max: usize,
    /// What each account holds of the concurrent sends.
    sends: Arc<Slots>,
}

impl ChannelSender {
    /// Sends mails; parks them if no mail server is configured.
    pub fn of_mails(config: &DeliveryConfig, pool: &PgPool) -> anyhow::Result<ChannelSender> {
        Ok(ChannelSender::new(Channel::Email, Sender::mail(config)?, config, pool, MAILS_MAX))
    }

    pub fn of_webhooks(config: &DeliveryConfig, pool: &PgPool) -> anyhow::Result<ChannelSender> {
        Ok(ChannelSender::new(Channel::Webhook, Sender::webhook(config, pool)?, config, pool, CALLS_MAX))
    }

    fn new(
        channel: Channel,
        sender: Sender,
        config: &DeliveryConfig,
        pool: &PgPool,
        sends_max: usize,
    ) -> ChannelSender {
        ChannelSender {
            channel,
            sender,
            pool: pool.clone(),
            wake: Arc::default(),
            first_backoff: Duration::from_millis(config.delivery_first_backoff_ms),
            attempts_max: config.delivery_attempts,
            sends_max,
            sends: Arc::new(Slots::with_share(sends_max, sends_max / SHARE)),
        }
    }

    /// Sends due notifications until `shutdown`, then finishes the running sends.
    pub async fn run(&self, pause: Duration, heartbeat: &Heartbeat, shutdown: &CancellationToken) {
        let mut sending = JoinSet::new();
        while !shutdown.is_cancelled() {
            let free = self.sends_max - sending.len();
            heartbeat.beat();
            let leased = if free == 0 { Vec::new() } else { self.lease(free, heartbeat).await };
            let is_more = free > 0 && leased.len() == free;
            if free == 0 {
                // Each send has a time limit of its own.
                heartbeat.rest();
            }
            for due in leased {
                let worker = self.clone();
                let share = self.sends.take(&due.account_id.as_str().into());
                sending.spawn(async move {
                    worker.attempt(&due).await;
                    drop(share);
                });
            }
            // With free slots and nothing due, wait for the pause; with none free, wait for the first send to end.
            tokio::select! {
                Some(_) = sending.join_next() => {}
                () = self.wake.notified() => {}
                () = sleep(pause), if !is_more || sending.is_empty() => {}
                () = shutdown.cancelled() => {}
            }
        }
        self.drain(sending).await;
    }

    /// A send that does not end in time is repeated after its lease has expired.
    async fn drain(&self, mut sending: JoinSet<()>) {
        let ended = async { while sending.join_next().await.is_some() {} };
        if timeout(DRAIN_TIME_MAX, ended).await.is_err() {
            warn!(channel = self.channel.as_str(), "cut off notifications that were being sent");
        }
    }

    async fn lease(&self, rows_max: usize, heartbeat: &Heartbeat) -> Vec<Due> {
        let room = Room { rows_max, per_account: self.sends_max / SHARE, held: self.sends.held() };
        match notification::lease(&self.pool, self.channel, &room).await {
            Ok(leased) => {
                heartbeat.rest();
                leased
            }
            Err(error) => {
                warn!(channel = self.channel.as_str(), %error, "nothing can be leased, tried again");
                heartbeat.fail(error.to_string());
                Vec::new()
            }
        }
    }

    /// Sends one notification and records the result; if recording fails, the lease expires and it is sent again.
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
            Err(Failure::Busy) => ("busy", notification::postpone(&self.pool, due, BUSY_PAUSE).await),
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
        notification::delivered(&self.pool, due).await
    }

    async fn retry(&self, due: &Due, reason: &str, after: Option<Duration>) -> Result<(), sqlx::Error> {
        let pause = pause_after(due.attempts, self.first_backoff, after);
        let (id, attempts) = (&due.notification_id, due.attempts);
        warn!(
            account_id = due.account_id,
            notification_id = id,
            attempts,
            reason,
            ?pause,
            "notification not delivered yet"
        );
        notification::retry(&self.pool, due, pause, reason).await
    }

    async fn park(&self, due: &Due, reason: &str) -> Result<(), sqlx::Error> {
        let (id, attempts) = (&due.notification_id, due.attempts);
        warn!(account_id = due.account_id, notification_id = id, attempts, reason, "notification parked");
        notification::park(&self.pool, due, reason).await
    }
}
