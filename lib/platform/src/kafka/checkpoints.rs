//! The topic of the audit log's checkpoints: each log's notes stand in the partition of its own number.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::Offset;
use tokio::time::Instant;

use super::error::Error;
use super::options::{KafkaOptions, LogIdentity};
use super::poller::{FetchLimits, OnAssign, Poller};
use super::record::Record;

/// How many of a log's last notes are read: the last is ours, unless somebody else writes to the topic.
const LAST_NOTES: i64 = 100;
/// A note has up to 1 MB; ours have less than 1 kB, and some for each witness.
const LIMITS: FetchLimits =
    FetchLimits { records: 1_000, bytes: 16 * 1024 * 1024, wait: Duration::from_millis(200) };
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Appends notes, and reads the last ones.
pub struct Checkpoints {
    options: KafkaOptions,
    topic: String,
    partitions: i32,
    /// Made at the first append, and anew after a failure: an idempotent producer never recovers from some.
    producer: Mutex<Option<FutureProducer>>,
}

impl Checkpoints {
    pub fn new(options: &KafkaOptions, identity: LogIdentity) -> Checkpoints {
        Checkpoints {
            options: options.clone(),
            topic: options.topics().checkpoints,
            partitions: identity.partitions,
            producer: Mutex::new(None),
        }
    }

    /// Appends a note of a partition's log, and waits until every in-sync replica has it.
    pub async fn append(&self, partition: i32, note: &str) -> Result<(), Error> {
        let producer = self.producer()?;
        let key = partition.to_string();
        let record = FutureRecord::to(&self.topic).partition(partition).key(&key).payload(note);
        match producer.send(record, DELIVERY_TIMEOUT).await {
            Ok(_) => Ok(()),
            Err((error, _)) => {
                *self.slot() = None;
                Err(error.into())
            }
        }
    }

    /// Reads the last notes of each log, in order per partition.
    pub async fn last(&self) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        self.read(LAST_NOTES, |record| records.push(record)).await?;
        Ok(records)
    }

    /// Reads every note of each log, in order per partition.
    pub async fn each(&self, take: impl FnMut(Record)) -> Result<(), Error> {
        self.read(i64::MAX, take).await
    }

    async fn read(&self, last: i64, take: impl FnMut(Record)) -> Result<(), Error> {
        let poller = Poller::new(&self.options.reader(&[])?, &self.topic, OnAssign::AwaitSeek)?;
        let read = self.read_with(&poller, last, take).await;
        poller.close().await;
        read
    }

    async fn read_with(&self, poller: &Poller, last: i64, mut take: impl FnMut(Record)) -> Result<(), Error> {
        let ends = poller.ends((0..self.partitions).collect(), READ_TIMEOUT).await?;
        let mut waiting: BTreeMap<i32, i64> =
            ends.iter().filter(|end| end.offset > 0).map(|end| (end.partition, end.offset)).collect();
        let start =
            |(partition, end): (&i32, &i64)| (*partition, Offset::Offset(end.saturating_sub(last).max(0)));
        poller.assign(waiting.iter().map(start).collect()).await?;
        let mut deadline = Instant::now() + READ_TIMEOUT;
        while !waiting.is_empty() {
            let fetched = poller.fetch(LIMITS).await?;
            if let Some(error) = fetched.error {
                return Err(error.into());
            }
            if Instant::now() > deadline {
                return Err(KafkaError::NoMessageReceived.into());
            }
            if !fetched.records.is_empty() {
                deadline = Instant::now() + READ_TIMEOUT;
            }
            for record in fetched.records {
                let at = record.position;
                if waiting.get(&at.partition).is_some_and(|end| at.offset + 1 >= *end) {
                    waiting.remove(&at.partition);
                }
                take(record);
            }
        }
        Ok(())
    }

    fn producer(&self) -> Result<FutureProducer, Error> {
        let mut slot = self.slot();
        if let Some(producer) = &*slot {
            return Ok(producer.clone());
        }
        let mut config = self.options.client(&[("linger.ms", "0")])?;
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string());
        let producer: FutureProducer = config.create()?;
        *slot = Some(producer.clone());
        Ok(producer)
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<FutureProducer>> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
