//! Visible: the time from acknowledging an event until the balance read over HTTP includes it, under load.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use alert_worker::delivery::DeliveryConfig;
use anyhow::{Context, Result, ensure};
use platform::clock;
use platform::http_client;
use platform::kafka::Appender;
use platform::pg::{self, PgPool};
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::environment::Environment;
use crate::load;
use crate::measured::{Measured, quantile};
use crate::running::{RunningLedger, StartLedger, measured_in};

/// Accounts that the events are spread over.
const ACCOUNTS: usize = 100;
const USERS: usize = 97;
/// Events of one request, all of one account.
const BATCH_EVENTS: usize = 100;
/// Requests per second: 5,000 events/s.
const BATCHES_PER_SECOND: usize = 50;
/// Seconds that are not counted, while connections open and caches fill.
const WARM_UP: usize = 3;
const SECONDS: usize = 20;

/// Measures a running ledger against the shortest way through the same broker and database, alternating.
pub async fn run(start: StartLedger) -> Result<Measured> {
    measured_in(Environment::new().await?, DeliveryConfig::default(), start, measure).await
}

async fn measure(environment: &Environment, ledger: &RunningLedger) -> Result<Measured> {
    let client = Client::of(ledger);
    client.open_accounts(ACCOUNTS).await?;
    let mut floor = Floor::new(environment).await?;
    let times: Arc<Mutex<Vec<f64>>> = Arc::default();
    let mut floor_times = Vec::new();
    let mut ticks = interval(Duration::from_secs(1) / u32::try_from(BATCHES_PER_SECOND)?);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut requests: JoinSet<Result<()>> = JoinSet::new();
    let began = Instant::now();
    let all = (WARM_UP + SECONDS) * BATCHES_PER_SECOND;
    let sampling = tokio::spawn(async move {
        while began.elapsed().as_secs_f64() < (WARM_UP + SECONDS) as f64 {
            floor_times.push(floor.once().await?);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(floor_times)
    });
    for number in 0..all {
        ticks.tick().await;
        let (client, times) = (client.clone(), Arc::clone(&times));
        requests.spawn(async move {
            let seconds = client.send_and_see(number).await?;
            if number >= WARM_UP * BATCHES_PER_SECOND {
                times.lock().expect("not poisoned").push(seconds);
            }
            Ok(())
        });
    }
    while let Some(ended) = requests.join_next().await {
        ended??;
    }
    let rate = (all * BATCH_EVENTS) as f64 / began.elapsed().as_secs_f64();
    let mut floor_times = sampling.await??;
    let mut times = std::mem::take(&mut *times.lock().expect("not poisoned"));
    let (p50, p99) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
    let floor_p99 = quantile(&mut floor_times, 0.99);
    Ok(Measured {
        more: json!({"events_per_second": rate.round(), "p50_ms": (p50 * 1e3).round(), "samples": times.len(),
                     "ceiling_p50_ms": (quantile(&mut floor_times, 0.5) * 1e3).round()}),
        ..Measured::new(
            "visible",
            "ms p99 from acknowledged to read",
            p99 * 1e3,
            (
                "one record from a bare producer's acknowledgement to a bare consumer, and one row committed",
                floor_p99 * 1e3,
            ),
            "p99 under 150 ms at 5,000 events/s",
        )
    })
}

/// An HTTP client that writes and reads.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    key: String,
}

impl Client {
    pub fn of(ledger: &RunningLedger) -> Client {
        Client { http: http_client::plain(), url: ledger.url.clone(), key: ledger.operator_key.clone() }
    }

    pub async fn put(&self, path: &str, body: &Value) -> Result<()> {
        let put = self.http.put(format!("{}{path}", self.url)).bearer_auth(&self.key).json(body);
        put.send().await?.error_for_status().map(drop).with_context(|| path.to_owned())
    }

    pub async fn get(&self, path: &str) -> Result<Vec<u8>> {
        let get = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.key);
        let answer = get.send().await?.error_for_status()?;
        Ok(answer.bytes().await?.into())
    }

    /// Opens accounts under the benchmark's rate card.
    pub async fn open_accounts(&self, accounts: usize) -> Result<()> {
        let put = self.http.put(format!("{}/v1/rate-cards/{}", self.url, load::CARD));
        put.bearer_auth(&self.key).json(&load::rate_card()).send().await?.error_for_status()?;
        for number in 0..accounts {
            let post = self.http.post(format!("{}/v1/accounts", self.url)).bearer_auth(&self.key);
            let body = load::opening(load::account(number).as_str(), "live");
            post.json(&body).send().await?.error_for_status().context("an account did not open")?;
        }
        Ok(())
    }

    /// Sends the n-th batch, all of one account, and returns the answer and when its head arrived.
    pub async fn send(&self, number: usize, accounts: usize, events: usize) -> Result<(Value, Instant)> {
        let (account, now) = (number % accounts, clock::now().to_string());
        let first = number * events;
        let batch: Vec<String> =
            (first..first + events).map(|n| load::offered(account, n % USERS, n, &now)).collect();
        let post = self.http.post(format!("{}/v1/events", self.url)).bearer_auth(&self.key);
        let post = post.header("content-type", "application/cloudevents-batch+json");
        let answer = post.body(format!("[{}]", batch.join(","))).send().await?;
        let acknowledged = Instant::now();
        let answer: Value = answer.error_for_status()?.json().await?;
        ensure!(answer["accepted"] == events, "{answer}");
        Ok((answer, acknowledged))
    }

    /// Sends a batch, then reads the balance that includes it; returns the seconds between.
    async fn send_and_see(&self, number: usize) -> Result<f64> {
        let (answer, acknowledged) = self.send(number, ACCOUNTS, BATCH_EVENTS).await?;
        let account = number % ACCOUNTS;
        let last = &answer["items"][BATCH_EVENTS - 1]["position"];
        let position = format!("{}:{}", last["partition"], last["offset"]);
        let url = format!("{}/v1/accounts/account-{account}/balance?at_least={position}", self.url);
        let read = self.http.get(url).bearer_auth(&self.key).send().await?.error_for_status()?;
        read.bytes().await?;
        Ok(acknowledged.elapsed().as_secs_f64())
    }
}

/// The shortest way: a bare append, a bare consumer, one row.
pub(crate) struct Floor {
    appender: Appender,
    consumer: StreamConsumer,
    pool: PgPool,
    count: i64,
}

impl Floor {
    pub async fn new(environment: &Environment) -> Result<Floor> {
        let topic = environment.kafka.topics().dead_letters;
        let pool = pg::connect(&environment.database_url, "floor", 1).await?;
        sqlx::query("create table public.floor (number bigint primary key)").execute(&pool).await?;
        let consumer: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", &environment.kafka.brokers)
            .set("group.id", format!("{topic}.floor"))
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "10")
            .create()?;
        consumer.subscribe(&[&topic])?;
        let appender = Appender::new(&environment.kafka, &topic, crate::environment::PARTITIONS)?;
        let mut floor = Floor { appender, consumer, pool, count: 0 };
        floor.once().await?;
        Ok(floor)
    }

    pub async fn once(&mut self) -> Result<f64> {
        self.count += 1;
        self.appender.append(b"floor", &self.count.to_be_bytes()).await?;
        let start = Instant::now();
        self.consumer.recv().await?;
        sqlx::query("insert into public.floor values ($1)").bind(self.count).execute(&self.pool).await?;
        Ok(start.elapsed().as_secs_f64())
    }
}
