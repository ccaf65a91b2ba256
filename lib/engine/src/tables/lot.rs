//! Table `lot`: its columns, and lots read from them and written to them.

use ledger_core::account::lot::Lot;
use ledger_core::event::LotSource;
use ledger_core::value::id::{Id, Text};
use platform::pg::columns::{amount, name, optional_name, optional_time, time, variant};
use platform::pg::{Amount, column, timestamp};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

/// Columns of a lot in the order that [`read`] reads them.
macro_rules! columns {
    () => {
        "grant_id, source, amount::text, remaining::text, lapsed::text, refunded::text, priority, effective_at,
         expires_at, granted_at, voided_at, event_id, payment_id, reason, \"offset\", seq"
    };
}
pub(crate) use columns;

/// Reads a lot from a row that has [`columns`], `grant_id` at `first`.
pub(crate) fn read(row: &PgRow, first: usize) -> Result<Lot, sqlx::Error> {
    Ok(Lot {
        grant_id: name(row, first)?,
        source: variant(row, first + 1)?,
        amount: amount(row, first + 2)?,
        remaining: amount(row, first + 3)?,
        lapsed: amount(row, first + 4)?,
        refunded: amount(row, first + 5)?,
        priority: row.try_get(first + 6)?,
        effective_at: time(row, first + 7)?,
        expires_at: optional_time(row, first + 8)?,
        granted_at: time(row, first + 9)?,
        voided_at: optional_time(row, first + 10)?,
        event_id: name(row, first + 11)?,
        payment_id: optional_name(row, first + 12)?,
        reason: optional_name(row, first + 13)?,
        offset: row.try_get(first + 14)?,
        seq: row.try_get(first + 15)?,
    })
}

/// A lot as it is after the batch.
#[derive(Debug)]
pub(crate) struct LotRow<'a> {
    pub account: &'a Id,
    pub lot: &'a Lot,
}

const UPSERT: &str = include_str!("upsert_lots.sql");

/// Writes lots as they are after the batch.
pub(crate) async fn write(tx: &mut PgConnection, rows: &[LotRow<'_>]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(UPSERT)
        .bind(column(rows, |row| row.account.as_str()))
        .bind(column(rows, |row| row.lot.grant_id.as_str()))
        .bind(column(rows, |row| source_name(row.lot.source)))
        .bind(column(rows, |row| Amount(row.lot.amount)))
        .bind(column(rows, |row| Amount(row.lot.remaining)))
        .bind(column(rows, |row| Amount(row.lot.lapsed)))
        .bind(column(rows, |row| Amount(row.lot.refunded)))
        .bind(column(rows, |row| row.lot.priority))
        .bind(column(rows, |row| timestamp(row.lot.effective_at)))
        .bind(column(rows, |row| row.lot.expires_at.map(timestamp)))
        .bind(column(rows, |row| timestamp(row.lot.granted_at)))
        .bind(column(rows, |row| row.lot.voided_at.map(timestamp)))
        .bind(column(rows, |row| row.lot.event_id.as_str()))
        .bind(column(rows, |row| row.lot.payment_id.as_ref().map(Id::as_str)))
        .bind(column(rows, |row| row.lot.reason.as_ref().map(Text::as_str)))
        .bind(column(rows, |row| row.lot.offset))
        .bind(column(rows, |row| row.lot.seq))
        .execute(tx)
        .await
        .map(drop)
}

/// Returns a source's name in the contract.
fn source_name(source: LotSource) -> &'static str {
    match source {
        LotSource::Plan => "plan",
        LotSource::Rollover => "rollover",
        LotSource::Purchase => "purchase",
        LotSource::TopUp => "top_up",
        LotSource::Welcome => "welcome",
        LotSource::Promo => "promo",
        LotSource::Referral => "referral",
        LotSource::Adjustment => "adjustment",
    }
}
