//! Restored: notices that this database is from a backup, so that nothing is sent or charged a second time.
//!
//! The group is shown an offset once the database has it. So the group is ahead only of a database that has lost what it had.

use std::collections::BTreeMap;

use engine::consume::Source;
use platform::kafka;
use platform::pg::{self, PgPool, Schema};
use platform::position::Position;
use platform::telemetry;
use sqlx::AssertSqlSafe;
use tracing::{error, info, warn};

use super::notify_from;
use crate::{delivery, top_ups};

/// Compares this database with what the group was shown. Where it is older, notes up to where alerts had been folded,
/// parks what waits to be sent, and forgets what was to be charged: the journal says which attempts are open.
pub async fn look(source: &Source, group: &str, live: Schema) -> anyhow::Result<()> {
    // In this order: what was shown before is in the database after.
    let shown = kafka::shown_by(&source.kafka, group, source.identity).await?;
    let folded = folded(&source.pool, live).await?;
    let is_lost = |at: &Position| folded.get(&at.partition).is_none_or(|next| *next < at.offset);
    let lost: Vec<Position> = shown.into_iter().filter(is_lost).collect();
    // The recorder may not be there yet, this early.
    if let Err(error) = telemetry::metrics() {
        warn!(%error, "no metrics");
    }
    metrics::gauge!("ledger_database_restored_partitions").set(lost.len() as f64);
    if lost.is_empty() {
        return Ok(());
    }
    let up_to = lost.clone();
    let parked = pg::write(&source.pool, move |connection| {
        Box::pin(async move {
            // Another process was first: what waits now is new.
            if !notify_from::note_restored(connection, &up_to).await? {
                return Ok::<_, sqlx::Error>(0);
            }
            top_ups::forget_open(connection).await?;
            delivery::park_waiting(connection).await
        })
    })
    .await?;
    let records: i64 =
        lost.iter().map(|at| at.offset - folded.get(&at.partition).copied().unwrap_or_default()).sum();
    error!(
        records,
        "this database is older than the journal, as one restored from a backup: balances follow from the journal; \
         API keys, contacts, rate cards, promo codes and holds made since the backup are gone, and keys revoked since are \
         valid again"
    );
    info!(parked, "notifications that may have been sent before are parked");
    Ok(())
}

async fn folded(pool: &PgPool, live: Schema) -> Result<BTreeMap<i32, i64>, sqlx::Error> {
    let read = format!("select partition, next_offset from {live}.checkpoint");
    let rows: Vec<(i32, i64)> = sqlx::query_as(AssertSqlSafe(read)).fetch_all(pool).await?;
    Ok(rows.into_iter().collect())
}
