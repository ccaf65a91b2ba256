//! Runs a consumer on a thread of its own, because librdkafka blocks.
//!
//! Rebalances happen only during a fetch, so never in the middle of a batch.

use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use ledger_core::value::time::Time;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::oneshot;

use super::ends::{ends, positions_of};
use super::error::Error;
use super::record::Record;
use crate::position::Position;

const SEEK_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before another seek: a newly assigned partition can't be sought in yet.
const SEEK_RETRY: Duration = Duration::from_millis(20);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where to start in an assigned partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnAssign {
    /// At the end, until its owner has read the right offset and seeks to it.
    AwaitSeek,
    /// At the group's committed offset.
    Committed,
}

/// A change of assignment by the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Assigned(Vec<i32>),
    Lost(Vec<i32>),
}

#[derive(Debug)]
pub struct Fetched<T = Record> {
    pub records: Vec<T>,
    pub changes: Vec<Change>,
    pub error: Option<KafkaError>,
}

/// Most records and bytes of one fetch, and its longest wait for the first record.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    pub records: usize,
    pub bytes: usize,
    pub wait: Duration,
}

type RawConsumer = BaseConsumer<Rebalances>;
type Command = Box<dyn FnOnce(&RawConsumer) + Send>;

/// A consumer on a thread of its own; dropping it leaves the group.
pub struct Poller {
    commands: mpsc::Sender<Command>,
    /// Ends when the thread has closed the consumer.
    closed: oneshot::Receiver<()>,
    topic: String,
}

impl Poller {
    pub fn new(config: &ClientConfig, topic: &str, on_assign: OnAssign) -> Result<Poller, Error> {
        let context = Rebalances { on_assign, changes: Mutex::default() };
        let consumer: RawConsumer = config.create_with_context(context)?;
        let (commands, inbox) = mpsc::channel::<Command>();
        let (closing, closed) = oneshot::channel();
        std::thread::Builder::new()
            .name("kafka-poller".to_owned())
            .spawn(move || {
                for command in inbox {
                    command(&consumer);
                }
                drop(consumer);
                let _ = closing.send(());
            })
            .map_err(|error| Error::Internal(format!("poller thread: {error}")))?;
        Ok(Poller { commands, closed, topic: topic.to_owned() })
    }

    /// Runs `work` on the consumer's thread.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&RawConsumer, &str) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let topic = self.topic.clone();
        let command: Command = Box::new(move |consumer| {
            // The caller no longer waits, but the work is done.
            let _ = answer.send(work(consumer, &topic));
        });
        let gone = || Error::Internal("the poller thread is gone".to_owned());
        self.commands.send(command).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }

    pub async fn subscribe(&self) -> Result<(), Error> {
        Ok(self.call(|consumer, topic| consumer.subscribe(&[topic])).await??)
    }

    /// Assigns partitions without the group.
    pub async fn assign(&self, starts: Vec<(i32, Offset)>) -> Result<(), Error> {
        let assign = move |consumer: &RawConsumer, topic: &str| {
            let mut list = TopicPartitionList::with_capacity(starts.len());
            for (partition, offset) in starts {
                list.add_partition_offset(topic, partition, offset)?;
            }
            consumer.assign(&list)
        };
        Ok(self.call(assign).await??)
    }

    /// Fetches the available records; waits only for the first one.
    pub async fn fetch(&self, limits: FetchLimits) -> Result<Fetched, Error> {
        self.fetch_as(limits, record_of).await
    }

    /// Fetches as [`Self::fetch`] does, and keeps of each record what `keep` takes.
    pub(super) async fn fetch_as<T: Send + 'static>(
        &self,
        limits: FetchLimits,
        keep: fn(&BorrowedMessage<'_>) -> T,
    ) -> Result<Fetched<T>, Error> {
        self.call(move |consumer, _| fetch(consumer, limits, keep)).await
    }

    /// Returns the offset after what was read of each partition, with what is no record, such as the end of a transaction.
    pub(super) async fn read_up_to(&self) -> Result<Vec<Position>, Error> {
        self.call(|consumer, _| Ok(positions_of(&consumer.position()?))).await?
    }

    /// Returns the offsets that the group has committed; a partition without one is absent.
    pub(super) async fn committed(
        &self,
        partitions: Vec<i32>,
        timeout: Duration,
    ) -> Result<Vec<Position>, Error> {
        let committed = move |consumer: &RawConsumer, topic: &str| {
            let mut list = TopicPartitionList::with_capacity(partitions.len());
            for partition in partitions {
                list.add_partition(topic, partition);
            }
            Ok(positions_of(&consumer.committed_offsets(list, timeout)?))
        };
        self.call(committed).await?
    }

    pub async fn seek(&self, positions: Vec<Position>) -> Result<(), Error> {
        self.call(move |consumer, topic| seek(consumer, topic, &positions)).await?
    }

    /// Fetches nothing more of these partitions, until they are assigned anew.
    pub async fn pause(&self, partitions: Vec<i32>) -> Result<(), Error> {
        let pause = move |consumer: &RawConsumer, topic: &str| {
            let mut list = TopicPartitionList::with_capacity(partitions.len());
            for partition in partitions {
                list.add_partition(topic, partition);
            }
            consumer.pause(&list)
        };
        Ok(self.call(pause).await??)
    }

    /// Commits offsets; failures have no consequence.
    pub async fn commit(&self, positions: Vec<Position>) -> Result<(), Error> {
        let commit = move |consumer: &RawConsumer, topic: &str| {
            consumer.commit(&list_of(topic, &positions)?, CommitMode::Async)
        };
        Ok(self.call(commit).await??)
    }

    /// Requests the ends of partitions from the brokers.
    pub async fn ends(&self, partitions: Vec<i32>, timeout: Duration) -> Result<Vec<Position>, Error> {
        self.call(move |consumer, topic| ends(consumer, topic, &partitions, timeout)).await?
    }

    /// Leaves the group and waits until it has left, or for a while.
    ///
    /// librdkafka may never answer a consumer that closes while the group rebalances. Nothing joins the thread then: a
    /// runtime would wait for that without end, and the process could not stop.
    pub async fn close(self) {
        drop(self.commands);
        if tokio::time::timeout(CLOSE_TIMEOUT, self.closed).await.is_err() {
            tracing::warn!(topic = self.topic, "the consumer did not close in time");
        }
    }
}

fn fetch<T>(consumer: &RawConsumer, limits: FetchLimits, keep: fn(&BorrowedMessage<'_>) -> T) -> Fetched<T> {
    let mut fetched = Fetched { records: Vec::new(), changes: Vec::new(), error: None };
    let mut bytes = 0;
    let mut wait = limits.wait;
    while fetched.records.len() < limits.records && bytes < limits.bytes {
        match consumer.poll(wait) {
            None => break,
            Some(Err(error)) => {
                fetched.error = Some(error);
                break;
            }
            Some(Ok(message)) => {
                bytes += message.payload_len() + message.key_len();
                fetched.records.push(keep(&message));
            }
        }
        wait = Duration::ZERO;
    }
    fetched.changes = consumer.context().take_changes();
    fetched
}

fn record_of(message: &BorrowedMessage<'_>) -> Record {
    Record {
        position: Position { partition: message.partition(), offset: message.offset() },
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        appended_at: Time::from_millis(message.timestamp().to_millis().unwrap_or_default()),
    }
}

fn seek(consumer: &RawConsumer, topic: &str, positions: &[Position]) -> Result<(), Error> {
    let deadline = Instant::now() + SEEK_TIMEOUT;
    let mut waiting = positions.to_vec();
    while !waiting.is_empty() {
        let sought = consumer.seek_partitions(list_of(topic, &waiting)?, SEEK_TIMEOUT)?;
        let refused = |position: &Position| {
            let element = sought.find_partition(topic, position.partition);
            element.is_some_and(|element| element.error().is_err())
        };
        waiting.retain(refused);
        if waiting.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            return Err(KafkaError::Seek(format!("{topic} {}", waiting[0])).into());
        }
        std::thread::sleep(SEEK_RETRY);
    }
    Ok(())
}

fn list_of(topic: &str, positions: &[Position]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for position in positions {
        list.add_partition_offset(topic, position.partition, Offset::Offset(position.offset))?;
    }
    Ok(list)
}

/// Collects the group's changes for the next fetch to return.
struct Rebalances {
    on_assign: OnAssign,
    changes: Mutex<Vec<Change>>,
}

impl Rebalances {
    fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn keep(&self, change: Change) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }

    fn assign(&self, consumer: &RawConsumer, given: &mut TopicPartitionList) -> KafkaResult<()> {
        if self.on_assign == OnAssign::AwaitSeek {
            given.set_all_offsets(Offset::End)?;
        }
        if matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
            consumer.incremental_assign(given)
        } else {
            consumer.assign(given)
        }
    }

    fn revoke(consumer: &RawConsumer, taken: &TopicPartitionList) -> KafkaResult<()> {
        if matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
            consumer.incremental_unassign(taken)
        } else {
            consumer.unassign()
        }
    }
}

impl ClientContext for Rebalances {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "consumer");
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &RawConsumer, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions = list.elements().iter().map(|element| element.partition()).collect();
        let is_assignment = RDKafkaErrorCode::from(code) == RDKafkaErrorCode::AssignPartitions;
        let (done, change) = if is_assignment {
            (self.assign(consumer, list), Change::Assigned(partitions))
        } else {
            (Rebalances::revoke(consumer, list), Change::Lost(partitions))
        };
        if let Err(error) = done {
            tracing::error!(%error, ?change, "the group's decision could not be followed");
        }
        self.keep(change);
    }
}
