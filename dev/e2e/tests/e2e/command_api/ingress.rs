//! The Kafka ingress: usage that producers write to Kafka.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::{SecondsFormat, Utc};
use platform::kafka::Position;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{OPENED, balance, expect_balance, expect_written, open, open_live};
use e2e::{Caller, Whole};

/// Longest wait until what was produced is in the journal or the dead letters.
const OUT_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// A producer that knows only the topic.
pub struct Producer {
    client: FutureProducer,
    pub topic: String,
}

impl Producer {
    fn new(whole: &Whole) -> Result<Producer> {
        Producer::with(whole, &[("partitioner", "murmur2_random")])
    }

    /// Connects with these settings.
    pub fn with(whole: &Whole, settings: &[(&str, &str)]) -> Result<Producer> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &whole.kafka.brokers).set("message.max.bytes", "2000000");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        Ok(Producer { client: config.create()?, topic: whole.kafka.topics().usage })
    }

    async fn send(&self, key: &str, value: &str) -> Result<Position> {
        self.send_to(None, Some(key), value).await
    }

    pub async fn send_to(&self, partition: Option<i32>, key: Option<&str>, value: &str) -> Result<Position> {
        let mut record: FutureRecord<'_, str, str> = FutureRecord::to(&self.topic).payload(value);
        record.key = key;
        record.partition = partition;
        self.produce(record).await
    }

    /// Sends a record of any kind.
    pub async fn produce(&self, record: FutureRecord<'_, str, str>) -> Result<Position> {
        let sent = self.client.send(record, OUT_MAX).await.map_err(|(error, _)| error)?;
        Ok(Position { partition: sent.partition, offset: sent.offset })
    }
}

pub fn event(account: &str, id: &str, time: &str, data: &Value) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/app", "type": "ledger.usage.recorded.v1", "subject": account,
        "time": time, "data": data
    })
}

pub fn usage(account: &str, id: &str, credits: &str) -> String {
    event(account, id, OPENED, &json!({"credits": credits, "user_id": "ana"})).to_string()
}

pub async fn await_used(operator: &Caller, account: &str, used: &str) -> Result<()> {
    let waiting = async {
        while balance(operator, account).await?["used"] != used {
            tokio::time::sleep(POLL).await;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(OUT_MAX, waiting).await {
        Ok(done) => done,
        Err(_) => anyhow::bail!("{account} does not come to {used}: {}", balance(operator, account).await?),
    }
}

#[derive(Debug, Clone)]
pub struct Letter {
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub headers: BTreeMap<String, String>,
}

impl Letter {
    pub fn source(&self) -> Option<Position> {
        let number = |name: &str| self.headers.get(name)?.parse::<i64>().ok();
        let partition = i32::try_from(number("source-partition")?).ok()?;
        Some(Position { partition, offset: number("source-offset")? })
    }
}

/// Reads all dead letters once there are this many.
pub async fn letters(whole: &Whole, expected: usize) -> Result<Vec<Letter>> {
    let (brokers, topic) = (whole.kafka.brokers.clone(), whole.kafka.topics().dead_letters);
    tokio::task::spawn_blocking(move || read_letters(&brokers, &topic, expected)).await?
}

fn read_letters(brokers: &str, topic: &str, expected: usize) -> Result<Vec<Letter>> {
    let reader: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "letters").create()?;
    let metadata = reader.fetch_metadata(Some(topic), OUT_MAX)?;
    let mut all = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        all.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    reader.assign(&all)?;
    let deadline = std::time::Instant::now() + OUT_MAX;
    let mut letters = Vec::new();
    // Reads once more after the last, to find any that should not be there.
    while let Some(message) =
        reader.poll(if letters.len() < expected { OUT_MAX } else { Duration::from_millis(500) })
    {
        let message = message?;
        let headers = message.headers().context("headers")?.iter();
        let headers = headers.map(|header| {
            let value = header.value.map(String::from_utf8_lossy).unwrap_or_default();
            (header.key.to_owned(), value.into_owned())
        });
        letters.push(Letter {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().unwrap_or_default().to_vec(),
            headers: headers.collect(),
        });
        ensure!(std::time::Instant::now() < deadline, "dead letters do not end");
    }
    Ok(letters)
}

#[tokio::test]
async fn usage_from_kafka_counts_as_over_http() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    let producer = Producer::new(&whole)?;
    usage_is_priced_and_applied(&operator, &producer).await?;
    one_id_counts_once_over_both_ways(&operator, &producer).await?;
    an_account_opened_a_moment_ago_is_known(&operator, &producer).await?;
    ensure!(letters(&whole, 0).await?.is_empty(), "nobody was refused");
    whole.replay_and_stop().await
}

async fn usage_is_priced_and_applied(operator: &Caller, producer: &Producer) -> Result<()> {
    let card = json!({"meters": [{"category": "c", "prices": {"x": {"credits": "2", "per": "1"}}}]});
    operator.put("/v1/rate-cards/card", card).await?.expect(200)?;
    let plan = json!({"cycle": "monthly", "allowance": "100", "rate_card": "card"});
    operator.post("/v1/accounts", json!({"account_id": "acme", "plan": plan})).await?.expect(200)?;
    let now = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
    let mut priced =
        event("acme", "e1", &now, &json!({"category": "c", "quantities": {"x": 3}, "user_id": "ana"}));
    // Fields that only the ledger may set are dropped.
    priced["recordedat"] = json!("2020-01-01T00:00:00Z");
    priced["actor"] = json!("somebody");
    producer.send("acme", &priced.to_string()).await?;
    await_used(operator, "acme", "6").await?;
    let stored = operator.get("/v1/accounts/acme/events/e1").await?;
    let line = &stored.expect(200)?.body["lines"][0];
    ensure!(line["rate_card"] == "card" && line["version"] == 1 && line["credits"] == "6", "{}", stored.text);
    ensure!(stored.body["recorded_at"].as_str() >= Some(&now), "{}", stored.text);
    expect_balance(operator, "acme", "settled=94").await
}

async fn one_id_counts_once_over_both_ways(operator: &Caller, producer: &Producer) -> Result<()> {
    open(operator, "both", "100").await?;
    producer.send("both", &usage("both", "k1", "1")).await?;
    await_used(operator, "both", "1").await?;
    let media_type = "application/cloudevents+json";
    let post = |body: String| async move {
        operator.send_as(reqwest::Method::POST, "/v1/events?wait=true", media_type, &body).await
    };
    expect_written(post(usage("both", "k1", "1")).await?.expect(200)?, Some("duplicate"))?;
    post(usage("both", "k1", "2")).await?.expect_problem(409, "conflict")?;
    expect_written(post(usage("both", "h1", "3")).await?.expect(200)?, Some("applied"))?;
    for (id, credits) in [("h1", "3"), ("h1", "4"), ("k1", "1"), ("k1", "9"), ("k2", "5"), ("k2", "5")] {
        producer.send("both", &usage("both", id, credits)).await?;
    }
    producer.send("both", &usage("both", "last", "10")).await?;
    await_used(operator, "both", "19").await?;
    // Kafka's resends of what is projected are not appended again; what has other content is, and stays on record.
    let stored = operator.get("/v1/accounts/both/events/k1?source=/app").await?;
    let repeats = stored.expect(200)?.body["repeats"].as_array().context("repeats")?;
    ensure!(repeats.len() == 2 && repeats.iter().all(|one| one["outcome"] == "conflict"), "{}", stored.text);
    expect_balance(operator, "both", "settled=81").await
}

async fn an_account_opened_a_moment_ago_is_known(operator: &Caller, producer: &Producer) -> Result<()> {
    for n in 0..10 {
        let account = format!("fresh{n}");
        let plan = json!({"cycle": "monthly", "anchor": OPENED, "allowance": "1"});
        let body = json!({"account_id": account, "clock": "test", "plan": plan});
        operator.at(OPENED).post("/v1/accounts?wait=false", body).await?.expect(202)?;
        producer.send(&account, &usage(&account, "u1", "1")).await?;
    }
    for n in 0..10 {
        let account = format!("fresh{n}");
        let waiting = async {
            while operator.get(&format!("/v1/accounts/{account}")).await?.status != 200 {
                tokio::time::sleep(POLL).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(OUT_MAX, waiting).await.context("the account does not open")??;
        await_used(operator, &account, "1").await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_can_not_be_taken_is_a_dead_letter_and_stops_nobody() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    let producer = Producer::new(&whole)?;
    open(&operator, "acme", "100").await?;
    open_live(&operator, "live", "100").await?;
    let sent = send_bad_among_good(&producer).await?;
    await_used(&operator, "acme", &sent.len().to_string()).await?;
    let letters = letters(&whole, sent.len()).await?;
    ensure!(letters.len() == sent.len(), "{} letters of {}", letters.len(), sent.len());
    for (code, key, value, at) in &sent {
        let letter = letters.iter().find(|letter| letter.source() == Some(*at));
        let letter = letter.with_context(|| format!("no letter of {code} at {at}"))?;
        ensure!(letter.headers.get("code") == Some(code), "{code}: {:?}", letter.headers);
        ensure!(letter.headers.get("source-topic") == Some(&producer.topic), "{:?}", letter.headers);
        let explained = letter.headers.get("detail").is_some_and(|detail| detail.len() > 5);
        ensure!(explained && letter.headers.len() == 5, "{:?}", letter.headers);
        ensure!(letter.value == value.as_bytes(), "{code}: the value is not whole");
        ensure!(letter.key.as_deref() == key.as_deref().map(str::as_bytes), "{code}: {:?}", letter.key);
    }
    expect_balance(&operator, "live", "used=0").await?;
    whole.replay_and_stop().await
}

/// The code that refuses a record, its key and value, and its position.
type Sent = (String, Option<String>, String, Position);

/// Writes every kind of bad record, each followed by a good one of 1 credit.
async fn send_bad_among_good(producer: &Producer) -> Result<Vec<Sent>> {
    let good = json!({"credits": "1"});
    let with = |field: &str, value: Value| {
        let mut event = event("acme", "bad", OPENED, &good);
        event[field] = value;
        event.to_string()
    };
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(8), "]".repeat(8));
    let cases = [
        ("invalid", "acme", "no json \u{0} at all".to_owned()),
        ("invalid", "acme", String::new()),
        ("invalid", "acme", "[]".to_owned()),
        ("invalid", "acme", "{}".to_owned()),
        ("invalid", "acme", deep),
        ("invalid", "acme", with("specversion", json!("0.3"))),
        ("invalid", "acme", with("type", json!("ledger.usage.recorded.v2"))),
        ("invalid", "acme", with("type", json!("ledger.credits.granted.v1"))),
        ("invalid", "acme", with("source", json!("urn:ledger:api"))),
        ("invalid", "acme", with("time", json!("soon"))),
        ("invalid", "acme", with("data", json!({"credits": "-1"}))),
        ("invalid", "acme", with("data", json!({"credits": "1", "lines": []}))),
        ("invalid", "acme", with("id", json!(""))),
        ("too_large", "acme", with("data", json!({"credits": "1", "metadata": {"k": "x".repeat(500_000)}}))),
        ("too_new", "acme", with("time", json!("2026-02-03T10:05:00.000001Z"))),
        ("too_old", "acme", with("time", json!("2025-12-01T00:00:00Z"))),
        ("too_new", "live", with("subject", json!("live")).replace(OPENED, "2999-01-01T00:00:00Z")),
        ("unpriced_usage", "acme", with("data", json!({"category": "c", "quantities": {"x": 1}}))),
        ("reservation_not_found", "acme", with("data", json!({"credits": "1", "reservation_id": "r1"}))),
        ("account_not_found", "nobody", with("subject", json!("nobody"))),
    ];
    let mut sent = Vec::new();
    for (nth, (code, key, value)) in cases.into_iter().enumerate() {
        let at = producer.send(key, &value).await?;
        sent.push((code.to_owned(), Some(key.to_owned()), value, at));
        producer.send("acme", &usage("acme", &format!("good{nth}"), "1")).await?;
    }
    Ok(sent)
}

/// Enough to still be running when the process stops.
const RECORDS: usize = 15_000;

/// Counts the journal's records, including geneses and openings.
async fn appended(whole: &Whole) -> Result<i64> {
    Ok(whole.ends().await?.iter().map(|end| end.offset).sum())
}

/// Sends usage of 1 credit to three accounts in turn.
fn send_many(producer: &Arc<Producer>, numbers: Range<usize>) -> JoinHandle<Result<()>> {
    let producer = Arc::clone(producer);
    tokio::spawn(async move {
        let sends = numbers.map(|n| {
            let account = ["acme", "beta", "gamma"][n % 3];
            let value = usage(account, &format!("u{}", n / 3), "1");
            let producer = &producer;
            async move { producer.send(account, &value).await }
        });
        futures::future::try_join_all(sends).await.map(drop)
    })
}

#[tokio::test]
async fn a_restart_in_the_middle_loses_nothing_and_repeats_nothing_in_effect() -> Result<()> {
    let mut whole = Whole::start().await?;
    for account in ["acme", "beta", "gamma"] {
        open(&whole.operator(), account, "0").await?;
    }
    let producer = Arc::new(Producer::new(&whole)?);
    let third = RECORDS / 3;
    let mut sending = Vec::new();
    for part in 0..3 {
        let before = appended(&whole).await?;
        sending.push(send_many(&producer, part * third..(part + 1) * third));
        while appended(&whole).await? == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Records come while the ingress stops, while it is down and while it is up again.
        if part < 2 {
            whole = whole.restart().await?;
        }
    }
    for sending in sending {
        sending.await??;
    }
    let operator = whole.operator();
    for account in ["acme", "beta", "gamma"] {
        await_used(&operator, account, &(RECORDS / 3).to_string()).await?;
    }
    ensure!(letters(&whole, 0).await?.is_empty(), "nobody was refused");
    whole.replay_and_stop().await
}
