//! The only place that reads the time; also checks that the clocks of the machines agree.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ledger_core::value::time::Time;
use sqlx::PgPool;

use crate::pg;

/// Beyond this, an instance is not ready: ledger time would be clamped.
pub const SKEW_MAX: Duration = Duration::from_secs(2);

/// Returns the time by this machine's clock.
pub fn now() -> Time {
    let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    };
    Time::from_micros(micros)
}

/// Another clock's time, and this machine's time before the request and after the response.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Time by this machine's clock when the request was sent.
    pub asked: Time,
    pub other: Time,
    /// Time from request to response, by a monotonic clock.
    pub took: Duration,
}

impl Reading {
    /// Returns the certain part of the skew: the time of the round trip is subtracted.
    pub fn skew(&self) -> Duration {
        let took = i64::try_from(self.took.as_micros()).unwrap_or(i64::MAX);
        let early = self.asked.minus(self.other);
        let late = self.other.minus(self.asked.plus_micros(took));
        let micros = early.max(late).max(0);
        Duration::from_micros(micros.unsigned_abs())
    }

    /// Checks that the clocks agree well enough. Errors: a sentence that describes the skew.
    pub fn check(&self, whose: &str) -> Result<(), String> {
        let skew = self.skew();
        if skew <= SKEW_MAX {
            return Ok(());
        }
        Err(format!(
            "this clock and the {whose}'s are {:.1} s apart, {} s at most",
            skew.as_secs_f64(),
            SKEW_MAX.as_secs()
        ))
    }
}

/// Reads the clock of the database.
pub async fn read_database(pool: &PgPool) -> Result<Reading, sqlx::Error> {
    read_database_by(now, pool).await
}

/// Checks a clock, this machine's outside of tests, before something is done that can't be undone. Errors: a sentence.
pub async fn agrees_with_database(clock: fn() -> Time, pool: &PgPool) -> anyhow::Result<()> {
    read_database_by(clock, pool).await?.check("database").map_err(anyhow::Error::msg)
}

async fn read_database_by(clock: fn() -> Time, pool: &PgPool) -> Result<Reading, sqlx::Error> {
    let (asked, started) = (clock(), Instant::now());
    let question = sqlx::query_scalar("select clock_timestamp()");
    let other = question.fetch_one(pg::bounded(pool)).await?;
    Ok(Reading { asked, other: Time::from_chrono(other), took: started.elapsed() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(other_seconds: i64, took: u64) -> Reading {
        let asked = Time::from_micros(0);
        Reading { asked, other: asked.plus_seconds(other_seconds), took: Duration::from_secs(took) }
    }

    #[test]
    fn a_clock_two_seconds_off_either_way_still_agrees() {
        for seconds in [-2, 0, 2] {
            assert_eq!(reading(seconds, 0).check("database"), Ok(()), "{seconds}");
        }
    }

    #[test]
    fn a_clock_further_off_is_named() {
        for seconds in [-3, 3, 365 * 86_400] {
            let sentence = reading(seconds, 0).check("database").expect_err("too far");
            assert!(sentence.contains("database"), "{sentence}");
        }
    }

    #[test]
    fn a_slow_answer_is_not_taken_for_a_wrong_clock() {
        assert_eq!(reading(9, 10).skew(), Duration::ZERO);
        assert_eq!(reading(11, 10).skew(), Duration::from_secs(1));
        assert_eq!(reading(-3, 10).skew(), Duration::from_secs(3));
    }

    #[test]
    fn now_is_after_this_was_written() {
        assert!(now() > "2025-01-01T00:00:00Z".parse().expect("a time"));
    }
}
