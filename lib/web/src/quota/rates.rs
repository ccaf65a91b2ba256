//! Rates: how many requests a second each key or peer may send.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};

use crate::http::Problem;

/// Keys kept before those that have not asked for a while are forgotten.
const KEPT_MAX: usize = 10_000;
/// Requests between two looks at how many keys are kept.
const LOOK_EVERY: u32 = 1_024;

/// A rate for each key, with a burst of twice as much.
pub struct Rates<K: Hash + Eq + Clone> {
    /// None: no limit.
    limiter: Option<DefaultKeyedRateLimiter<K>>,
    clock: DefaultClock,
    taken: AtomicU32,
}

impl<K: Hash + Eq + Clone> Rates<K> {
    /// Limits each key to this many requests a second; 0 means no limit.
    pub fn per_second(rate: u32) -> Self {
        let limiter = NonZeroU32::new(rate).map(|rate| {
            let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(1));
            DefaultKeyedRateLimiter::keyed(Quota::per_second(rate).allow_burst(burst))
        });
        Self { limiter, clock: DefaultClock::default(), taken: AtomicU32::new(0) }
    }

    /// Counts one request of a key: 429 with the time to wait if it is beyond the rate.
    pub fn take(&self, key: &K) -> Result<(), Problem> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        // A key whose burst is whole again is as good as new, so forgetting it gives nobody more.
        let looks = self.taken.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY);
        if looks && limiter.len() > KEPT_MAX {
            limiter.retain_recent();
        }
        limiter.check_key(key).map_err(|early| {
            let wait = early.wait_time_from(self.clock.now());
            Problem::too_many_requests("this caller sends more requests than it may").retry_after(wait)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_a_rate_and_a_burst_of_twice_as_much() {
        let rates = Rates::per_second(5);
        let served = (0..50).filter(|_| rates.take(&"noisy").is_ok()).count();
        assert!((10..=12).contains(&served), "{served}");
        let refused = rates.take(&"noisy").expect_err("beyond the rate");
        assert_eq!((refused.status.as_u16(), refused.retry_after_seconds), (429, Some(1)));
        assert!(rates.take(&"other").is_ok());
    }

    #[test]
    fn a_rate_of_0_is_none() {
        let rates = Rates::per_second(0);
        assert!((0..10_000).all(|_| rates.take(&"key").is_ok()));
    }
}
