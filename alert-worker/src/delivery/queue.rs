//! The queue of notifications: leased by one worker at a time, tried again with growing pauses, then parked.

use std::time::Duration;

use ledger_core::event::Channel;
use rand::RngExt;
use platform::pg::{self, PgPool};
use uuid::Uuid;

/// How long a worker may hold a notification; longer than any attempt takes, so it only ends by itself when the worker
/// is gone.
pub const LEASE: Duration = Duration::from_secs(60);
/// The longest pause between two attempts, whatever the backoff or the receiver says.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60 * 60);
/// Longest reason that is kept, in characters.
const REASON_CHARS_MAX: usize = 500;

/// A notification that is to be sent now.
#[derive(Debug, Clone)]
pub(super) struct Due {
    pub account_id: String,
    pub notification_id: String,
    pub address: Option<String>,
    pub subject: String,
    pub text: String,
    pub html: Option<String>,
    /// This one counted.
    pub attempts: i32,
    /// Says that it is ours.
    pub lease: Uuid,
}

type DueColumns = (String, String, Option<String>, String, String, Option<String>, i32);

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Worth another attempt, not sooner than the receiver asked for.
    Retry { reason: String, after: Option<Duration> },
    /// No attempt can succeed before somebody changes something.
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

/// Leases what is due on a channel, the longest due first. The clock is read once, and so the index is used.
pub(super) async fn lease(pool: &PgPool, channel: Channel, rows_max: usize) -> Result<Vec<Due>, sqlx::Error> {
    let lease = Uuid::new_v4();
    let rows: Vec<DueColumns> = pg::write(pool, move |connection| {
        Box::pin(
            sqlx::query_as(
                "with due as (
                     select notification_id
                     from delivery.notification
                     where status = 'pending' and channel = $1
                       and next_attempt_at <= (select clock_timestamp())
                       and (leased_until is null or leased_until <= clock_timestamp())
                     order by next_attempt_at
                     limit $2
                     for update skip locked
                 )
                 update delivery.notification
                 set lease        = $3,
                     leased_until = clock_timestamp() + $4 * interval '1 ms',
                     attempts     = attempts + 1
                 from due
                 where notification.notification_id = due.notification_id
                 returning account_id, notification.notification_id, address, subject, text, html,
                           attempts",
            )
            .bind(channel.as_str())
            .bind(rows_max as i64)
            .bind(lease)
            .bind(millis(LEASE))
            .fetch_all(connection),
        )
    })
    .await?;
    let due = rows.into_iter().map(|row| {
        let (account_id, notification_id, address, subject, text, html, attempts) = row;
        Due { account_id, notification_id, address, subject, text, html, attempts, lease }
    });
    Ok(due.collect())
}

/// Records that it was taken; also where the lease has run out meanwhile, for it is so.
pub(super) async fn delivered(pool: &PgPool, due: &Due) -> Result<(), sqlx::Error> {
    let id = due.notification_id.clone();
    pg::write(pool, |connection| {
        Box::pin(async move {
            sqlx::query(
                "update delivery.notification
                 set status       = 'delivered',
                     sent_at      = clock_timestamp(),
                     last_error   = null,
                     lease        = null,
                     leased_until = null
                 where notification_id = $1 and status <> 'delivered'",
            )
            .bind(id)
            .execute(connection)
            .await
            .map(drop)
        })
    })
    .await
}

/// Puts it back for the next attempt, unless somebody else has it by now.
pub(super) async fn retry(
    pool: &PgPool,
    due: &Due,
    pause: Duration,
    reason: &str,
) -> Result<(), sqlx::Error> {
    let (id, lease, reason) = (due.notification_id.clone(), due.lease, short(reason));
    pg::write(pool, move |connection| {
        Box::pin(async move {
            sqlx::query(
                "update delivery.notification
                 set next_attempt_at = clock_timestamp() + $3 * interval '1 ms',
                     last_error      = $4,
                     lease           = null,
                     leased_until    = null
                 where notification_id = $1 and lease = $2",
            )
            .bind(id)
            .bind(lease)
            .bind(millis(pause))
            .bind(reason)
            .execute(connection)
            .await
            .map(drop)
        })
    })
    .await
}

/// Parks it for good, until it is redelivered, unless somebody else has it by now.
pub(super) async fn park(pool: &PgPool, due: &Due, reason: &str) -> Result<(), sqlx::Error> {
    let (id, lease, reason) = (due.notification_id.clone(), due.lease, short(reason));
    pg::write(pool, move |connection| {
        Box::pin(async move {
            sqlx::query(
                "update delivery.notification
                 set status       = 'parked',
                     last_error   = $3,
                     lease        = null,
                     leased_until = null
                 where notification_id = $1 and lease = $2",
            )
            .bind(id)
            .bind(lease)
            .bind(reason)
            .execute(connection)
            .await
            .map(drop)
        })
    })
    .await
}

/// Counts what waits and what is parked, as (channel, pending, parked).
pub(super) async fn backlog(pool: &PgPool) -> Result<Vec<(String, i64, i64)>, sqlx::Error> {
    sqlx::query_as(
        "select channel,
                count(*) filter (where status = 'pending'),
                count(*) filter (where status = 'parked')
         from delivery.notification
         where status = 'pending' or status = 'parked'
         group by channel",
    )
    .fetch_all(pool)
    .await
}

/// Returns the pause after the n-th attempt: doubled each time, and drawn from its upper half, so that what failed
/// together does not come back together.
pub(super) fn pause_after(attempts: i32, first: Duration, asked: Option<Duration>) -> Duration {
    let whole = backoff(attempts, first);
    let drawn = whole.mul_f64(rand::rng().random_range(0.5..=1.0));
    drawn.max(asked.unwrap_or_default()).min(BACKOFF_MAX)
}

fn backoff(attempts: i32, first: Duration) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or_default();
    let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
    first.checked_mul(factor).unwrap_or(BACKOFF_MAX).min(BACKOFF_MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn short(reason: &str) -> String {
    let plain = reason.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(REASON_CHARS_MAX).collect()
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
    fn what_failed_together_does_not_come_back_together() {
        let pauses: Vec<Duration> = (0..100).map(|_| pause_after(3, FIRST, None)).collect();
        assert!(
            pauses.iter().all(|pause| (Duration::from_secs(10)..=Duration::from_secs(20)).contains(pause))
        );
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }

    #[test]
    fn a_receiver_may_ask_for_more_patience_but_not_for_days() {
        assert_eq!(pause_after(1, FIRST, Some(Duration::from_secs(120))), Duration::from_secs(120));
        assert_eq!(pause_after(1, FIRST, Some(Duration::from_secs(90_000))), BACKOFF_MAX);
        assert!(pause_after(5, FIRST, Some(Duration::from_secs(1))) >= Duration::from_secs(40));
    }

    #[test]
    fn a_reason_is_kept_short_and_on_one_line() {
        assert_eq!(short("550 no\r\nsuch user"), "550 no  such user");
        assert_eq!(short(&"x".repeat(10_000)).len(), REASON_CHARS_MAX);
    }
}
