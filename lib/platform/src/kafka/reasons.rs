//! Why the brokers can't be reached, as librdkafka says it.
//!
//! A request that waits for a connection says only that it timed out; the refused login or certificate is reported to the
//! client's context.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::error::Error;

/// Most events of a client taken at a time.
const EVENTS_MAX: usize = 100;
/// How long an event of a failed request may take.
const EVENT_WAIT: Duration = Duration::from_millis(50);

/// Keeps the last reason; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Reasons {
    last: Arc<Mutex<Option<String>>>,
}

/// A client that asks brokers about topics.
pub(super) type Asker = BaseConsumer<Reasons>;

impl Reasons {
    pub fn last(&self) -> Option<String> {
        self.lock().clone()
    }

    pub fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Reasons {
    fn error(&self, error: KafkaError, reason: &str) {
        let mut last = self.lock();
        let says_nothing = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if last.is_none() || !says_nothing {
            *last = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Reasons {}

/// Adds to a failed request why there is no connection.
pub(super) fn explained<T>(asker: &Asker, outcome: Result<T, Error>) -> Result<T, Error> {
    match outcome {
        Err(Error::Kafka(error)) if is_unanswered(&error) => {
            // What has happened to the client's connections reaches only who polls. A poll without patience would end
            // at the first line of the library's log.
            let has_event = |_: &usize| asker.poll(EVENT_WAIT).is_some();
            let _ = (0..EVENTS_MAX).take_while(has_event).count();
            match asker.context().last() {
                Some(reason) => Err(Error::Unreachable(reason)),
                None => Err(Error::Kafka(error)),
            }
        }
        outcome => {
            let _ = asker.poll(Duration::ZERO);
            asker.context().forget();
            outcome
        }
    }
}

fn is_unanswered(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
        )
    )
}
