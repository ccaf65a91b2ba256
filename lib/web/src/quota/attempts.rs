//! Attempts: how often something may fail for each key before it has to wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::http::Problem;

/// Keys kept before those whose window is over are forgotten.
const KEPT_MAX: usize = 10_000;

/// Allows each key a number of failures in a window of time. An attempt counts from its beginning, so that many at once
/// are no way around, and is given back if it succeeds.
pub struct Attempts<K> {
    failures_max: u32,
    window: Duration,
    counted: Mutex<HashMap<K, Counted>>,
}

struct Counted {
    since: Instant,
    attempts: u32,
}

impl<K: Hash + Eq + Clone> Attempts<K> {
    pub fn new(failures_max: u32, window: Duration) -> Self {
        Self { failures_max, window, counted: Mutex::default() }
    }

    /// Counts an attempt: 429 with the time to wait if too many have failed.
    pub fn begin(&self, key: &K) -> Result<(), Problem> {
        let now = Instant::now();
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.len() >= KEPT_MAX {
            counted.retain(|_, counted| now < counted.since + self.window);
        }
        let fresh = Counted { since: now, attempts: 0 };
        let entry = counted.entry(key.clone()).or_insert(fresh);
        if now >= entry.since + self.window {
            *entry = Counted { since: now, attempts: 0 };
        }
        if entry.attempts >= self.failures_max {
            let wait = (entry.since + self.window).saturating_duration_since(now);
            return Err(Problem::too_many_requests("too many attempts have failed").retry_after(wait));
        }
        entry.attempts += 1;
        Ok(())
    }

    /// Gives back an attempt that has not failed.
    pub fn give_back(&self, key: &K) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = counted.get_mut(key) {
            entry.attempts = entry.attempts.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_fails_too_often_waits_for_the_next_window() {
        let window = Duration::from_millis(300);
        let attempts = Attempts::new(2, window);
        for _ in 0..100 {
            attempts.begin(&"acme").expect("a success does not count");
            attempts.give_back(&"acme");
        }
        assert!(attempts.begin(&"acme").is_ok() && attempts.begin(&"acme").is_ok());
        let refused = attempts.begin(&"acme").expect_err("failed twice");
        assert_eq!((refused.status.as_u16(), refused.retry_after_seconds), (429, Some(1)));
        assert!(attempts.begin(&"beta").is_ok());
        tokio::time::sleep(window).await;
        assert!(attempts.begin(&"acme").is_ok());
    }
}
