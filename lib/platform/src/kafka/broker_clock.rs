//! The brokers' clock, read from the append times of our own records: it costs no request.

use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::message::Timestamp;

use ledger_core::value::time::Time;

use crate::clock::{self, Reading};
use crate::unready::Unready;

/// An append that took longer says too little about the time.
const TOOK_MAX: Duration = Duration::from_secs(1);

/// The last append time that is known well; clones share it.
#[derive(Debug, Clone, Default)]
pub struct BrokerClock {
    last: Arc<Mutex<Option<Appended>>>,
}

#[derive(Debug, Clone, Copy)]
struct Appended {
    /// The broker's clock said this between `began` and `ended`.
    at: Time,
    began: Instant,
    ended: Instant,
}

impl BrokerClock {
    /// Takes note of a record that was sent at `began` and is acknowledged now.
    pub(super) fn saw(&self, timestamp: Timestamp, began: Instant) {
        let Timestamp::LogAppendTime(millis) = timestamp else { return };
        let ended = Instant::now();
        if ended.duration_since(began) > TOOK_MAX {
            return;
        }
        let appended = Appended { at: Time::from_millis(millis), began, ended };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(appended);
    }

    /// Checks that this clock and the brokers' agree, as far as an append has shown. Errors: a sentence.
    pub fn check(&self) -> Result<(), String> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.map_or(Ok(()), |last| last.reading(clock::now(), Instant::now()).check("broker"))
    }

    /// Returns the check for readiness.
    pub fn readiness(&self) -> impl Fn() -> Ready<Result<(), Unready>> + Send + Sync + 'static {
        let clock = self.clone();
        move || ready(clock.check().map_err(|detail| Unready::new("skewed", detail)))
    }
}

impl Appended {
    /// Compares by what this clock says now, so that a jump of it after the append is seen too.
    fn reading(&self, now: Time, here: Instant) -> Reading {
        let since = here.duration_since(self.began);
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        Reading {
            asked: now.plus_micros(-micros),
            other: self.at,
            took: self.ended.duration_since(self.began),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(broker_seconds: i64, ours_seconds: i64, expected: Result<(), &str>) {
        let began = Instant::now();
        let ended = began + Duration::from_millis(500);
        let start = Time::from_millis(1_800_000_000_000);
        let appended = Appended { at: start.plus_seconds(broker_seconds), began, ended };
        // A minute has gone by since the append.
        let now = start.plus_seconds(60 + ours_seconds);
        let checked = appended.reading(now, began + Duration::from_secs(60)).check("broker");
        assert_eq!(checked, expected.map_err(str::to_owned), "{broker_seconds} {ours_seconds}");
    }

    #[test]
    fn clocks_are_compared_by_what_they_say_now() {
        let apart = |by: &'static str| match by {
            "5.0" => "this clock and the broker's are 5.0 s apart, 2 s at most",
            _ => "this clock and the broker's are 31536000.0 s apart, 2 s at most",
        };
        check(0, 0, Ok(()));
        check(2, 0, Ok(()));
        check(0, 2, Ok(()));
        check(-5, 0, Err(apart("5.0")));
        check(0, 5, Err(apart("5.0")));
        // The half second that the append took says nothing.
        check(2, 0, Ok(()));
        check(0, 365 * 86_400, Err(apart("a year")));
    }

    #[test]
    fn a_slow_append_and_a_producers_time_say_nothing() {
        let clock = BrokerClock::default();
        clock.saw(Timestamp::CreateTime(0), Instant::now());
        clock.saw(Timestamp::LogAppendTime(0), Instant::now() - 2 * TOOK_MAX);
        assert_eq!(clock.check(), Ok(()));
        clock.saw(Timestamp::LogAppendTime(0), Instant::now());
        assert!(clock.check().is_err());
    }
}
