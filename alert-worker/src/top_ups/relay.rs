//! Relay: appends the outbox records of top-ups until the journal has acknowledged them.
//!
//! The write side relays everything in the outbox as well, after the lead of these; the same record twice folds once.

use engine::outbox;
use ledger_core::event::derive::TOP_UPS;
use platform::failpoint;
use platform::kafka::Journal;
use platform::pg::PgPool;

/// Seconds that the write side leaves records of top-ups to this worker.
pub const LEAD_SECONDS: f64 = 2.0;

pub async fn round(pool: &PgPool, journal: &Journal) -> Result<(), sqlx::Error> {
    loop {
        let waiting = outbox::take_own(pool, TOP_UPS).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        failpoint::hit("top_up.before_relay");
        let appended = outbox::append(journal, &waiting).await;
        failpoint::hit("top_up.after_relay");
        outbox::done(pool, appended.iter().map(|(one, _)| one.outbox_id).collect()).await?;
        // The next record of the same account may follow each one.
    }
}
