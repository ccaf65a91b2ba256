//! The settings that each topic is made with, and that it must keep while the system runs.

use super::options::{KafkaOptions, Topics};

/// Copies of a partition, if there are enough brokers.
const REPLICATION: i32 = 3;
/// Copies that have a record before it is acknowledged, if there are as many. Two copies too: with one, the broker that
/// has the only copy of an acknowledged record may be the one that burns. While either of two brokers is down, writes
/// wait and are answered 503.
const MIN_INSYNC: i32 = 2;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
const FOREVER: i64 = -1;
/// Fits any batch that librdkafka sends.
const MESSAGE_BYTES_MAX: i64 = 1_048_588;

pub(super) const RETENTION_MS: &str = "retention.ms";
pub(super) const RETENTION_BYTES: &str = "retention.bytes";
pub(super) const CLEANUP_POLICY: &str = "cleanup.policy";
pub(super) const UNCLEAN_ELECTION: &str = "unclean.leader.election.enable";
pub(super) const TIMESTAMP_TYPE: &str = "message.timestamp.type";
pub(super) const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// A topic, and what of its settings differs from the others'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicPlan {
    pub name: String,
    /// Milliseconds that a record is kept at least; negative: forever.
    pub retention_ms: i64,
}

pub(super) fn journal(topics: &Topics) -> TopicPlan {
    TopicPlan { name: topics.events.clone(), retention_ms: FOREVER }
}

pub(super) fn others(topics: &Topics) -> Vec<TopicPlan> {
    vec![
        TopicPlan { name: topics.usage.clone(), retention_ms: 7 * DAY_MS },
        TopicPlan { name: topics.alerts.clone(), retention_ms: 30 * DAY_MS },
        TopicPlan { name: topics.dead_letters.clone(), retention_ms: FOREVER },
        TopicPlan { name: topics.checkpoints.clone(), retention_ms: FOREVER },
    ]
}

pub(super) fn all(topics: &Topics) -> Vec<TopicPlan> {
    std::iter::once(journal(topics)).chain(others(topics)).collect()
}

/// Returns how many copies of a partition there are to be with so many brokers.
pub(super) fn replication(options: &KafkaOptions, brokers: i32) -> i32 {
    options.replication.unwrap_or(REPLICATION.min(brokers))
}

/// Returns how many of these copies must have a record before it is acknowledged.
pub(super) fn min_insync(replication: i32) -> i32 {
    MIN_INSYNC.min(replication)
}

impl TopicPlan {
    /// Returns the settings that the topic is made with.
    pub fn settings(&self, replication: i32) -> Vec<(&'static str, String)> {
        vec![
            (TIMESTAMP_TYPE, "LogAppendTime".to_owned()),
            (CLEANUP_POLICY, "delete".to_owned()),
            (RETENTION_MS, self.retention_ms.to_string()),
            (RETENTION_BYTES, FOREVER.to_string()),
            (MIN_INSYNC_REPLICAS, min_insync(replication).to_string()),
            (UNCLEAN_ELECTION, "false".to_owned()),
            ("max.message.bytes", MESSAGE_BYTES_MAX.to_string()),
        ]
    }
}
