//! The current ends of the journal's partitions, from the brokers.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::error::{Error, once_led};
use super::options::{KafkaOptions, LogIdentity};
use crate::position::Position;

const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the journal's ends for services that do not append; clones share one connection.
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

    /// Returns the offset after the last record of every partition, from the brokers.
    pub async fn all(&self) -> Result<Vec<Position>, Error> {
        self.ask((0..self.partitions).collect()).await
    }

    /// Returns the offset after the last record of one partition, from its broker.
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
