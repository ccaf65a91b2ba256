//! Table `lot`: its columns, and lots read from them and written to them.

use ledger_core::account::lot::Lot;
use ledger_core::event::{LotSource, Price};
use ledger_core::value::id::{AccountId, PaymentId, Text};
use platform::pg::columns::{amount, name, optional_name, optional_time, time, undecodable, variant};
use platform::pg::{Amount, column, timestamp};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

/// Columns that [`read`] reads.
macro_rules! columns {
    () => {
        "grant_id, source, amount::text, remaining::text, lapsed::text, refunded::text, priority, effective_at,
         expires_at, granted_at, voided_at, event_id, payment_id, reason, \"offset\", seq, price::text"
    };
}
pub(crate) use columns;

/// Columns that [`read`] reads.
pub const COLUMNS: &str = columns!();

/// Reads a lot from a row that has [`COLUMNS`].
pub fn read(row: &PgRow) -> Result<Lot, sqlx::Error> {
    Ok(Lot {
        grant_id: name(row, "grant_id")?,
        source: variant(row, "source")?,
        amount: amount(row, "amount")?,
        remaining: amount(row, "remaining")?,
        lapsed: amount(row, "lapsed")?,
        refunded: amount(row, "refunded")?,
        priority: row.try_get("priority")?,
        effective_at: time(row, "effective_at")?,
        expires_at: optional_time(row, "expires_at")?,
        granted_at: time(row, "granted_at")?,
        voided_at: optional_time(row, "voided_at")?,
        event_id: name(row, "event_id")?,
        payment_id: optional_name(row, "payment_id")?,
        price: price(row)?,
        reason: optional_name(row, "reason")?,
        offset: row.try_get("offset")?,
        seq: row.try_get("seq")?,
    })
}

fn price(row: &PgRow) -> Result<Option<Price>, sqlx::Error> {
    let price: Option<&str> = row.try_get("price")?;
    price.map(serde_json::from_str).transpose().map_err(undecodable)
}

// OFFSET 0 keeps the planner from joining: index look-ups are faster for any number of accounts.
const OPEN: &str = concat!(
    "
    select found.*
    from unnest($1::text[]) as wanted(account_id)
    cross join lateral (
        select account_id, ",
    columns!(),
    "
        from lot
        where lot.account_id = wanted.account_id
          and lot.open
        offset 0
    ) as found"
);

/// Reads the lots with credits left, each with its account.
pub(crate) async fn open(
    tx: &mut PgConnection,
    accounts: &[&str],
) -> Result<Vec<(AccountId, Lot)>, sqlx::Error> {
    let rows = sqlx::query(OPEN).bind(accounts).fetch_all(tx).await?;
    rows.iter().map(|row| Ok((name(row, "account_id")?, read(row)?))).collect()
}

#[derive(Debug)]
pub(crate) struct LotRow<'a> {
    pub account: &'a AccountId,
    pub lot: &'a Lot,
}

const UPSERT: &str = include_str!("upsert_lots.sql");

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
        .bind(column(rows, |row| row.lot.payment_id.as_ref().map(PaymentId::as_str)))
        .bind(column(rows, |row| row.lot.reason.as_ref().map(Text::as_str)))
        .bind(column(rows, |row| row.lot.offset))
        .bind(column(rows, |row| row.lot.seq))
        .bind(column(rows, |row| row.lot.price.as_ref().map(price_json)))
        .execute(tx)
        .await
        .map(drop)
}

fn price_json(price: &Price) -> String {
    serde_json::to_string(price).expect("a price is plain JSON with string keys")
}

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
