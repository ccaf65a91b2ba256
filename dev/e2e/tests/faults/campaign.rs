//! Campaign: random kills while fuzzed records arrive in the ingress and in the journal.
//!
//! One seed decides everything. `LEDGER_CAMPAIGN_KILLS` and `LEDGER_CAMPAIGN_RECORDS` make it as long as wanted:
//! `LEDGER_CAMPAIGN_KILLS=1000 LEDGER_CAMPAIGN_RECORDS=200000 cargo test --workspace --test faults -- campaign`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use platform::http_client;
use platform::pg;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::client::{self, Load, open_accounts};
use crate::fleet::{Fleet, PARTITIONS, home_of};
use crate::fuzz::{self, Fuzzed};

const ALL: [&str; 5] = ["projector", "command-api", "alert-worker", "projector.2", "alert-worker.2"];
const KILLS: usize = 24;
const RECORDS: usize = 1_200;
/// Longest wait for the broker to take a fuzzed record.
const STORED_MAX: Duration = Duration::from_secs(30);
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A record's partition and offset.
type At = (i32, i64);

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_of_kills_and_fuzzed_records_loses_nothing_and_counts_nothing_twice() -> Result<()> {
    let seed = setting("LEDGER_TEST_SEED", rand::random())?;
    let kills = setting("LEDGER_CAMPAIGN_KILLS", KILLS)?;
    let records = setting("LEDGER_CAMPAIGN_RECORDS", RECORDS)?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut fleet = Fleet::start(&ALL).await?;
    fleet.fuzzed = true;
    open_accounts(&fleet).await?;
    let account = json!({"account_id": fuzz::ACCOUNT, "plan": {"cycle": "monthly", "allowance": "100"}});
    client::write(&fleet, &http_client::plain(), Method::POST, "/v1/accounts", &account).await?;
    let load = Load::start(&fleet)?;
    let fuzzer = Fuzzer::new(&fleet)?;
    for kill in 0..kills {
        let part = records * kill / kills..records * (kill + 1) / kills;
        fuzzer.send(part, &mut random).await?;
        sleep(Duration::from_millis(random.random_range(50..500))).await;
        let victim = ALL[random.random_range(0..ALL.len())];
        fleet.kill(victim)?;
        sleep(Duration::from_millis(random.random_range(0..200))).await;
        fleet.launch(victim, None)?;
    }
    fleet.ready_all().await?;
    let sent = load.finish().await?;
    let verified = async {
        fleet.verify(sent).await?;
        fleet.every_fuzzed_record_is_accounted_for().await
    };
    let found = verified
        .await
        .with_context(|| format!("LEDGER_TEST_SEED={seed}, {kills} kills, {records} records"))?;
    println!(
        "seed {seed}: {kills} kills, {sent} events acknowledged and counted once; of {records} fuzzed records \
         {} became events and {} dead letters in the ingress; the journal has {} dead letters and {} parked records",
        found.ingress_events, found.ingress_dead, found.journal_dead, found.journal_parked
    );
    Ok(())
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> Result<T> {
    match std::env::var(name) {
        Ok(text) => text.parse().ok().with_context(|| format!("{name}={text} is no number")),
        Err(_) => Ok(default),
    }
}

/// Writes fuzzed records to the ingress and to the journal, as any client that may write there could.
struct Fuzzer {
    producer: FutureProducer,
    usage: String,
    events: String,
    /// The partition of the account that fuzzed records of the journal name.
    home: i32,
}

impl Fuzzer {
    fn new(fleet: &Fleet) -> Result<Fuzzer> {
        let producer = ClientConfig::new().set("bootstrap.servers", &fleet.kafka.brokers).create()?;
        let topics = fleet.kafka.topics();
        let home = home_of(fuzz::JOURNAL_ACCOUNT)?;
        Ok(Fuzzer { producer, usage: topics.usage, events: topics.events, home })
    }

    /// Sends the records with these numbers, every tenth to the journal.
    async fn send(&self, numbers: std::ops::Range<usize>, random: &mut StdRng) -> Result<()> {
        let records: Vec<(bool, i32, Fuzzed)> = numbers
            .map(|number| {
                let journal = number % 10 == 9;
                let fuzzed = fuzz::record(number, journal, random);
                let stray = random.random_range(0..4) == 0;
                let partition =
                    if journal && !stray { self.home } else { random.random_range(0..PARTITIONS) };
                (journal, partition, fuzzed)
            })
            .collect();
        let sends = records.iter().map(|(journal, partition, fuzzed)| {
            let topic = if *journal { &self.events } else { &self.usage };
            let mut record = FutureRecord::<Vec<u8>, Vec<u8>>::to(topic).partition(*partition);
            record.key = fuzzed.key.as_ref();
            record.payload = fuzzed.value.as_ref();
            self.producer.send(record, STORED_MAX)
        });
        for sent in futures::future::join_all(sends).await {
            sent.map_err(|(error, _)| error).context("a fuzzed record")?;
        }
        Ok(())
    }
}

/// What became of the fuzzed records.
struct Found {
    ingress_events: usize,
    ingress_dead: usize,
    journal_dead: usize,
    journal_parked: usize,
}

impl Fleet {
    /// Checks that each record of the ingress is an event of the journal or a dead letter, and that each record of the
    /// journal is folded, parked or a dead letter.
    async fn every_fuzzed_record_is_accounted_for(&self) -> Result<Found> {
        let topics = self.kafka.topics();
        let (usage, journal) = (self.all(&topics.usage).await?, self.all(&topics.events).await?);
        let letters = self.all(&topics.dead_letters).await?;
        let buried: BTreeSet<At> =
            letters.values().filter_map(|letter| letter.source(&topics.usage)).collect();
        let events: BTreeSet<Identity> = journal.values().filter_map(Stored::identity).collect();
        let mut ingress_events = 0;
        for (at, record) in &usage {
            if buried.contains(at) {
                continue;
            }
            let identity =
                record.identity().with_context(|| format!("{at:?} is neither event nor letter"))?;
            ensure!(
                events.contains(&identity),
                "{at:?}, {identity:?}, is neither in the journal nor a letter"
            );
            ingress_events += 1;
        }
        let ingress_dead = buried.len();

        let mut tx = pg::begin_read(&self.pool, self.live().await?).await?;
        let dead: Vec<At> =
            sqlx::query_as(r#"select partition, "offset" from dead_letter"#).fetch_all(&mut *tx).await?;
        let parked: Vec<At> =
            sqlx::query_as(r#"select partition, "offset" from parked"#).fetch_all(&mut *tx).await?;
        let folded: Vec<(String, i64)> = sqlx::query_as(
            r#"select account_id, "offset" from event union select account_id, "offset" from refused"#,
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut known: BTreeSet<At> = dead.iter().chain(&parked).copied().collect();
        for (account, offset) in folded {
            known.insert((home_of(&account)?, offset));
        }
        for (at, record) in journal.iter().filter(|((_, offset), _)| *offset > 0) {
            ensure!(known.contains(at), "{at:?} of the journal is unknown: {:?}", record.identity());
        }
        Ok(Found { ingress_events, ingress_dead, journal_dead: dead.len(), journal_parked: parked.len() })
    }

    /// Reads a whole topic.
    async fn all(&self, topic: &str) -> Result<BTreeMap<At, Stored>> {
        let (brokers, topic) = (self.kafka.brokers.clone(), topic.to_owned());
        tokio::task::spawn_blocking(move || read_all(&brokers, &topic)).await?
    }
}

/// Subject, source and id of an event.
type Identity = (String, String, String);

/// A record as its topic has it.
struct Stored {
    value: Vec<u8>,
    headers: BTreeMap<String, String>,
}

impl Stored {
    fn identity(&self) -> Option<Identity> {
        let event: Value = serde_json::from_slice(&self.value).ok()?;
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        Some((text("subject")?, text("source")?, text("id")?))
    }

    /// Where a dead letter's record is, if that is in this topic.
    fn source(&self, topic: &str) -> Option<At> {
        let header = |name: &str| self.headers.get(name);
        (header("source-topic")? == topic).then_some(())?;
        Some((header("source-partition")?.parse().ok()?, header("source-offset")?.parse().ok()?))
    }
}

fn read_all(brokers: &str, topic: &str) -> Result<BTreeMap<At, Stored>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "campaign")
        .set("enable.auto.commit", "false")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), SILENCE_MAX)?;
    let partitions = metadata.topics().first().context("a topic")?.partitions().iter().map(|one| one.id());
    let (mut left, mut list) = (BTreeMap::new(), TopicPartitionList::new());
    for partition in partitions {
        let (begin, end) = consumer.fetch_watermarks(topic, partition, SILENCE_MAX)?;
        if begin < end {
            left.insert(partition, end);
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
    }
    consumer.assign(&list)?;
    let mut records = BTreeMap::new();
    while !left.is_empty() {
        let message = consumer.poll(SILENCE_MAX).context("the topic ends before its end")??;
        let headers = message.headers().map(|headers| {
            headers.iter().map(|header| {
                let value = String::from_utf8_lossy(header.value.unwrap_or_default());
                (header.key.to_owned(), value.into_owned())
            })
        });
        let stored = Stored {
            value: message.payload().unwrap_or_default().to_vec(),
            headers: headers.into_iter().flatten().collect(),
        };
        let at = (message.partition(), message.offset());
        records.insert(at, stored);
        if left.get(&at.0).is_some_and(|end| at.1 + 1 >= *end) {
            left.remove(&at.0);
        }
    }
    Ok(records)
}
