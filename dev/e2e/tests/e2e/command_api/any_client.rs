//! The Kafka ingress takes what any client sends, and passes over what nobody can read.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use local_stack::testing::wire::{Packed, RawRecord, Wire, batch};
use platform::kafka::Position;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, FutureRecord, Producer as _};

use super::ingress::{Letter, Producer, await_used, letters, usage};
use super::{OPENED, open};
use e2e::Whole;

const WAIT_MAX: Duration = Duration::from_secs(60);
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

#[tokio::test]
async fn usage_counts_whatever_client_sends_it() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "1000").await?;
    let mut sent = 0;
    // By the producer, then by the topic: the broker compresses both topics anew.
    for by_topic in ["producer", "zstd", "gzip"] {
        compress_topics(&whole, by_topic).await?;
        for codec in CODECS {
            let settings =
                [("compression.codec", codec), ("linger.ms", "20"), ("partitioner", "consistent_random")];
            sent += send_many(&Producer::with(&whole, &settings)?, &format!("{by_topic}-{codec}")).await?;
        }
    }
    sent += send_under_any_key(&whole).await?;
    sent += send_binary(&whole).await?;
    sent += send_in_transactions(&whole).await?;
    await_used(&operator, "acme", &sent.to_string()).await?;
    // What was taken back comes last, and is neither counted nor waited for.
    let lag = async {
        while !lag_is_none(&whole).await? {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(WAIT_MAX, lag).await.context("a lag stays")??;
    await_used(&operator, "acme", &sent.to_string()).await?;
    let refused: Vec<Letter> = letters(&whole, 0).await?;
    ensure!(refused.is_empty(), "nobody was refused: {refused:?}");
    whole.replay_and_stop().await
}

/// Sets who compresses the records of the ingress and of the journal.
async fn compress_topics(whole: &Whole, by: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &whole.kafka.brokers).create()?;
    let topics = whole.kafka.topics();
    let change = |topic| {
        // What is not named goes back to the broker's default.
        AlterConfig::new(ResourceSpecifier::Topic(topic))
            .set("compression.type", by)
            .set("message.timestamp.type", "LogAppendTime")
            .set("retention.ms", "-1")
    };
    let changes = [change(&topics.usage), change(&topics.events)];
    for changed in admin.alter_configs(&changes, &AdminOptions::new()).await? {
        changed.map_err(|(_, code)| anyhow::anyhow!("{code}"))?;
    }
    Ok(())
}

/// Sends usage of 1 credit in one batch, and returns how many.
async fn send_many(producer: &Producer, ids: &str) -> Result<usize> {
    let values: Vec<String> = (0..10).map(|n| usage("acme", &format!("{ids}-{n}"), "1")).collect();
    let sends = values.iter().map(|value| producer.send_to(None, Some("acme"), value));
    Ok(futures::future::try_join_all(sends).await?.len())
}

/// The account is the event's subject, wherever the record stands.
async fn send_under_any_key(whole: &Whole) -> Result<usize> {
    let producer = Producer::with(whole, &[])?;
    let mut sent = 0;
    for partition in 0..3 {
        for key in [None, Some(""), Some("acme"), Some("another")] {
            let value = usage("acme", &format!("key{sent}"), "1");
            producer.send_to(Some(partition), key, &value).await?;
            sent += 1;
        }
    }
    Ok(sent)
}

async fn send_binary(whole: &Whole) -> Result<usize> {
    let producer = Producer::with(whole, &[])?;
    for (nth, content_type) in ["application/json", "application/json; charset=utf-8", ""].iter().enumerate()
    {
        let id = format!("binary{nth}");
        let attributes = [
            ("ce_specversion", "1.0"),
            ("ce_id", &id),
            ("ce_source", "/app"),
            ("ce_type", "ledger.usage.recorded.v1"),
            ("ce_subject", "acme"),
            ("ce_time", OPENED),
            ("ce_recordedat", "never"),
            ("content-type", content_type),
        ];
        let given = attributes.iter().filter(|(_, value)| !value.is_empty());
        let headers = given.fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(*value) })
        });
        producer
            .produce(FutureRecord::to(&producer.topic).payload(r#"{"credits":"1"}"#).headers(headers))
            .await?;
    }
    Ok(3)
}

/// Sends usage in a transaction that is committed and in two that are not, one of them the last of its partition.
async fn send_in_transactions(whole: &Whole) -> Result<usize> {
    let (brokers, topic) = (whole.kafka.brokers.clone(), whole.kafka.topics().usage);
    let id = format!("{topic}-transactions");
    tokio::task::spawn_blocking(move || {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &brokers).set("transactional.id", &id).create()?;
        producer.init_transactions(WAIT_MAX)?;
        for (name, commits) in [("back-1", false), ("kept", true), ("back-2", false)] {
            producer.begin_transaction()?;
            for partition in 0..3 {
                let value = usage("acme", &format!("{name}-{partition}"), "1");
                let record = BaseRecord::to(&topic).partition(partition).key("acme").payload(&value);
                producer.send(record).map_err(|(error, _)| error)?;
            }
            producer.flush(WAIT_MAX)?;
            match commits {
                true => producer.commit_transaction(WAIT_MAX)?,
                false => producer.abort_transaction(WAIT_MAX)?,
            }
        }
        Ok(3)
    })
    .await?
}

async fn metrics(whole: &Whole) -> Result<String> {
    Ok(whole.caller(None).get("/metrics").await?.text)
}

/// Other tests in this process set the same gauges, so the group's members are asked by the topic's readiness too.
async fn lag_is_none(whole: &Whole) -> Result<bool> {
    let ready = whole.caller(None).get("/readyz").await?;
    let lags: Vec<String> = metrics(whole)
        .await?
        .lines()
        .filter(|line| line.starts_with("ledger_ingress_lag_records"))
        .map(str::to_owned)
        .collect();
    Ok(ready.status == 200 && !lags.is_empty() && lags.iter().all(|line| line.ends_with(" 0")))
}

#[tokio::test]
async fn what_nobody_can_read_is_passed_over_and_its_position_kept() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "1000").await?;
    let mut wire = Wire::connect(&whole.kafka.brokers).await?;
    let topic = whole.kafka.topics().usage;
    let before = unreadable_counted(&whole).await?;
    let mut good = 0;
    let mut expected = Vec::new();
    // On every partition, between records that can be read; the last one also at the very end.
    for partition in 0..3 {
        good += produce_good(&mut wire, &topic, partition, good).await?;
        for packed in [Packed::Lz4OfWrongChecksum, Packed::Lz4OfWrongChecksum, Packed::GzipInTwoParts] {
            let bad = usage("acme", "bad", "1");
            let records = if packed == Packed::GzipInTwoParts { 1 } else { 3 };
            let record = RawRecord { key: Some(b"acme"), value: Some(bad.as_bytes()), headers: Vec::new() };
            let first = wire.produce(&topic, partition, &batch(packed, &vec![record; records])).await?;
            expected.push((Position { partition, offset: first }, first + i64::try_from(records)? - 1));
            if packed == Packed::Lz4OfWrongChecksum && partition == 0 {
                good += produce_good(&mut wire, &topic, partition, good).await?;
            }
        }
        if partition < 2 {
            good += produce_good(&mut wire, &topic, partition, good).await?;
        }
    }
    await_used(&operator, "acme", &good.to_string()).await?;
    let letters = letters(&whole, expected.len()).await?;
    ensure!(letters.len() == expected.len(), "{} letters of {}: {letters:?}", letters.len(), expected.len());
    for (first, last) in &expected {
        let letter = letters.iter().find(|letter| letter.source() == Some(*first));
        let letter = letter.with_context(|| format!("no letter of {first}: {letters:?}"))?;
        let said = |name: &str| letter.headers.get(name).map(String::as_str).unwrap_or_default();
        ensure!(said("code") == "unreadable" && said("source-topic") == topic, "{letter:?}");
        ensure!(said("source-last-offset") == last.to_string(), "to {last}: {letter:?}");
        ensure!(letter.key.is_none() && letter.value.is_empty() && !said("detail").is_empty(), "{letter:?}");
    }
    ensure!(unreadable_counted(&whole).await? >= before + expected.len() as u64, "not counted");
    whole.ready().await?;
    whole.replay_and_stop().await
}

async fn produce_good(wire: &mut Wire, topic: &str, partition: i32, nth: usize) -> Result<usize> {
    let value = usage("acme", &format!("good{nth}"), "1");
    // A header's name may be any bytes.
    let headers: Vec<(&[u8], &[u8])> = vec![(b"\xff\xfe", b"odd"), (b"trace", b"1")];
    let record = RawRecord { key: None, value: Some(value.as_bytes()), headers };
    wire.produce(topic, partition, &batch(Packed::Plain, &[record])).await?;
    Ok(1)
}

async fn unreadable_counted(whole: &Whole) -> Result<u64> {
    let metrics = metrics(whole).await?;
    let named = |line: &&str| {
        line.starts_with("ledger_dead_letters_total{")
            && line.contains(r#"source="ingress""#)
            && line.contains(r#"reason="unreadable""#)
    };
    let count = metrics.lines().find(named).and_then(|line| line.rsplit_once(' ')?.1.parse().ok());
    Ok(count.unwrap_or_default())
}

#[tokio::test]
async fn huge_and_empty_records_are_cut_to_fit_and_stop_nobody() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "1000").await?;
    let producer = Producer::with(&whole, &[("partitioner", "murmur2_random")])?;
    let huge = "x".repeat(999_900);
    let header = OwnedHeaders::new().insert(Header { key: "huge", value: Some(huge.as_str()) });
    let records: [FutureRecord<'_, str, str>; 5] = [
        FutureRecord::to(&producer.topic).key(huge.as_str()).payload("{}"),
        FutureRecord::to(&producer.topic).key("acme").payload(huge.as_str()),
        FutureRecord::to(&producer.topic).key("acme").payload("{}").headers(header),
        FutureRecord::to(&producer.topic).key("acme"),
        FutureRecord::to(&producer.topic),
    ];
    let mut sent = Vec::new();
    for (nth, record) in records.into_iter().enumerate() {
        let at = producer.produce(record).await?;
        producer.send_to(Some(at.partition), None, &usage("acme", &format!("good{nth}"), "1")).await?;
        sent.push(at);
    }
    await_used(&operator, "acme", "5").await?;
    let letters = letters(&whole, sent.len()).await?;
    let said: Vec<String> = sent
        .iter()
        .map(|at| {
            let letter = letters.iter().find(|letter| letter.source() == Some(*at)).context("a letter")?;
            let header = |name: &str| letter.headers.get(name).map_or("-", String::as_str);
            let key = letter.key.as_ref().map_or(0, Vec::len);
            Ok(format!("{} cut {} key {key} value {}", header("code"), header("cut"), letter.value.len()))
        })
        .collect::<Result<_>>()?;
    let expected = [
        "invalid cut true key 16384 value 2",
        "too_large cut true key 4 value 524288",
        "invalid cut true key 4 value 2",
        "no_value cut - key 4 value 0",
        "no_value cut - key 0 value 0",
    ];
    ensure!(said == expected, "{said:#?}");
    whole.replay_and_stop().await
}
