//! Retention of notifications: texts and addresses are deleted in chunks after a set time.
//!
//! A firing that has left the outbox is not known there any more, so a new fold of the journal would send it again: the
//! offset from which people are notified (`told_from`) moves past it in the same transaction. Firings that the live generation does not have stay, and so do all of
//! a partition with an account that waits for a newer program: its records are folded later, at the offsets that they have.

use platform::pg::{self, Model, PgConnection, PgPool, Schema};
use sqlx::AssertSqlSafe;

use super::notification;

/// Rows dropped by one statement.
const DROPPED_MAX: i64 = 5_000;

/// Drops some of what is older than it is kept: notifications that are delivered or parked, and firings that are
/// published and expanded. Tells whether there may be more.
pub async fn drop_old(pool: &PgPool, days: u32) -> Result<bool, sqlx::Error> {
    let days = i32::try_from(days).unwrap_or(i32::MAX);
    let live = pg::live_generation(pool, Model::Alerting).await?;
    pg::write(pool, move |connection| {
        Box::pin(async move {
            // Old rows are few or none, which the planner can't know: it would read a table to its end for them.
            sqlx::raw_sql("set local enable_seqscan = off").execute(&mut *connection).await?;
            let mut dropped = notification::delete_old(connection, days, DROPPED_MAX).await?;
            if let Some(live) = live {
                dropped = dropped.max(delete_old_firings(connection, live, days).await?);
            }
            Ok(i64::try_from(dropped) == Ok(DROPPED_MAX))
        })
    })
    .await
}

/// Deletes old firings that are published and expanded, and moves `told_from` past them; returns how many.
async fn delete_old_firings(
    connection: &mut PgConnection,
    live: Schema,
    days: i32,
) -> Result<u64, sqlx::Error> {
    let statement = format!(
        r#"with dropped as (
           delete from delivery.outbox
           where ctid = any(array(
               select outbox.ctid
               from delivery.outbox
               join {live}.firing using (firing_id)
               join {live}.account on account.account_id = firing.account_id
               where not exists (select from {live}.parked where parked.partition = account.partition)
                 and outbox.published_at is not null
                 and outbox.expanded_at is not null
                 and outbox.created_at < (select clock_timestamp()) - make_interval(days => $1)
               limit $2
               for update of outbox skip locked))
           returning firing_id
           ),
           passed as (
           select account.partition, max(firing."offset") + 1 as next_offset
           from dropped
           join {live}.firing using (firing_id)
           join {live}.account on account.account_id = firing.account_id
           group by account.partition
           ),
           raised as (
           update delivery.told_from
           set next_offset = greatest(told_from.next_offset, passed.next_offset)
           from passed
           where told_from.partition = passed.partition
           )
           select count(*) as deleted from dropped"#
    );
    let deleted: i64 = sqlx::query_scalar(AssertSqlSafe(statement))
        .bind(days)
        .bind(DROPPED_MAX)
        .fetch_one(connection)
        .await?;
    Ok(u64::try_from(deleted).unwrap_or_default())
}
