//! Store: what every fold writes alike: lots, repayments, and the records of halted accounts.

use chrono::{DateTime, Utc};
use ledger_core::event::{Data, LotSource};
use ledger_core::fold::{Applied, Fact, LotChange};
use ledger_core::value::id::{EventId, Id, Source};
use ledger_core::account::lot::{Draw, Draws, Lot};
use ledger_core::account::withdrawal::Repayment;
use ledger_core::fold::pages::opening_of;
use ledger_core::value::time::Time;
use smallvec::SmallVec;
use sqlx::PgConnection;

use super::rows::{Amount, Rows};
use crate::consume::WorkerError;
use crate::kafka::Record;
use crate::pg::timestamp;

/// A lot as it stands after the batch.
#[derive(Debug)]
pub(super) struct LotRow<'a> {
    /// Its account.
    pub account: &'a Id,
    /// The lot.
    pub lot: &'a Lot,
}

/// Rows that every fold collects alike.
#[derive(Debug, Default)]
pub(super) struct Shared {
    repayments: Rows,
    parked: Rows,
}

impl Shared {
    /// Collects a record of a halted account.
    pub fn park(&mut self, account: &Id, record: &Record, reason: &str) {
        self.parked
            .row()
            .text(account.as_str())
            .int(record.position.partition)
            .bigint(record.position.offset)
            .time(record.appended_at)
            .text(reason)
            .bytes(record.key.as_deref().unwrap_or_default())
            .bytes(&record.value);
    }

    /// Collects which lot repaid which stretch.
    pub fn repayment(&mut self, account: &Id, repayment: &Repayment) {
        self.repayments
            .row()
            .text(account.as_str())
            .amount(repayment.stretch.start)
            .amount(repayment.stretch.end)
            .text(repayment.grant_id.as_str());
    }
}

const INSERT_REPAYMENTS: &str = "
    insert into repayment (account_id, line_start, line_end, grant_id)
    select *
    from unnest($1::text[], $2::numeric[], $3::numeric[], $4::text[])";

const INSERT_PARKED: &str = r#"
    insert into parked (account_id, partition, "offset", appended_at, reason, key, value)
    select *
    from unnest($1::text[], $2::int[], $3::bigint[], $4::timestamptz[], $5::text[], $6::bytea[], $7::bytea[])"#;

/// Writes the lots as they stand after the batch, and the rows collected.
pub(super) async fn write(
    tx: &mut PgConnection,
    shared: &Shared,
    lots: &[LotRow<'_>],
) -> Result<(), WorkerError> {
    shared.repayments.send(&mut *tx, INSERT_REPAYMENTS).await?;
    shared.parked.send(&mut *tx, INSERT_PARKED).await?;
    write_lots(tx, lots).await
}

async fn write_lots(tx: &mut PgConnection, rows: &[LotRow<'_>]) -> Result<(), WorkerError> {
    if rows.is_empty() {
        return Ok(());
    }
    let expires: Vec<Option<DateTime<Utc>>> =
        rows.iter().map(|row| row.lot.expires_at.map(timestamp)).collect();
    let voided: Vec<Option<DateTime<Utc>>> =
        rows.iter().map(|row| row.lot.voided_at.map(timestamp)).collect();
    let payments: Vec<Option<&str>> =
        rows.iter().map(|row| row.lot.payment_id.as_ref().map(Id::as_str)).collect();
    let reasons: Vec<Option<&str>> =
        rows.iter().map(|row| row.lot.reason.as_ref().map(|reason| reason.as_str())).collect();
    sqlx::query(
        r#"insert into lot (account_id, grant_id, source, amount, remaining, lapsed, refunded, priority, effective_at,
                            expires_at, granted_at, voided_at, event_id, payment_id, reason, "offset", seq, open)
           select new.*, remaining > 0
           from unnest($1::text[], $2::text[], $3::text[], $4::numeric[], $5::numeric[], $6::numeric[],
                       $7::numeric[], $8::int[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[],
                       $12::timestamptz[], $13::text[], $14::text[], $15::text[], $16::bigint[], $17::int[])
                as new (account_id, grant_id, source, amount, remaining, lapsed, refunded, priority, effective_at,
                        expires_at, granted_at, voided_at, event_id, payment_id, reason, "offset", seq)
           on conflict (account_id, grant_id) do update
           set amount    = excluded.amount,
               remaining = excluded.remaining,
               lapsed    = excluded.lapsed,
               refunded  = excluded.refunded,
               voided_at = excluded.voided_at,
               open      = excluded.open"#,
    )
    .bind(column(rows, |row| row.account.as_str()))
    .bind(column(rows, |row| row.lot.grant_id.as_str()))
    .bind(column(rows, |row| source_name(row.lot.source)))
    .bind(column(rows, |row| Amount(row.lot.amount)))
    .bind(column(rows, |row| Amount(row.lot.remaining)))
    .bind(column(rows, |row| Amount(row.lot.lapsed)))
    .bind(column(rows, |row| Amount(row.lot.refunded)))
    .bind(column(rows, |row| row.lot.priority))
    .bind(column(rows, |row| timestamp(row.lot.effective_at)))
    .bind(expires)
    .bind(column(rows, |row| timestamp(row.lot.granted_at)))
    .bind(voided)
    .bind(column(rows, |row| row.lot.event_id.as_str()))
    .bind(payments)
    .bind(reasons)
    .bind(column(rows, |row| row.lot.offset))
    .bind(column(rows, |row| row.lot.seq))
    .execute(tx)
    .await?;
    Ok(())
}

/// A usage event that was reversed, or a dispute that was won.
#[derive(Debug)]
pub struct Reversed {
    account: Id,
    source: Source,
    event_id: EventId,
    /// Ledger time of the reversal.
    at: Time,
}

impl Reversed {
    /// Returns what an event reversed, if it reversed something.
    pub fn of(fact: &Fact, applied: &Applied) -> Option<Reversed> {
        let account = fact.event.account.clone();
        let (source, event_id) = match (&fact.event.data, &applied.reversed) {
            (Data::UsageReversed(reversal), Some(_)) => (reversal.source.clone(), reversal.event_id.clone()),
            (Data::DisputeWon(dispute), Some(_)) => opening_of(&account, dispute),
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

/// Notes in their own rows which usage events were reversed; comes after those of the batch itself.
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

/// Returns what a taking's draws did to lots, as entries and events show it: negative.
pub fn lot_changes(draws: &Draws) -> SmallVec<[LotChange; 2]> {
    let change = |draw: &Draw| LotChange {
        grant_id: draw.grant_id.clone(),
        source: draw.source,
        amount: draw.amount.negated(),
    };
    draws.iter().map(change).collect()
}

/// One column of rows, to be bound as an array.
pub fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
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
