//! Errors that end a consume loop.

use platform::kafka;

/// Why a loop ended without a shutdown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The generation or the log does not fit this binary; no retry helps.
    #[error("{0}")]
    Refused(String),
    /// Kafka can't be used at all.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// Postgres did not answer, or not well.
    #[error("postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// The worker panicked, so what it had cached is gone.
    #[error("{0} panicked")]
    Panicked(&'static str),
}
