//! What can go wrong with the topics.

use rdkafka::error::KafkaError;

/// Why the journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log is not the one that we know; no retry helps, somebody must look.
    #[error("{0}")]
    Refused(String),
    /// Kafka did not answer, or not well.
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// Postgres did not answer, or not well.
    #[error("postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// Anything else.
    #[error("{0}")]
    Internal(String),
}
