//! Errors of Kafka.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::unready::Unready;

/// Pause between requests while a partition has no leader.
const RETRY: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the expected log; no retry helps, an operator must act.
    #[error("{0}")]
    Refused(String),
    /// Kafka did not answer, or answered with an error.
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// No broker takes the connection, and why.
    #[error("kafka can't be reached: {0}")]
    Unreachable(String),
    /// Postgres did not answer, or answered with an error.
    #[error("postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// Returns whether a partition is changing its leader, as after its creation.
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

/// What everybody may see of why there is no connection: it names nothing that is behind us.
const REFUSALS: [&str; 2] = ["Authentication failed", "certificate verify failed"];

impl From<&Error> for Unready {
    fn from(error: &Error) -> Unready {
        let word = match error {
            Error::Kafka(_) | Error::Unreachable(_) | Error::Postgres(_) => "unreachable",
            Error::Refused(_) => "refused",
            Error::Internal(_) => "failing",
        };
        let cause = error.to_string();
        let detail = REFUSALS.into_iter().find(|known| cause.contains(known)).unwrap_or_default();
        Unready { word, detail: detail.to_owned(), cause }
    }
}

impl From<Error> for Unready {
    fn from(error: Error) -> Unready {
        Unready::from(&error)
    }
}

/// Repeats a request to Kafka, on this blocking thread, while a partition has no leader, for at most `patience`.
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
    fn everybody_sees_which_refusal_it_is_and_the_log_from_whom() {
        let refused =
            "sasl_ssl://10.0.0.7:9093/1: SASL authentication error: Authentication failed for ledger";
        let unready = Unready::from(Error::Unreachable(refused.to_owned()));
        assert_eq!(unready.to_string(), "unreachable: Authentication failed");
        assert!(unready.cause.contains("10.0.0.7"));
        let elsewhere = Unready::from(Error::Unreachable("10.0.0.7:9093: Connection refused".to_owned()));
        assert_eq!(elsewhere.to_string(), "unreachable");
    }

    #[test]
    fn a_partition_without_a_leader_is_asked_again_and_other_errors_are_told_at_once() {
        let (answer, asked) = failing(RDKafkaErrorCode::NotLeaderForPartition, 2);
        assert_eq!((answer.ok(), asked), (Some(7), 3));
        let (answer, asked) = failing(RDKafkaErrorCode::TopicAuthorizationFailed, 2);
        assert_eq!((answer.is_err(), asked), (true, 1));
    }
}
