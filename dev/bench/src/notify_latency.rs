//! Notify latency: the time from acknowledging usage that fires an alert until the mail server has accepted the mail.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use alert_worker::delivery::DeliveryConfig;
use anyhow::{Context, Result, ensure};
use ledger_core::value::time::Time;
use platform::clock;
use platform::pg::{self, PgPool};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::environment::Environment;
use crate::load;
use crate::measured::{Measured, quantile};
use crate::running::{StartLedger, measured_in};
use crate::visible::{Client, Floor};

/// Accounts that the events are spread over.
const ACCOUNTS: usize = 100;
/// Events of one request, all of one account.
const BATCH_EVENTS: usize = 100;
/// Requests per second: 1,000 events/s.
const BATCHES_PER_SECOND: usize = 10;
/// How many seconds the load lasts.
const SECONDS: usize = 30;
/// Alerts of each account, at equal distances in credits: a request of 38 credits passes about two.
const ALERTS: usize = 10;
const CREDITS_APART: usize = 20;
/// How long the last mail may take.
const LAST_MAIL_MAX: Duration = Duration::from_secs(60);

/// Measures a running ledger that sends to a mail server in this process.
pub async fn run(start: StartLedger) -> Result<Measured> {
    let environment = Environment::new().await?;
    let server = MailServer::start().await?;
    let delivery = DeliveryConfig {
        smtp_url: format!("smtp://{}", server.0),
        mail_from: "Ledger <ledger@example.test>".to_owned(),
        ..DeliveryConfig::default()
    };
    measured_in(environment, delivery, start, async |environment, ledger| {
        measure(environment, &Client::of(ledger)).await
    })
    .await
}

async fn measure(environment: &Environment, client: &Client) -> Result<Measured> {
    client.open_accounts(ACCOUNTS).await?;
    set_alerts(client).await?;
    let mut floor = Floor::new(environment).await?;
    let acknowledged: Arc<Mutex<HashMap<usize, Time>>> = Arc::default();
    let mut ticks = interval(Duration::from_secs(1) / u32::try_from(BATCHES_PER_SECOND)?);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut requests: JoinSet<Result<()>> = JoinSet::new();
    let mut floor_times = Vec::new();
    for number in 0..SECONDS * BATCHES_PER_SECOND {
        ticks.tick().await;
        let (client, acknowledged) = (client.clone(), Arc::clone(&acknowledged));
        requests.spawn(async move {
            client.send(number, ACCOUNTS, BATCH_EVENTS).await?;
            acknowledged.lock().expect("not poisoned").insert(number, clock::now());
            Ok(())
        });
        floor_times.push(floor.once().await?);
    }
    while let Some(ended) = requests.join_next().await {
        ended??;
    }
    let acknowledged = std::mem::take(&mut *acknowledged.lock().expect("not poisoned"));
    let pool = pg::connect(&environment.database_url, "bench", 1).await?;
    let mut times = mails(&pool, &acknowledged).await?;
    let (p50, p99) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
    Ok(Measured {
        more: json!({"events_per_second": BATCHES_PER_SECOND * BATCH_EVENTS, "mails": times.len(),
                     "p50_ms": (p50 * 1e3).round()}),
        ..Measured::new(
            "notify-latency",
            "ms p99 from acknowledged to taken by the mail server",
            p99 * 1e3,
            (
                "one record from a bare producer's acknowledgement to a bare consumer, and one row committed",
                quantile(&mut floor_times, 0.99) * 1e3,
            ),
            "p99 under 1,000 ms at 1,000 events/s",
        )
    })
}

async fn set_alerts(client: &Client) -> Result<()> {
    for number in 0..ACCOUNTS {
        let account = load::account(number);
        let contacts = json!({"admins": [{"id": "carl", "email": "carl@example.test"}]});
        client.put(&format!("/v1/accounts/{account}/contacts"), &contacts).await?;
        for alert in 1..=ALERTS {
            let threshold = (alert * CREDITS_APART).to_string();
            let rule = json!({"basis": "absolute_used", "threshold": threshold, "channels": ["email"]});
            client.put(&format!("/v1/accounts/{account}/alerts/a{alert}?wait=false"), &rule).await?;
        }
    }
    Ok(())
}

/// Waits until every firing has been mailed, and returns how long each mail took.
async fn mails(pool: &PgPool, acknowledged: &HashMap<usize, Time>) -> Result<Vec<f64>> {
    let until = Instant::now() + LAST_MAIL_MAX;
    loop {
        let waiting: i64 = sqlx::query_scalar(
            "select (select count(*) from delivery.outbox where expanded_at is null)
                  + (select count(*) from delivery.notification where status <> 'delivered')",
        )
        .fetch_one(pool)
        .await?;
        let behind = pg::live_generation(pool, pg::Model::Alerting).await?.context("alerts")?;
        if waiting == 0 && notified(pool).await? >= expected(acknowledged.len()) {
            break;
        }
        ensure!(Instant::now() < until, "{waiting} are still to be notified, {behind}");
        sleep(Duration::from_millis(200)).await;
    }
    let rows: Vec<(String, chrono::DateTime<chrono::Utc>)> = sqlx::query_as(
        "select outbox.firing ->> 'event_id', notification.sent_at
         from delivery.notification
         join delivery.outbox using (firing_id)",
    )
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|(event, sent_at)| {
            let number: usize = event.trim_start_matches("msg-").parse()?;
            let from =
                acknowledged.get(&(number / BATCH_EVENTS)).context("a request that was acknowledged")?;
            let micros = pg::time_of(*sent_at).micros() - from.micros();
            Ok(micros.max(0) as f64 / 1e6)
        })
        .collect()
}

async fn notified(pool: &PgPool) -> Result<usize> {
    let count: i64 = sqlx::query_scalar("select count(*) from delivery.notification").fetch_one(pool).await?;
    Ok(usize::try_from(count)?)
}

/// How many alerts this many requests pass: each is 38 credits on the account whose turn it is.
fn expected(requests: usize) -> usize {
    (0..ACCOUNTS)
        .map(|account| {
            let turns = requests / ACCOUNTS + usize::from(account < requests % ACCOUNTS);
            (turns * BATCH_EVENTS * 38 / 100 / CREDITS_APART).min(ALERTS)
        })
        .sum()
}

/// A mail server that accepts everything.
struct MailServer(SocketAddr);

impl MailServer {
    async fn start() -> Result<MailServer> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream));
            }
        });
        Ok(MailServer(address))
    }
}

async fn converse(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 mail.test ready\r\n").await?;
    let (mut line, mut in_data) = (String::new(), false);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let verb = line.trim_end().split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let answer: &[u8] = match verb.as_str() {
            "." if in_data => {
                in_data = false;
                b"250 taken\r\n"
            }
            _ if in_data => continue,
            "EHLO" => b"250-mail.test\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
            "DATA" => {
                in_data = true;
                b"354 go on\r\n"
            }
            "QUIT" => b"221 bye\r\n",
            _ => b"250 fine\r\n",
        };
        stream.write_all(answer).await?;
    }
}
