//! Errors that end a consume loop.

use platform::kafka;

/// Why a loop ended without a shutdown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The generation or the log does not fit this binary; no retry helps.
    #[error("{0}")]
    Refused(String),
    /// Kafka is unusable.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// Postgres did not answer, or answered with an error.
    #[error("postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// The worker panicked, so its cache is lost.
    #[error("{0} panicked")]
    Panicked(&'static str),
}
