//! The journal: appends events by account, and reads the end of each partition.

use std::time::Duration;

use super::appender::Appender;
use super::broker_clock::BrokerClock;
use super::delivery::AppendError;
use super::ends::Ends;
use super::error::Error;
use super::options::{KafkaOptions, LogIdentity};
use crate::position::Position;

/// The journal's appender; keys are accounts.
#[derive(Clone)]
pub struct Journal {
    appender: Appender,
    ends: Ends,
}

impl Journal {
    /// Makes the journal's appender; call `prepare` first.
    pub fn new(options: &KafkaOptions, identity: LogIdentity) -> Result<Journal, Error> {
        let topic = options.topics().events;
        Ok(Journal {
            appender: Appender::new(options, &topic, identity.partitions)?,
            ends: Ends::new(options, identity)?,
        })
    }

    pub fn partition_of(&self, account: &str) -> i32 {
        self.appender.partition_of(account.as_bytes())
    }

    /// Appends one event and waits until every in-sync replica has it.
    pub async fn append(&self, account: &str, bytes: Vec<u8>) -> Result<Position, AppendError> {
        self.appender.append(account.as_bytes(), &bytes).await
    }

    /// Appends events and returns each outcome, in the same order.
    pub async fn append_all<K: AsRef<str>, V: AsRef<[u8]>>(
        &self,
        events: &[(K, V)],
    ) -> Vec<Result<Position, AppendError>> {
        let keyed: Vec<(&[u8], &[u8])> =
            events.iter().map(|(account, bytes)| (account.as_ref().as_bytes(), bytes.as_ref())).collect();
        self.appender.append_all(&keyed).await
    }

    /// Returns the offset after the last record of every partition, from the brokers.
    pub async fn ends(&self) -> Result<Vec<Position>, Error> {
        self.ends.all().await
    }

    /// Returns the offset after the last record of one partition, from its broker.
    pub async fn end(&self, partition: i32) -> Result<Position, Error> {
        self.ends.of(partition).await
    }

    /// Returns the brokers' clock, as the appends have shown it.
    pub fn clock(&self) -> &BrokerClock {
        self.appender.clock()
    }

    pub fn partitions(&self) -> i32 {
        self.appender.partitions()
    }

    /// Waits until all queued records are acknowledged, at most `timeout`; for shutdown.
    pub async fn flush(&self, timeout: Duration) {
        self.appender.flush(timeout).await;
    }
}
