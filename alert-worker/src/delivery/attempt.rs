//! Attempts: why sending a notification failed, and the pause before the next attempt.

use std::time::Duration;

use rand::RngExt;

/// The longest pause between two attempts, whatever the backoff or the receiver requests.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Another attempt may succeed, not sooner than the receiver requests.
    Retry { reason: String, after: Option<Duration> },
    /// Its target answers too many calls already: no attempt was made.
    Busy,
    /// No attempt can succeed before a person changes something.
    Park { reason: String },
}

impl Failure {
    pub fn retry(reason: impl std::fmt::Display) -> Failure {
        Failure::Retry { reason: reason.to_string(), after: None }
    }

    pub fn park(reason: impl std::fmt::Display) -> Failure {
        Failure::Park { reason: reason.to_string() }
    }
}

/// Returns the pause after the n-th attempt: doubled each time, with a random value from its upper half, so that
/// notifications that failed together are not retried together.
pub(super) fn pause_after(attempts: i32, first: Duration, requested: Option<Duration>) -> Duration {
    let whole = backoff(attempts, first);
    let drawn = whole.mul_f64(rand::rng().random_range(0.5..=1.0));
    drawn.max(requested.unwrap_or_default()).min(BACKOFF_MAX)
}

fn backoff(attempts: i32, first: Duration) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or_default();
    let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
    first.checked_mul(factor).unwrap_or(BACKOFF_MAX).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(5);

    #[test]
    fn pauses_double_up_to_an_hour() {
        let check = |attempts, seconds| {
            assert_eq!(backoff(attempts, FIRST), Duration::from_secs(seconds), "after {attempts}");
        };
        check(1, 5);
        check(2, 10);
        check(3, 20);
        check(10, 2_560);
        check(11, 3_600);
        check(20, 3_600);
        check(i32::MAX, 3_600);
        check(0, 5);
    }

    #[test]
    fn what_failed_together_is_not_retried_together() {
        let pauses: Vec<Duration> = (0..100).map(|_| pause_after(3, FIRST, None)).collect();
        assert!(
            pauses.iter().all(|pause| (Duration::from_secs(10)..=Duration::from_secs(20)).contains(pause))
        );
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }

    #[test]
    fn a_receiver_may_request_a_longer_pause_but_not_of_days() {
        assert_eq!(pause_after(1, FIRST, Some(Duration::from_secs(120))), Duration::from_secs(120));
        assert_eq!(pause_after(1, FIRST, Some(Duration::from_secs(90_000))), BACKOFF_MAX);
        assert!(pause_after(5, FIRST, Some(Duration::from_secs(1))) >= Duration::from_secs(40));
    }
}
