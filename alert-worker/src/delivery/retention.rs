//! Retention of notifications: texts and addresses are deleted in chunks after a set time.
//!
//! A firing deleted from the outbox is unknown there, so a new fold of the journal would send it again: the same
//! transaction moves the offset where notification starts (`told_from`) past it. Retention keeps firings that the live
//! generation does not have, and all firings of a partition with an account that waits for a newer program: its records
//! are folded later, at their existing offsets.

use platform::pg::{self, Model, PgConnection, PgPool, Schema};
use sqlx::AssertSqlSafe;

use super::notification;

const DROPPED_MAX: i64 = 5_000;

/// Deletes some rows past their retention: delivered or parked notifications, and firings that are published and
/// expanded. Returns whether there may be more.
pub async fn drop_old(pool: &PgPool, days: u32) -> Result<bool, sqlx::Error> {
    let days = i32::try_from(days).unwrap_or(i32::MAX);
    let live = pg::live_generation(pool, Model::Alerting).await?;
    pg::write(pool, move |connection| {
        Box::pin(async move {
            // The planner can't know that old rows are few or none: it would scan the whole table for them.
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
