//! Relay: appends what top-ups have put into the outbox, until the journal acknowledges.
//!
//! The write side relays everything in the outbox as well, two seconds later; the same record twice folds once.

use ledger_core::derive::TOP_UPS;
use ledger_core::id::Id;
use runtime::failpoint;
use runtime::kafka::Journal;
use runtime::pg::PgPool;
use tracing::warn;

/// Records of one look.
const RECORDS_MAX: i64 = 500;

// What nobody has taken yet is taken at once: it becomes due two seconds after it was made, for the write side. Due again
// where this process does not come to an end with it.
const TAKE: &str = "
    with taken as (
        update control.outbox
        set due_at = clock_timestamp() + interval '10 seconds'
        where outbox_id = any(array(
            select outbox_id
            from control.outbox
            where source = $2
              and (due_at <= clock_timestamp() or due_at = created_at + interval '2 seconds')
            order by outbox_id
            limit $1
            for update skip locked))
        returning outbox_id, account_id, event
    )
    select *
    from taken
    order by outbox_id";

/// Appends what waits.
pub async fn round(pool: &PgPool, journal: &Journal) -> Result<(), sqlx::Error> {
    let query = sqlx::query_as(TAKE).bind(RECORDS_MAX).bind(TOP_UPS);
    let rows: Vec<(i64, String, Vec<u8>)> = query.fetch_all(pool).await?;
    if rows.is_empty() {
        return Ok(());
    }
    let mut records = Vec::with_capacity(rows.len());
    for (_, account, event) in &rows {
        let account = Id::new(account).map_err(|error| sqlx::Error::Decode(error.into()))?;
        records.push((account, event));
    }
    failpoint::hit("top_up.before_relay");
    let appended = journal.append_all(&records).await;
    failpoint::hit("top_up.after_relay");
    let mut done = Vec::with_capacity(rows.len());
    for ((outbox_id, account, _), outcome) in rows.iter().zip(appended) {
        match outcome {
            Ok(_) => done.push(*outbox_id),
            Err(error) => warn!(%error, account_id = account, "a top-up's record was not acknowledged"),
        }
    }
    sqlx::query("delete from control.outbox where outbox_id = any($1)").bind(done).execute(pool).await?;
    Ok(())
}
