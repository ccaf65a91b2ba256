//! Collects the brokers' answers to a batch of records.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tokio::sync::oneshot;

use super::broker_clock::BrokerClock;
use crate::position::Position;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Possibly stored: send the same id again.
    #[error("the journal did not acknowledge in time: {0}")]
    Unknown(String),
    /// Not stored, because too many records are waiting; retry.
    #[error("too many records wait for the journal")]
    Busy,
    /// Not stored; a retry can't succeed.
    #[error("the journal takes no such record: {0}")]
    Refused(String),
}

/// Records of one call; the last answer wakes the caller.
pub(super) struct Batch {
    began: Instant,
    open: Mutex<Open>,
}

struct Open {
    outcomes: Vec<Result<Position, AppendError>>,
    missing: usize,
    done: Option<oneshot::Sender<Vec<Result<Position, AppendError>>>>,
}

impl Batch {
    pub fn new(records: usize) -> (Arc<Batch>, oneshot::Receiver<Vec<Result<Position, AppendError>>>) {
        let (done, receiver) = oneshot::channel();
        let unanswered = Err(AppendError::Unknown("no answer".to_owned()));
        let mut open = Open { outcomes: vec![unanswered; records], missing: records, done: Some(done) };
        open.wake_if_complete();
        let batch = Batch { began: Instant::now(), open: Mutex::new(open) };
        (Arc::new(batch), receiver)
    }
}

impl Open {
    fn wake_if_complete(&mut self) {
        if self.missing > 0 {
            return;
        }
        if let Some(done) = self.done.take() {
            // The caller no longer waits: its request was dropped, but the records are stored.
            let _ = done.send(std::mem::take(&mut self.outcomes));
        }
    }
}

pub(super) struct Slot {
    pub batch: Arc<Batch>,
    pub index: usize,
}

impl Slot {
    pub fn fill(&self, outcome: Result<Position, AppendError>) {
        let open = self.batch.open.lock();
        let mut open = open.unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = open.outcomes.get_mut(self.index) {
            *slot = outcome;
        }
        open.missing = open.missing.saturating_sub(1);
        open.wake_if_complete();
    }
}

pub(super) struct Deliveries {
    pub clock: BrokerClock,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "producer");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Slot>;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: Box<Slot>) {
        slot.fill(match result {
            Ok(record) => {
                self.clock.saw(record.timestamp(), slot.batch.began);
                Ok(Position { partition: record.partition(), offset: record.offset() })
            }
            Err((error, _)) => Err(append_error(error)),
        });
    }
}

pub(super) fn append_error(error: &KafkaError) -> AppendError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => AppendError::Busy,
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord,
        ) => AppendError::Refused(error.to_string()),
        _ => AppendError::Unknown(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_batch_answers_when_its_last_record_has() {
        let (batch, mut done) = Batch::new(2);
        let slot = |index| Slot { batch: Arc::clone(&batch), index };
        let position = Position { partition: 0, offset: 9 };
        slot(1).fill(Ok(position));
        assert!(done.try_recv().is_err());
        slot(0).fill(Err(AppendError::Busy));
        assert_eq!(done.await, Ok(vec![Err(AppendError::Busy), Ok(position)]));
    }

    #[tokio::test]
    async fn an_empty_batch_answers_at_once() {
        let (_batch, done) = Batch::new(0);
        assert_eq!(done.await, Ok(Vec::new()));
    }

    #[test]
    fn only_what_is_surely_not_stored_is_called_so() {
        let check = |code, expected: fn(&AppendError) -> bool| {
            let error = append_error(&KafkaError::MessageProduction(code));
            assert!(expected(&error), "{code}: {error:?}");
        };
        check(RDKafkaErrorCode::QueueFull, |e| *e == AppendError::Busy);
        check(RDKafkaErrorCode::MessageSizeTooLarge, |e| matches!(e, AppendError::Refused(_)));
        for code in [
            RDKafkaErrorCode::MessageTimedOut,
            RDKafkaErrorCode::PurgeInflight,
            RDKafkaErrorCode::NotEnoughReplicasAfterAppend,
            RDKafkaErrorCode::Fatal,
        ] {
            check(code, |e| matches!(e, AppendError::Unknown(_)));
        }
    }
}
