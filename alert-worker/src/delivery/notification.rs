//! `delivery.notification`: one row per firing, channel and recipient; one worker at a time leases it until it is sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger_core::event::Channel;
use platform::pg::{self, PgConnection, PgPool};
use uuid::Uuid;

/// How long a worker may hold a notification; longer than any attempt takes, so it expires only if the worker
/// has crashed.
pub const LEASE: Duration = Duration::from_secs(60);
/// Longest stored reason, in characters.
const REASON_CHARS_MAX: usize = 500;
const INSERT_MAX: usize = 500;
/// Why notifications are parked in a database from a backup.
pub(super) const FROM_BEFORE: &str =
    "the database was restored from a backup, and this may have been sent before";
/// How many rows of the front of the line are looked at for each that may be leased.
const FRONT_FACTOR: i64 = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notification {
    pub account_id: String,
    pub notification_id: String,
    pub firing_id: Uuid,
    pub kind: &'static str,
    pub channel: &'static str,
    pub recipient: String,
    pub address: Option<String>,
    pub subject: String,
    pub text: String,
    pub html: Option<String>,
    pub status: &'static str,
    pub last_error: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Due {
    pub account_id: String,
    pub notification_id: String,
    pub address: Option<String>,
    pub subject: String,
    pub text: String,
    pub html: Option<String>,
    /// Includes this attempt.
    pub attempts: i32,
    /// Proves that this worker holds the notification.
    pub lease: Uuid,
}

/// Undelivered notifications of one channel.
#[derive(Debug)]
pub(super) struct Backlog {
    pub channel: String,
    pub pending: i64,
    pub parked: i64,
}

/// Adds notifications in the caller's transaction; existing ones stay unchanged.
pub(super) async fn insert(connection: &mut PgConnection, rows: &[Notification]) -> Result<(), sqlx::Error> {
    fn column<'a, T>(rows: &'a [Notification], of: impl Fn(&'a Notification) -> T) -> Vec<T> {
        rows.iter().map(of).collect()
    }
    for rows in rows.chunks(INSERT_MAX) {
        sqlx::query_file!(
            "src/delivery/sql/insert_notifications.sql",
            &column(rows, |row| row.account_id.as_str()) as &[&str],
            &column(rows, |row| row.notification_id.as_str()) as &[&str],
            &column(rows, |row| row.firing_id) as &[Uuid],
            &column(rows, |row| row.kind) as &[&str],
            &column(rows, |row| row.channel) as &[&str],
            &column(rows, |row| row.recipient.as_str()) as &[&str],
            &column(rows, |row| row.address.as_deref()) as &[Option<&str>],
            &column(rows, |row| row.subject.as_str()) as &[&str],
            &column(rows, |row| row.text.as_str()) as &[&str],
            &column(rows, |row| row.html.as_deref()) as &[Option<&str>],
            &column(rows, |row| row.status) as &[&str],
            &column(rows, |row| row.last_error.as_deref()) as &[Option<&str>],
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Parks what waits to be sent in a database from a backup, and marks the firings that wait for their notifications;
/// returns how many notifications.
pub(crate) async fn park_waiting(connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
    sqlx::query!("update delivery.outbox set is_from_before = true where expanded_at is null")
        .execute(&mut *connection)
        .await?;
    let parked = sqlx::query!(
        "update delivery.notification
         set status       = 'parked',
             last_error   = $1,
             leased_until = null
         where status = 'pending'",
        FROM_BEFORE,
    );
    Ok(parked.execute(connection).await?.rows_affected())
}

/// How much of a channel may be leased.
#[derive(Debug, Clone)]
pub(super) struct Room {
    pub rows_max: usize,
    /// Most notifications of one account that are sent at once.
    pub per_account: usize,
    /// How many are being sent, by account.
    pub held: Vec<(Arc<str>, usize)>,
}

/// Leases due notifications of a channel, the longest due first, and of each account no more than its share.
///
/// Looks behind the front of the line only when the share of an account is used up: its other rows may fill the front.
pub(super) async fn lease(pool: &PgPool, channel: Channel, room: &Room) -> Result<Vec<Due>, sqlx::Error> {
    let mut leased = lease_in(pool, channel, room.clone(), Line::Front).await?;
    if leased.len() >= room.rows_max || !has_used_share(room, &leased) {
        return Ok(leased);
    }
    let rest = Room { rows_max: room.rows_max - leased.len(), held: held_with(room, &leased), ..*room };
    leased.extend(lease_in(pool, channel, rest, Line::EachAccount).await?);
    Ok(leased)
}

#[derive(Debug, Clone, Copy)]
enum Line {
    Front,
    EachAccount,
}

/// Returns how many each account has once these are sent too.
fn held_with(room: &Room, leased: &[Due]) -> Vec<(Arc<str>, usize)> {
    let mut held: BTreeMap<Arc<str>, usize> = room.held.iter().cloned().collect();
    for due in leased {
        *held.entry(due.account_id.as_str().into()).or_default() += 1;
    }
    held.into_iter().collect()
}

fn has_used_share(room: &Room, leased: &[Due]) -> bool {
    held_with(room, leased).iter().any(|(_, sends)| *sends >= room.per_account)
}

/// A row that was leased.
struct LeasedRow {
    account_id: String,
    notification_id: String,
    address: Option<String>,
    subject: String,
    text: String,
    html: Option<String>,
    attempts: i32,
}

async fn lease_in(pool: &PgPool, channel: Channel, room: Room, line: Line) -> Result<Vec<Due>, sqlx::Error> {
    let lease = Uuid::new_v4();
    let rows_max = i64::try_from(room.rows_max).unwrap_or(i64::MAX);
    let per_account = i32::try_from(room.per_account).unwrap_or(i32::MAX);
    let (accounts, sends): (Vec<String>, Vec<i32>) = room
        .held
        .iter()
        .map(|(account, sends)| (account.to_string(), i32::try_from(*sends).unwrap_or(i32::MAX)))
        .unzip();
    let rows = pg::write(pool, move |connection| {
        Box::pin(async move {
            match line {
                Line::Front => {
                    sqlx::query_file_as!(
                        LeasedRow,
                        "src/delivery/sql/lease_in_line.sql",
                        channel.as_str(),
                        rows_max,
                        lease,
                        millis(LEASE),
                        &accounts,
                        &sends,
                        per_account,
                        rows_max.saturating_mul(FRONT_FACTOR),
                    )
                    .fetch_all(connection)
                    .await
                }
                Line::EachAccount => {
                    sqlx::query_file_as!(
                        LeasedRow,
                        "src/delivery/sql/lease_by_account.sql",
                        channel.as_str(),
                        rows_max,
                        lease,
                        millis(LEASE),
                        &accounts,
                        &sends,
                        per_account,
                    )
                    .fetch_all(connection)
                    .await
                }
            }
        })
    })
    .await?;
    let due = rows.into_iter().map(|row| Due {
        account_id: row.account_id,
        notification_id: row.notification_id,
        address: row.address,
        subject: row.subject,
        text: row.text,
        html: row.html,
        attempts: row.attempts,
        lease,
    });
    Ok(due.collect())
}

/// Records the delivery, also after the lease has expired, because the message is delivered either way.
pub(super) async fn delivered(pool: &PgPool, due: &Due) -> Result<(), sqlx::Error> {
    let id = due.notification_id.clone();
    pg::write(pool, |connection| {
        Box::pin(async move {
            sqlx::query!(
                "update delivery.notification
                 set status       = 'delivered',
                     sent_at      = clock_timestamp(),
                     last_error   = null,
                     lease        = null,
                     leased_until = null
                 where notification_id = $1 and status <> 'delivered'",
                id,
            )
            .execute(connection)
            .await
            .map(drop)
        })
    })
    .await
}

/// Schedules the next attempt, unless another worker has leased the notification since.
pub(super) async fn retry(
    pool: &PgPool,
    due: &Due,
    pause: Duration,
    reason: &str,
) -> Result<(), sqlx::Error> {
    let (id, lease, reason) = (due.notification_id.clone(), due.lease, short(reason));
    pg::write(pool, move |connection| {
        Box::pin(async move {
            sqlx::query!(
                "update delivery.notification
                 set next_attempt_at = clock_timestamp() + $3::bigint * interval '1 ms',
                     last_error      = $4,
                     lease           = null,
                     leased_until    = null
                 where notification_id = $1 and lease = $2",
                id,
                lease,
                millis(pause),
                reason,
            )
            .execute(connection)
            .await
            .map(drop)
        })
    })
    .await
}

/// Gives the notification back without an attempt, due again after a pause.
pub(super) async fn postpone(pool: &PgPool, due: &Due, pause: Duration) -> Result<(), sqlx::Error> {
    let (id, lease) = (due.notification_id.clone(), due.lease);
    pg::write(pool, move |connection| {
        Box::pin(async move {
            sqlx::query!(
                "update delivery.notification
                 set next_attempt_at = clock_timestamp() + $3::bigint * interval '1 ms',
                     attempts        = attempts - 1,
                     lease           = null,
                     leased_until    = null
                 where notification_id = $1 and lease = $2",
                id,
                lease,
                millis(pause),
            )
            .execute(connection)
            .await
            .map(drop)
        })
    })
    .await
}

/// Parks the notification until it is redelivered, unless another worker has leased it since.
pub(super) async fn park(pool: &PgPool, due: &Due, reason: &str) -> Result<(), sqlx::Error> {
    let (id, lease, reason) = (due.notification_id.clone(), due.lease, short(reason));
    pg::write(pool, move |connection| {
        Box::pin(async move {
            sqlx::query!(
                "update delivery.notification
                 set status       = 'parked',
                     last_error   = $3,
                     lease        = null,
                     leased_until = null
                 where notification_id = $1 and lease = $2",
                id,
                lease,
                reason,
            )
            .execute(connection)
            .await
            .map(drop)
        })
    })
    .await
}

/// Counts waiting and parked notifications per channel; channels without any are missing.
pub(super) async fn backlog(pool: &PgPool) -> Result<Vec<Backlog>, sqlx::Error> {
    sqlx::query_as!(
        Backlog,
        r#"select channel,
                  count(*) filter (where status = 'pending') as "pending!",
                  count(*) filter (where status = 'parked')  as "parked!"
           from delivery.notification
           where status = 'pending' or status = 'parked'
           group by channel"#,
    )
    .fetch_all(pg::bounded(pool))
    .await
}

/// Deletes some delivered or parked notifications past their retention; returns how many.
pub(super) async fn delete_old(
    connection: &mut PgConnection,
    days: i32,
    rows_max: i64,
) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query_file!("src/delivery/sql/delete_notifications.sql", days, rows_max)
        .execute(connection)
        .await?;
    Ok(deleted.rows_affected())
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

    #[test]
    fn a_reason_is_kept_short_and_on_one_line() {
        assert_eq!(short("550 no\r\nsuch user"), "550 no  such user");
        assert_eq!(short(&"x".repeat(10_000)).len(), REASON_CHARS_MAX);
    }
}
