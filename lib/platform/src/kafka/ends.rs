//! The current ends of the journal's partitions, and how far a group has shown that it has read them, from the brokers.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::blocking::blocking;
use super::error::{Error, once_led};
use super::options::{KafkaOptions, LogIdentity};
use super::reasons::{Asker, Reasons, explained};
use crate::position::Position;

const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Readiness waits no longer than 2 s for its checks.
const CHECK_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Reads the journal's ends for services that do not append; clones share one connection.
#[derive(Clone)]
pub struct Ends {
    client: Arc<Asker>,
    topic: String,
    partitions: i32,
}

impl Ends {
    /// Connects in the background.
    pub fn new(options: &KafkaOptions, identity: LogIdentity) -> Result<Ends, Error> {
        Ok(Ends {
            client: Arc::new(options.reader(&[])?.create_with_context(Reasons::default())?),
            topic: options.topics().events,
            partitions: identity.partitions,
        })
    }

    /// Returns the offset after the last record of every partition, from the brokers.
    pub async fn all(&self) -> Result<Vec<Position>, Error> {
        self.ask((0..self.partitions).collect(), QUERY_TIMEOUT).await
    }

    /// Checks that the journal answers soon. Errors say why not.
    pub async fn check(&self) -> Result<(), Error> {
        self.ask(vec![0], CHECK_TIMEOUT).await.map(drop)
    }

    /// Returns the offset after the last record of one partition, from its broker.
    pub async fn of(&self, partition: i32) -> Result<Position, Error> {
        let ends = self.ask(vec![partition], QUERY_TIMEOUT).await?;
        let end = ends.first().copied();
        end.ok_or_else(|| Error::Internal(format!("no end of partition {partition}")))
    }

    async fn ask(&self, partitions: Vec<i32>, timeout: Duration) -> Result<Vec<Position>, Error> {
        let it = self.clone();
        blocking(move || {
            let answer = ends(&it.client, &it.topic, &partitions, timeout);
            explained(&it.client, answer)
        })
        .await
    }
}

/// Returns how far a group has shown that it has read the journal; a partition without an offset is absent.
pub async fn shown_by(
    options: &KafkaOptions,
    group: &str,
    identity: LogIdentity,
) -> Result<Vec<Position>, Error> {
    // Asks and does not join.
    let client: Asker = options.member(group)?.create_with_context(Reasons::default())?;
    let topic = options.topics().events;
    blocking(move || {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&topic, 0, identity.partitions - 1);
        let answer = client.committed_offsets(list, QUERY_TIMEOUT).map_err(Error::from);
        Ok(positions_of(&explained(&client, answer)?))
    })
    .await
}

/// Requests the ends of many partitions, one request per broker.
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
        // As a timestamp, `Offset::End` means the end itself.
        wanted.add_partition_offset(topic, *partition, Offset::End)?;
    }
    let found = client.offsets_for_times(wanted, timeout)?;
    found
        .elements()
        .iter()
        .map(|element| {
            element.error()?;
            let Offset::Offset(offset) = element.offset() else {
                return Err(Error::Internal(format!("end of {topic}: {:?}", element.offset())));
            };
            Ok(Position { partition: element.partition(), offset })
        })
        .collect()
}

pub(super) fn positions_of(list: &TopicPartitionList) -> Vec<Position> {
    list.elements()
        .iter()
        .filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some(Position { partition: element.partition(), offset }),
            Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => {
                None
            }
        })
        .collect()
}
