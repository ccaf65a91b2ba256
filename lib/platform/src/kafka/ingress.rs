//! Reads a topic of external producers, each record at least once.

use std::time::Duration;

use super::error::Error;
use super::options::KafkaOptions;
use super::poller::{FetchLimits, Fetched, OnAssign, Poller};
use super::record::Record;
use crate::position::Position;

/// Most bytes of one batch.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a batch waits for its first record; also the longest delay of a shutdown.
const FETCH_WAIT: Duration = Duration::from_millis(100);

/// One member of a consumer group on one topic.
///
/// Handle a whole batch, then `commit` it, then take the next: uncommitted records come again after a
/// crash or a rebalance, so handling must be idempotent.
pub struct IngressConsumer {
    poller: Poller,
}

impl IngressConsumer {
    /// Joins the group; a new group starts with the oldest record.
    pub async fn new(options: &KafkaOptions, group: &str, topic: &str) -> Result<IngressConsumer, Error> {
        let mut config = options.reader();
        config
            .set("group.id", format!("{}{group}", options.topic_prefix))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "2000");
        let poller = Poller::new(&config, topic, OnAssign::Committed)?;
        poller.subscribe().await?;
        Ok(IngressConsumer { poller })
    }

    /// Returns the available records, in order within each partition; empty after a short wait without records.
    ///
    /// Must be called at least every five minutes, or the group reassigns the partitions.
    pub async fn next_batch(&self, records_max: usize) -> Result<Vec<Record>, Error> {
        let limits = FetchLimits { records: records_max, bytes: BATCH_BYTES_MAX, wait: FETCH_WAIT };
        let Fetched { records, changes, error } = self.poller.fetch(limits).await?;
        if !changes.is_empty() {
            tracing::info!(?changes, "the group decided");
        }
        if let Some(error) = error {
            tracing::warn!(%error, "ingress");
        }
        Ok(records)
    }

    /// Commits each partition up to and including the given record.
    ///
    /// After a failure, some records come again.
    pub async fn commit(&self, handled: &[Position]) -> Result<(), Error> {
        let after = |position: &Position| Position { offset: position.offset + 1, ..*position };
        self.poller.commit(handled.iter().map(after).collect()).await
    }

    /// Continues from these records again.
    pub async fn rewind(&self, positions: &[Position]) -> Result<(), Error> {
        self.poller.seek(positions.to_vec()).await
    }

    pub async fn close(self) {
        self.poller.close().await;
    }
}
