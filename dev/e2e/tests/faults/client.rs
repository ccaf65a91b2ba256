//! Client: a producer that sends each event until it is acknowledged, and counts what it sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use platform::http_client;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::fleet::{Fleet, OPERATOR_KEY};

/// Every event's price.
pub const CREDITS: &str = "0.25";
pub const ACCOUNTS: usize = 12;
const USERS: usize = 5;
/// Events of one request: one in three requests is a single event.
const BATCH: usize = 7;
const WORKERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(30);
/// Longest outage in these tests.
const PATIENCE: Duration = Duration::from_secs(90);
/// Longest wait for the broker to store one record, before a new client tries.
const STORED_MAX: Duration = Duration::from_secs(22);
/// Longest wait for an answer: kills cut answers short, and a lost one must not block a worker.
const ANSWER_MAX: Duration = Duration::from_secs(25);

/// The requests that were not accepted.
#[derive(Debug, Default)]
pub struct Refusals {
    pub lost: AtomicUsize,
    /// 503 with `Retry-After`.
    pub unavailable: AtomicUsize,
}

/// Workers that send until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    pub refusals: Arc<Refusals>,
    workers: JoinSet<Result<usize>>,
}

/// Opens the accounts of the load.
pub async fn open_accounts(fleet: &Fleet) -> Result<()> {
    let client = http_client::builder().timeout(ANSWER_MAX).build()?;
    for number in 0..ACCOUNTS {
        let body = json!({"account_id": format!("account-{number}"), "clock": "live", "usd_per_unit": "0.01",
                          "plan": {"cycle": "monthly", "allowance": "100", "on_exhausted": "allow"}});
        write(fleet, &client, Method::POST, "/v1/accounts", &body).await?;
        set_rules(fleet, &client, &format!("account-{number}")).await?;
    }
    Ok(())
}

/// Sets rules that the load reaches sooner or later.
async fn set_rules(fleet: &Fleet, client: &Client, account: &str) -> Result<()> {
    let everyone = json!({"basis": "percent_used", "threshold": "5"});
    // The provider charges, and does not answer until the call is repeated.
    let top_up = json!({"enabled": true, "basis": "available_balance", "threshold": "100", "amount": "100",
                        "payment_method": "pm_timeout", "max_per_period": 1000});
    let late = json!({"basis": "absolute_remaining", "threshold": "80"});
    for (path, body) in [
        ("alerts/early", everyone),
        ("alerts/late", late),
        ("user-alert", json!({"threshold": "1", "notify_user": true})),
        ("limits", json!({"default_limit": "3", "excluded_features": ["free"]})),
        ("limits/users/guest", json!({"limit": "7"})),
        ("auto-top-up", top_up),
    ] {
        write(fleet, client, Method::PUT, &format!("/v1/accounts/{account}/{path}"), &body).await?;
    }
    Ok(())
}

/// Writes as the operator.
pub async fn write(fleet: &Fleet, client: &Client, method: Method, path: &str, body: &Value) -> Result<()> {
    let request = client.request(method, format!("{}{path}", fleet.command_url)).bearer_auth(OPERATOR_KEY);
    let answer = request.json(body).send().await?;
    let status = answer.status();
    ensure!(status.is_success(), "{path}: {status}: {}", answer.text().await?);
    Ok(())
}

impl Load {
    /// Starts sending over HTTP and through the ingress topic.
    pub fn start(fleet: &Fleet) -> Result<Load> {
        let stop = Arc::new(AtomicBool::new(false));
        let refusals = Arc::<Refusals>::default();
        let mut workers = JoinSet::new();
        let client = http_client::builder().timeout(ANSWER_MAX).build()?;
        for worker in 0..WORKERS {
            let producer = Producer {
                client: client.clone(),
                url: format!("{}/v1/events", fleet.command_url),
                refusals: Arc::clone(&refusals),
            };
            workers.spawn(producer.run(worker, Arc::clone(&stop)));
        }
        let kafka = KafkaProducer { brokers: fleet.kafka.brokers.clone(), topic: fleet.kafka.topics().usage };
        workers.spawn(kafka.run(Arc::clone(&stop)));
        Ok(Load { stop, refusals, workers })
    }

    /// Stops sending, waits until all is acknowledged, and returns how many events that were.
    pub async fn finish(mut self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sent = 0;
        while let Some(worker) = self.workers.join_next().await {
            sent += worker??;
        }
        Ok(sent)
    }
}

struct Producer {
    client: reqwest::Client,
    url: String,
    refusals: Arc<Refusals>,
}

impl Producer {
    async fn run(self, worker: usize, stop: Arc<AtomicBool>) -> Result<usize> {
        let mut sent = 0;
        let mut request = 0;
        while !stop.load(Ordering::Relaxed) {
            let count = if request % 3 == 0 { 1 } else { BATCH };
            let events: Vec<Value> =
                (sent..sent + count).map(|number| event(&format!("http-{worker}"), number)).collect();
            self.send_until_taken(&events).await?;
            sent += count;
            request += 1;
            sleep(PAUSE / 10).await;
        }
        Ok(sent)
    }

    async fn send_until_taken(&self, events: &[Value]) -> Result<()> {
        let (media_type, body) = match events {
            [one] => ("application/cloudevents+json", one.to_string()),
            many => ("application/cloudevents-batch+json", serde_json::to_string(many)?),
        };
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let request = self.client.post(&self.url).bearer_auth(OPERATOR_KEY);
            let request = request.header("content-type", media_type).body(body.clone());
            let Ok(answer) = request.send().await else {
                self.refusals.lost.fetch_add(1, Ordering::Relaxed);
                sleep(PAUSE).await;
                continue;
            };
            let status = answer.status();
            if status == 503 {
                ensure!(answer.headers().contains_key("retry-after"), "503 without Retry-After");
                self.refusals.unavailable.fetch_add(1, Ordering::Relaxed);
                sleep(PAUSE).await;
                continue;
            }
            // A kill may cut the answer short: then whether the request was accepted is unknown.
            let Ok(body) = answer.text().await else { continue };
            ensure!(status == 202 || status == 200, "{status}: {body}");
            let answer: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
            ensure!(answer.get("refused").is_none_or(|refused| *refused == 0), "{body}");
            return Ok(());
        }
        anyhow::bail!("not taken in {PATIENCE:?}")
    }
}

/// Writes to the ingress topic.
struct KafkaProducer {
    brokers: String,
    topic: String,
}

impl KafkaProducer {
    async fn run(self, stop: Arc<AtomicBool>) -> Result<usize> {
        let mut client = self.client()?;
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            self.send_until_stored(&mut client, &event("kafka", sent)).await?;
            sent += 1;
            sleep(PAUSE / 10).await;
        }
        Ok(sent)
    }

    /// Sends an event, after each timeout by a new client: one of librdkafka's may wait on for ever for a broker that
    /// was killed or frozen and is back.
    async fn send_until_stored(&self, client: &mut FutureProducer, event: &Value) -> Result<()> {
        let key = event["subject"].as_str().unwrap_or_default().to_owned();
        let value = event.to_string();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let record = FutureRecord::to(&self.topic).key(&key).payload(&value);
            match client.send(record, STORED_MAX).await {
                Ok(_) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut), _))
                    if Instant::now() + STORED_MAX < deadline =>
                {
                    *client = self.client()?;
                }
                Err((error, _)) => return Err(error).context("the ingress topic"),
            }
        }
    }

    fn client(&self) -> Result<FutureProducer> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2")
            .set("message.timeout.ms", STORED_MAX.as_millis().to_string());
        Ok(config.create()?)
    }
}

fn event(who: &str, number: usize) -> Value {
    json!({
        "specversion": "1.0", "id": format!("{who}-{number}"), "source": "/faults",
        "type": "ledger.usage.recorded.v1", "subject": format!("account-{}", number % ACCOUNTS),
        "time": platform::clock::now().to_string(),
        "data": {"user_id": format!("user-{}", number % USERS), "credits": CREDITS},
    })
}
