//! Appends records to a topic and returns their positions.
//!
//! The outcome of an append that timed out is unknown, never failed: the caller sends the same id again.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledger_core::event::partition::partition_of;
use metrics::{counter, histogram};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use tokio::time::Instant;

use super::broker_clock::BrokerClock;
use super::dead_letter::DeadLetter;
use super::delivery::{AppendError, Batch, Deliveries, Slot, append_error};
use super::error::Error;
use super::options::KafkaOptions;
use crate::position::Position;

/// Longest record value, in bytes.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;
/// Key, headers and framing besides the value.
const RECORD_OVERHEAD_BYTES_MAX: usize = 4 * 1024;
/// Most records waiting for the broker; above it, appends are refused as busy.
const QUEUE_RECORDS_MAX: usize = 200_000;
/// Most kilobytes waiting for the broker.
const QUEUE_KBYTES_MAX: usize = 256 * 1024;
/// After this time the outcome of an append is unknown.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a record waits for others; single appends pay it, batches fill up earlier.
const LINGER_MS: u32 = 2;
/// Most bytes of one broker request of a partition.
const BATCH_BYTES_MAX: usize = 1_000_000;
/// Records queued before other tasks get a turn.
const RECORDS_PER_TURN: usize = 1_000;

/// Appends to one topic and returns each record's position once the broker has it.
///
/// Clones share one producer.
#[derive(Clone)]
pub struct Appender {
    shared: Arc<Shared>,
}

struct Shared {
    options: KafkaOptions,
    topic: String,
    partitions: NonZeroU32,
    clock: BrokerClock,
    /// Replaced after a fatal error, from which an idempotent producer never recovers.
    producer: Mutex<Arc<RawProducer>>,
}

type RawProducer = ThreadedProducer<Deliveries>;

impl Appender {
    /// Makes the appender of one topic; connects in the background.
    pub fn new(options: &KafkaOptions, topic: &str, partitions: i32) -> Result<Appender, Error> {
        let partitions = u32::try_from(partitions)
            .ok()
            .and_then(NonZeroU32::new)
            .ok_or_else(|| Error::Internal(format!("topic {topic} has no partition")))?;
        let clock = BrokerClock::default();
        let producer = Mutex::new(Arc::new(new_producer(options, &clock)?));
        let (options, topic) = (options.clone(), topic.to_owned());
        Ok(Appender { shared: Arc::new(Shared { options, topic, partitions, clock, producer }) })
    }

    pub fn partition_of(&self, key: &[u8]) -> i32 {
        let partition = partition_of(key, self.shared.partitions);
        i32::try_from(partition).expect("below the count of partitions, which Kafka keeps in an i32")
    }

    /// Appends one record and waits until every in-sync replica has it.
    pub async fn append(&self, key: &[u8], value: &[u8]) -> Result<Position, AppendError> {
        let outcome = self.append_all(&[(key, value)]).await.pop();
        outcome.unwrap_or_else(|| Err(AppendError::Unknown("no answer".to_owned())))
    }

    /// Appends records in order and returns each outcome.
    ///
    /// Records of one key keep their order among those that succeed.
    pub async fn append_all<K, V>(&self, records: &[(K, V)]) -> Vec<Result<Position, AppendError>>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        self.deliver(records.len(), |producer, slot| {
            let (key, value) = &records[slot.index];
            let (key, value) = (key.as_ref(), value.as_ref());
            if value.len() > RECORD_BYTES_MAX {
                let reason = format!("{} bytes, at most {RECORD_BYTES_MAX} fit", value.len());
                return slot.fill(Err(AppendError::Refused(reason)));
            }
            self.enqueue(producer, slot, Some(key), Some(value), content_type());
        })
        .await
    }

    /// Appends dead letters, up to the topic's size limit; order as in [`Self::append_all`].
    pub async fn append_dead_letters(&self, letters: &[DeadLetter]) -> Vec<Result<Position, AppendError>> {
        self.deliver(letters.len(), |producer, slot| {
            let letter = &letters[slot.index];
            self.enqueue(producer, slot, letter.key.as_deref(), letter.value.as_deref(), letter.headers());
        })
        .await
    }

    async fn deliver(
        &self,
        records: usize,
        enqueue: impl Fn(&RawProducer, Slot),
    ) -> Vec<Result<Position, AppendError>> {
        let started = Instant::now();
        let producer = self.producer();
        let (batch, done) = Batch::new(records);
        for index in 0..records {
            enqueue(&producer, Slot { batch: Arc::clone(&batch), index });
            if index % RECORDS_PER_TURN == RECORDS_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        // Bounded: the producer answers every record within its delivery timeout.
        let outcomes = done.await.unwrap_or_default();
        self.replace_if_broken(&producer);
        self.measure(started, &outcomes);
        outcomes
    }

    fn enqueue(
        &self,
        producer: &RawProducer,
        slot: Slot,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: OwnedHeaders,
    ) {
        let mut record: BaseRecord<'_, [u8], [u8], Box<Slot>> =
            BaseRecord::with_opaque_to(&self.shared.topic, Box::new(slot))
                .partition(self.partition_of(key.unwrap_or_default()))
                .headers(headers);
        (record.key, record.payload) = (key, value);
        if let Err((error, record)) = producer.send(record) {
            record.delivery_opaque.fill(Err(append_error(&error)));
        }
    }

    fn producer(&self) -> Arc<RawProducer> {
        let current = self.shared.producer.lock();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    fn replace_if_broken(&self, used: &Arc<RawProducer>) {
        let Some((_, reason)) = used.client().fatal_error() else {
            return;
        };
        let current = self.shared.producer.lock();
        let mut current = current.unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, used) {
            return;
        }
        match new_producer(&self.shared.options, &self.shared.clock) {
            Ok(fresh) => {
                tracing::error!(topic = %self.shared.topic, reason, "producer broke and was replaced");
                *current = Arc::new(fresh);
            }
            Err(error) => tracing::error!(%error, "producer broke and could not be replaced"),
        }
    }

    fn measure(&self, started: Instant, outcomes: &[Result<Position, AppendError>]) {
        let stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let topic = self.shared.topic.clone();
        counter!("ledger_appended_records_total", "topic" => topic.clone()).increment(stored as u64);
        let lost = (outcomes.len() - stored) as u64;
        counter!("ledger_append_errors_total", "topic" => topic.clone()).increment(lost);
        histogram!("ledger_append_seconds", "topic" => topic).record(started.elapsed());
    }

    /// Returns the brokers' clock, as the appends have shown it.
    pub fn clock(&self) -> &BrokerClock {
        &self.shared.clock
    }

    pub fn partitions(&self) -> i32 {
        let partitions = self.shared.partitions.get();
        i32::try_from(partitions).expect("made from the i32 that Kafka keeps")
    }

    /// Waits until all queued records are acknowledged, at most `timeout`; for shutdown.
    pub async fn flush(&self, timeout: Duration) {
        let producer = self.producer();
        let flushed = tokio::task::spawn_blocking(move || producer.flush(timeout)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!(topic = %self.shared.topic, "some records were still waiting at the end");
        }
    }
}

fn new_producer(options: &KafkaOptions, clock: &BrokerClock) -> Result<RawProducer, Error> {
    let request_bytes = RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES_MAX;
    let mut config = options.client(&[
        ("linger.ms", &LINGER_MS.to_string()),
        ("batch.size", &BATCH_BYTES_MAX.to_string()),
        ("queue.buffering.max.messages", &QUEUE_RECORDS_MAX.to_string()),
        ("queue.buffering.max.kbytes", &QUEUE_KBYTES_MAX.to_string()),
    ])?;
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
        .set("message.max.bytes", request_bytes.max(BATCH_BYTES_MAX).to_string());
    Ok(ThreadedProducer::from_config_and_context(&config, Deliveries { clock: clock.clone() })?)
}

pub(super) fn content_type() -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(1)
        .insert(Header { key: "content-type", value: Some("application/cloudevents+json") })
}
