//! Errors of the topics.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Between two questions while a partition has no leader.
const RETRY: Duration = Duration::from_millis(100);

/// Why the journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log is not the one that we know; no retry helps, an operator must act.
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

impl Error {
    /// Says whether a partition is just changing its leader, as one does that was made a moment ago.
    fn is_without_leader(&self) -> bool {
        let Error::Kafka(error) = self else { return false };
        matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::NotLeaderForPartition
                    | RDKafkaErrorCode::LeaderNotAvailable
                    | RDKafkaErrorCode::UnknownTopicOrPartition
            )
        )
    }
}

/// Repeats a request to Kafka, on this blocking thread, while a partition has no leader, for as long as `patience`.
pub(super) fn once_led<T>(
    patience: Duration,
    mut question: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let deadline = Instant::now() + patience;
    loop {
        match question() {
            Err(error) if error.is_without_leader() && Instant::now() < deadline => std::thread::sleep(RETRY),
            answered => return answered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(code: RDKafkaErrorCode, times: usize) -> (Result<usize, Error>, usize) {
        let mut asked = 0;
        let answer = once_led(Duration::from_secs(5), || {
            asked += 1;
            if asked <= times { Err(KafkaError::MetadataFetch(code).into()) } else { Ok(7) }
        });
        (answer, asked)
    }

    #[test]
    fn a_partition_without_a_leader_is_asked_again_and_other_errors_are_told_at_once() {
        let (answer, asked) = failing(RDKafkaErrorCode::NotLeaderForPartition, 2);
        assert_eq!((answer.ok(), asked), (Some(7), 3));
        let (answer, asked) = failing(RDKafkaErrorCode::TopicAuthorizationFailed, 2);
        assert_eq!((answer.is_err(), asked), (true, 1));
    }
}
