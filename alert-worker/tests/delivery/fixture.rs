//! A test's database, topics and contacts, and workers in this process that a test can stop.

use std::str::FromStr;
use std::time::Duration;

use alert_worker::delivery::{self, About, DeliveryConfig, Heartbeats, OutboxRow};
use anyhow::{Result, ensure};
use contacts::webhook::WebhookConfig;
use ledger_core::event::{Basis, Channel, Recipients, Unit};
use ledger_core::policy::alert::{Audience, Firing, Kind};
use ledger_core::value::id::{EventId, NameError, Text};
use local_stack::TestSpace;
use payments::ProviderName;
use platform::kafka::{self, Appender, KafkaOptions};
use platform::pg::{self, PgPool};
use platform::shutdown::CancellationToken;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Longer than anything here takes.
pub const WAIT_MAX: Duration = Duration::from_secs(120);
pub const FROM: &str = "Ledger <ledger@example.test>";

pub struct Fixture {
    pub pool: PgPool,
    pub kafka: KafkaOptions,
    pub alerts: Appender,
    // Last, so that its database and topics are dropped after everything that uses them.
    pub space: TestSpace,
}

pub struct Worker {
    stop: CancellationToken,
    running: JoinHandle<Result<()>>,
}

impl Worker {
    /// Stops it as SIGTERM does.
    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.running.await?
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    pub id: String,
    pub channel: String,
    pub recipient: String,
    pub status: String,
    pub attempts: i32,
    pub is_sent: bool,
    pub error: String,
    pub subject: String,
    pub text: String,
}

type NotificationColumns = (String, String, String, String, i32, bool, String, String, String);

impl Fixture {
    pub async fn new() -> Result<Fixture> {
        let space = TestSpace::new().await?;
        let kafka = KafkaOptions::new(&space.kafka_brokers, &space.topic_prefix, 2);
        let pool = pg::connect(&space.database_url, "test", 16).await?;
        pg::migrate(&pool).await?;
        let identity = kafka::prepare(&kafka, &pool).await?;
        let alerts = Appender::new(&kafka, &kafka.topics().alerts, identity.partitions)?;
        Ok(Fixture { pool, kafka, alerts, space })
    }

    /// Starts a worker that tries three times, at short intervals.
    pub fn work(&self, config: DeliveryConfig) -> Worker {
        let stop = CancellationToken::new();
        let (pool, alerts) = (self.pool.clone(), self.alerts.clone());
        let running =
            delivery::run(config, ProviderName::Sandbox, pool, alerts, Heartbeats::default(), stop.clone());
        Worker { stop, running: tokio::spawn(running) }
    }

    /// Puts firings into the outbox, as the alerts' fold does; returns how many of them are new.
    pub async fn fire(&self, rows: &[OutboxRow]) -> Result<u64> {
        let mut transaction = self.pool.begin().await?;
        let new = delivery::enqueue(&mut transaction, rows).await?;
        transaction.commit().await?;
        Ok(new)
    }

    /// Sets an account's contacts: admins as (id, address).
    pub async fn set_admins(&self, account: &str, admins: &[(&str, &str)]) -> Result<()> {
        let admins: Vec<Value> =
            admins.iter().map(|(id, email)| json!({"id": id, "name": "A person", "email": email})).collect();
        sqlx::query(
            "insert into control.contacts (account_id, admins, users, updated_at)
             values ($1, $2::text::json, '[]', now())
             on conflict (account_id) do update set admins = excluded.admins",
        )
        .bind(account)
        .bind(Value::from(admins).to_string())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Sets an account's webhook and the secret that signs.
    pub async fn set_webhook(&self, account: &str, url: &str, secret: &str) -> Result<()> {
        sqlx::query(
            "insert into control.contacts (account_id, admins, users, webhook_url, webhook_secret, updated_at)
             values ($1, '[]', '[]', $2, $3, now())
             on conflict (account_id) do update
             set webhook_url    = excluded.webhook_url,
                 webhook_secret = excluded.webhook_secret",
        )
        .bind(account)
        .bind(url)
        .bind(secret)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    pub async fn execute(&self, sql: &'static str) -> Result<()> {
        sqlx::query(sql).execute(&self.pool).await?;
        Ok(())
    }

    /// Returns all notifications, by recipient and channel.
    pub async fn notifications(&self) -> Result<Vec<Notification>> {
        let rows: Vec<NotificationColumns> = sqlx::query_as(
            "select notification_id, channel, recipient, status, attempts, sent_at is not null,
                    coalesce(last_error, ''), subject, text
             from delivery.notification
             order by recipient, channel, notification_id",
        )
        .fetch_all(&self.pool)
        .await?;
        let standing = rows.into_iter().map(|row| {
            let (id, channel, recipient, status, attempts, is_sent, error, subject, text) = row;
            Notification { id, channel, recipient, status, attempts, is_sent, error, subject, text }
        });
        Ok(standing.collect())
    }

    /// Waits until there are `count` notifications, all with this status.
    pub async fn all(&self, count: usize, status: &str) -> Result<Vec<Notification>> {
        let end = Instant::now() + WAIT_MAX;
        loop {
            let found = self.notifications().await?;
            if found.len() == count && found.iter().all(|one| one.status == status) {
                return Ok(found);
            }
            ensure!(Instant::now() < end, "not {count} {status}: {found:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until there is exactly one notification and it meets the condition.
    pub async fn one(&self, holds: impl Fn(&Notification) -> bool) -> Result<Notification> {
        let end = Instant::now() + WAIT_MAX;
        loop {
            let found = self.notifications().await?;
            match &found[..] {
                [one] if holds(one) => return Ok(one.clone()),
                _ => ensure!(Instant::now() < end, "not so: {found:?}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Settings with waits short enough for a test.
pub fn soon(smtp_url: &str) -> DeliveryConfig {
    DeliveryConfig {
        smtp_url: smtp_url.to_owned(),
        mail_from: FROM.to_owned(),
        webhook: WebhookConfig { webhook_allow_private: true },
        delivery_interval_ms: 20,
        delivery_first_backoff_ms: 50,
        delivery_attempts: 3,
        notifications_keep_days: 400,
    }
}

pub fn id<T: FromStr<Err = NameError>>(text: &str) -> T {
    text.parse().expect("an id")
}

/// An alert at 75 percent used that notifies all admins by these channels.
pub fn alert(account: &str, channels: &[Channel]) -> OutboxRow {
    OutboxRow {
        account_id: id(account),
        firing: Firing {
            firing_id: Uuid::new_v4(),
            kind: Kind::OrgAlert,
            alert_id: Some(id("a75")),
            subject: id(account),
            threshold: "75".parse().expect("an amount"),
            threshold_version: 1,
            period_index: 0,
            figure: "75.2".parse().expect("an amount"),
            fired_at: "2026-02-03T10:00:00Z".parse().expect("a time"),
            event_id: EventId::new("msg-1:1").expect("an id"),
            audience: Audience {
                recipients: Recipients::AllAdmins,
                channels: channels.to_vec(),
                notify_user: false,
            },
        },
        about: About {
            name: Some(Text::new("Acme").expect("a text")),
            unit: Unit::Credits,
            timezone: "Europe/Berlin".parse().expect("a zone"),
            period_starts_at: "2026-01-31T23:00:00Z".parse().expect("a time"),
            period_ends_at: "2026-02-28T23:00:00Z".parse().expect("a time"),
            basis: Some(Basis::PercentUsed),
        },
        is_from_before: false,
    }
}
