//! Reversals: marks reversed usage, won disputes and failed refunds in table `event`.

use ledger_core::event::Data;
use ledger_core::fold::pages::{opening_of, refunding_of};
use ledger_core::fold::{Applied, Fact};
use ledger_core::value::id::{AccountId, EventId, Source};
use ledger_core::value::time::Time;
use platform::pg::{column, timestamp};
use sqlx::PgConnection;

use crate::consume::WorkerError;

/// A usage event that was reversed, a dispute that was won, or a refund that failed.
#[derive(Debug)]
pub struct Reversed {
    account: AccountId,
    source: Source,
    event_id: EventId,
    /// Ledger time of the reversal.
    at: Time,
}

impl Reversed {
    /// Returns the event that this one reversed, if any.
    pub fn of(fact: &Fact, applied: &Applied) -> Option<Reversed> {
        let account = fact.event.account.clone();
        let (source, event_id) = match (&fact.event.data, &applied.reversed) {
            (Data::UsageReversed(reversal), Some(_)) => (reversal.source.clone(), reversal.event_id.clone()),
            (Data::DisputeWon(dispute), Some(_)) => opening_of(&account, dispute),
            (Data::RefundFailed(failure), Some(_)) => refunding_of(&account, failure),
            _ => return None,
        };
        Some(Reversed {
            account,
            source,
            event_id,
            at: applied.ledger_time.unwrap_or(fact.event.recorded_at),
        })
    }
}

/// Marks the reversed events in their rows; must follow the insert of the batch's own rows.
pub async fn write_reversals(tx: &mut PgConnection, rows: &[Reversed]) -> Result<(), WorkerError> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update event
         set reversed_at = reversal.reversed_at
         from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
              as reversal (account_id, event_id, source, reversed_at)
         where event.account_id = reversal.account_id
           and event.event_id   = reversal.event_id
           and event.source     = reversal.source",
    )
    .bind(column(rows, |row| row.account.as_str()))
    .bind(column(rows, |row| row.event_id.as_str()))
    .bind(column(rows, |row| row.source.as_str()))
    .bind(column(rows, |row| timestamp(row.at)))
    .execute(tx)
    .await?;
    Ok(())
}
