//! Appending: records go to a topic and come back as positions.
//!
//! An append that timed out is unknown, never failed: the same id is sent again.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledger_core::event::partition::partition_of;
use metrics::{counter, histogram};
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::once_led;
use super::{Error, KafkaOptions, LogIdentity, Position};

/// The longest record value.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;
/// Key, headers and framing beside the value.
const RECORD_OVERHEAD_BYTES_MAX: usize = 4 * 1024;
/// Records waiting for the broker; beyond it appends are refused as busy.
const QUEUE_RECORDS_MAX: usize = 200_000;
/// Kilobytes waiting for the broker.
const QUEUE_KBYTES_MAX: usize = 256 * 1024;
/// After this an append is unknown.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a record waits for company; single appends pay it, batches fill before it ends.
const LINGER_MS: u32 = 2;
/// One broker request of a partition.
const BATCH_BYTES_MAX: usize = 1_000_000;
/// For questions about offsets.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Records handed to the queue before other tasks get a turn.
const RECORDS_PER_TURN: usize = 1_000;

/// Why a record got no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Maybe stored: send the same id again.
    #[error("the journal did not acknowledge in time: {0}")]
    Unknown(String),
    /// Not stored, and worth another try: too much is waiting already.
    #[error("too many records wait for the journal")]
    Busy,
    /// Not stored, and never will be as it is.
    #[error("the journal takes no such record: {0}")]
    Refused(String),
}

/// A record that is no event of ours, such as a dead letter: whole, with what is said about it in headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The key, as it was found.
    pub key: Option<Vec<u8>>,
    /// The value, as it was found.
    pub value: Vec<u8>,
    /// What is said about it.
    pub headers: Vec<(&'static str, String)>,
}

impl Letter {
    fn headers(&self) -> OwnedHeaders {
        self.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_str()) })
        })
    }
}

/// Appends to one topic and knows each record's place once the broker has it.
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
    /// Replaced after a fatal error, which an idempotent producer never leaves.
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
        Ok(Appender {
            shared: Arc::new(Shared {
                options: options.clone(),
                topic: topic.to_owned(),
                partitions,
                producer: Mutex::new(Arc::new(new_producer(options)?)),
            }),
        })
    }

    /// Returns the partition that the key's records go to.
    pub fn partition_of(&self, key: &[u8]) -> i32 {
        partition_of(key, self.shared.partitions) as i32
    }

    /// Appends one record and waits until every in-sync copy has it.
    pub async fn append(&self, key: &[u8], value: &[u8]) -> Result<Position, AppendError> {
        let outcome = self.append_all(&[(key, value)]).await.pop();
        outcome.unwrap_or_else(|| Err(AppendError::Unknown("no answer".to_owned())))
    }

    /// Appends records in order and returns what became of each.
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
            self.enqueue(producer, slot, Some(key), value, content_type());
        })
        .await
    }

    /// Appends records that are no events of ours, as long as the topic takes them; order as in [`Self::append_all`].
    pub async fn append_letters(&self, letters: &[Letter]) -> Vec<Result<Position, AppendError>> {
        self.deliver(letters.len(), |producer, slot| {
            let letter = &letters[slot.index];
            self.enqueue(producer, slot, letter.key.as_deref(), &letter.value, letter.headers());
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
        // Never long: the producer answers every record within its delivery timeout.
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
        value: &[u8],
        headers: OwnedHeaders,
    ) {
        let mut record: BaseRecord<'_, [u8], [u8], Box<Slot>> =
            BaseRecord::with_opaque_to(&self.shared.topic, Box::new(slot))
                .partition(self.partition_of(key.unwrap_or_default()))
                .payload(value)
                .headers(headers);
        record.key = key;
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
        match new_producer(&self.shared.options) {
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

    /// Waits until everything queued is acknowledged, at most `timeout`; for shutdown.
    pub async fn flush(&self, timeout: Duration) {
        let producer = self.producer();
        let flushed = tokio::task::spawn_blocking(move || producer.flush(timeout)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!(topic = %self.shared.topic, "some records were still waiting at the end");
        }
    }
}

/// The journal's own appender: keys are accounts.
#[derive(Clone)]
pub struct Journal {
    appender: Appender,
    ends: Ends,
}

impl Journal {
    /// Makes the journal's appender; `prepare` comes first.
    pub fn new(options: &KafkaOptions, identity: LogIdentity) -> Result<Journal, Error> {
        let topic = options.topics().events;
        Ok(Journal {
            appender: Appender::new(options, &topic, identity.partitions)?,
            ends: Ends::new(options, identity)?,
        })
    }

    /// Returns the account's partition.
    pub fn partition_of(&self, account: &str) -> i32 {
        self.appender.partition_of(account.as_bytes())
    }

    /// Appends one event and waits until every in-sync copy has it.
    pub async fn append(&self, account: &str, bytes: Vec<u8>) -> Result<Position, AppendError> {
        self.appender.append(account.as_bytes(), &bytes).await
    }

    /// Appends events in order and returns what became of each, in the same order.
    pub async fn append_all<K: AsRef<str>, V: AsRef<[u8]>>(
        &self,
        events: &[(K, V)],
    ) -> Vec<Result<Position, AppendError>> {
        let keyed: Vec<(&[u8], &[u8])> =
            events.iter().map(|(account, bytes)| (account.as_ref().as_bytes(), bytes.as_ref())).collect();
        self.appender.append_all(&keyed).await
    }

    /// Returns the offset after the last record of every partition, as the brokers have it now.
    pub async fn ends(&self) -> Result<Vec<Position>, Error> {
        self.ends.all().await
    }

    /// Returns the offset after the last record of one partition, as its broker has it now.
    pub async fn end(&self, partition: i32) -> Result<Position, Error> {
        self.ends.of(partition).await
    }

    /// Returns how many partitions the journal has.
    pub fn partitions(&self) -> i32 {
        self.appender.shared.partitions.get() as i32
    }

    /// Waits until everything queued is acknowledged, at most `timeout`; for shutdown.
    pub async fn flush(&self, timeout: Duration) {
        self.appender.flush(timeout).await;
    }
}

/// Knows where the journal ends, for those who only read; clones share one connection.
#[derive(Clone)]
pub struct Ends {
    client: Arc<BaseConsumer>,
    topic: String,
    partitions: i32,
}

impl Ends {
    /// Connects in the background.
    pub fn new(options: &KafkaOptions, identity: LogIdentity) -> Result<Ends, Error> {
        Ok(Ends {
            client: Arc::new(options.client().create()?),
            topic: options.topics().events,
            partitions: identity.partitions,
        })
    }

    /// Returns the offset after the last record of every partition, as the brokers have it now.
    pub async fn all(&self) -> Result<Vec<Position>, Error> {
        self.ask((0..self.partitions).collect()).await
    }

    /// Returns the offset after the last record of one partition, as its broker has it now.
    pub async fn of(&self, partition: i32) -> Result<Position, Error> {
        let ends = self.ask(vec![partition]).await?;
        let end = ends.first().copied();
        end.ok_or_else(|| Error::Internal(format!("no end of partition {partition}")))
    }

    async fn ask(&self, partitions: Vec<i32>) -> Result<Vec<Position>, Error> {
        let it = self.clone();
        let asked =
            tokio::task::spawn_blocking(move || ends(&it.client, &it.topic, &partitions, QUERY_TIMEOUT))
                .await;
        asked.map_err(|error| Error::Internal(error.to_string()))?
    }
}

/// Asks for the ends of many partitions in one request a broker.
pub(super) fn ends<C: rdkafka::consumer::ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> Result<Vec<Position>, Error> {
    once_led(timeout, || ends_now(client, topic, partitions, timeout))
}

fn ends_now<C: rdkafka::consumer::ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> Result<Vec<Position>, Error> {
    let mut wanted = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        // As a time, "end" asks for the end itself.
        wanted.add_partition_offset(topic, *partition, Offset::End)?;
    }
    let found = client.offsets_for_times(wanted, timeout)?;
    found
        .elements()
        .iter()
        .map(|element| {
            element.error()?;
            match element.offset() {
                Offset::Offset(offset) => Ok(Position { partition: element.partition(), offset }),
                other => Err(Error::Internal(format!("end of {topic}: {other:?}"))),
            }
        })
        .collect()
}

fn new_producer(options: &KafkaOptions) -> Result<RawProducer, Error> {
    let request_bytes = RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES_MAX;
    let mut config = options.client();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
        .set("linger.ms", LINGER_MS.to_string())
        .set("batch.size", BATCH_BYTES_MAX.to_string())
        .set("message.max.bytes", request_bytes.max(BATCH_BYTES_MAX).to_string())
        .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX.to_string())
        .set("queue.buffering.max.kbytes", QUEUE_KBYTES_MAX.to_string());
    Ok(ThreadedProducer::from_config_and_context(&config, Deliveries)?)
}

pub(super) fn content_type() -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(1)
        .insert(Header { key: "content-type", value: Some("application/cloudevents+json") })
}

fn append_error(error: &KafkaError) -> AppendError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => AppendError::Busy,
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord,
        ) => AppendError::Refused(error.to_string()),
        _ => AppendError::Unknown(error.to_string()),
    }
}

/// Records sent together; the last answer wakes who waits.
struct Batch {
    open: Mutex<Open>,
}

struct Open {
    outcomes: Vec<Result<Position, AppendError>>,
    missing: usize,
    done: Option<oneshot::Sender<Vec<Result<Position, AppendError>>>>,
}

impl Batch {
    fn new(records: usize) -> (Arc<Batch>, oneshot::Receiver<Vec<Result<Position, AppendError>>>) {
        let (done, receiver) = oneshot::channel();
        let unanswered = Err(AppendError::Unknown("no answer".to_owned()));
        let mut open = Open { outcomes: vec![unanswered; records], missing: records, done: Some(done) };
        open.wake_if_complete();
        let batch = Batch { open: Mutex::new(open) };
        (Arc::new(batch), receiver)
    }
}

impl Open {
    fn wake_if_complete(&mut self) {
        if self.missing > 0 {
            return;
        }
        if let Some(done) = self.done.take() {
            // Nobody waits any more: the request was dropped, the records are stored all the same.
            let _ = done.send(std::mem::take(&mut self.outcomes));
        }
    }
}

/// One record's place in its batch.
struct Slot {
    batch: Arc<Batch>,
    index: usize,
}

impl Slot {
    fn fill(&self, outcome: Result<Position, AppendError>) {
        let open = self.batch.open.lock();
        let mut open = open.unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = open.outcomes.get_mut(self.index) {
            *place = outcome;
        }
        open.missing = open.missing.saturating_sub(1);
        open.wake_if_complete();
    }
}

/// Hands the brokers' answers to the batches.
struct Deliveries;

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "producer");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Slot>;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: Box<Slot>) {
        slot.fill(match result {
            Ok(record) => Ok(Position { partition: record.partition(), offset: record.offset() }),
            Err((error, _)) => Err(append_error(error)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_batch_answers_when_its_last_record_has() {
        let (batch, mut done) = Batch::new(2);
        let slot = |index| Slot { batch: Arc::clone(&batch), index };
        let position = Position { partition: 0, offset: 9 };
        slot(1).fill(Ok(position));
        assert!(done.try_recv().is_err());
        slot(0).fill(Err(AppendError::Busy));
        assert_eq!(done.await, Ok(vec![Err(AppendError::Busy), Ok(position)]));
    }

    #[tokio::test]
    async fn an_empty_batch_answers_at_once() {
        let (_batch, done) = Batch::new(0);
        assert_eq!(done.await, Ok(Vec::new()));
    }

    #[test]
    fn only_what_is_surely_not_stored_is_called_so() {
        let check = |code, expected: fn(&AppendError) -> bool| {
            let error = append_error(&KafkaError::MessageProduction(code));
            assert!(expected(&error), "{code}: {error:?}");
        };
        check(RDKafkaErrorCode::QueueFull, |e| *e == AppendError::Busy);
        check(RDKafkaErrorCode::MessageSizeTooLarge, |e| matches!(e, AppendError::Refused(_)));
        for code in [
            RDKafkaErrorCode::MessageTimedOut,
            RDKafkaErrorCode::PurgeInflight,
            RDKafkaErrorCode::NotEnoughReplicasAfterAppend,
            RDKafkaErrorCode::Fatal,
        ] {
            check(code, |e| matches!(e, AppendError::Unknown(_)));
        }
    }
}
