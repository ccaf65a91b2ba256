//! Retention of notifications: texts and addresses are deleted in chunks after a set time.
//!
//! A firing that has left the outbox is not known there any more, so a new fold of the journal would send it again: the
//! offset from which people are notified (`told_from`) moves past it in the same transaction. Firings that the live generation does not have stay, and so do all of
//! a partition with an account that waits for a newer program: its records are folded later, at the places that they have.

use platform::pg::{self, Model, PgConnection, PgPool, Schema};
use sqlx::AssertSqlSafe;

/// Rows dropped by one statement.
const DROPPED_MAX: i64 = 5_000;

// What is being sent this moment is pending. The clock is read once, and so the index is used.
const DROP_NOTIFICATIONS: &str = "
    with dropped as (
        delete from delivery.notification
        where ctid = any(array(
            select ctid
            from delivery.notification
            where status in ('delivered', 'parked')
              and created_at < (select clock_timestamp()) - make_interval(days => $1)
            limit $2
            for update skip locked))
        returning 1
    )
    select count(*) from dropped";

fn drop_firings(live: Schema) -> String {
    format!(
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
           select count(*) from dropped"#
    )
}

/// Drops some of what is older than it is kept: notifications that are delivered or parked, and firings that everybody has
/// heard of. Says whether there may be more.
pub async fn drop_old(pool: &PgPool, days: u32) -> Result<bool, sqlx::Error> {
    let days = i32::try_from(days).unwrap_or(i32::MAX);
    let live = pg::live_generation(pool, Model::Alerting).await?;
    pg::write(pool, move |connection| {
        Box::pin(async move {
            // Old rows are few or none, which the planner can't know: it would read a table to its end for them.
            sqlx::raw_sql("set local enable_seqscan = off").execute(&mut *connection).await?;
            let mut dropped = drop_by(connection, DROP_NOTIFICATIONS.to_owned(), days).await?;
            if let Some(live) = live {
                dropped = dropped.max(drop_by(connection, drop_firings(live), days).await?);
            }
            Ok(dropped == DROPPED_MAX)
        })
    })
    .await
}

async fn drop_by(connection: &mut PgConnection, statement: String, days: i32) -> Result<i64, sqlx::Error> {
    let drop = sqlx::query_scalar(AssertSqlSafe(statement));
    drop.bind(days).bind(DROPPED_MAX).fetch_one(connection).await
}
