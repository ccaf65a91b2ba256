//! Table `event`: the columns that both models share, and the fold's reads of them.

use std::sync::Arc;

use ledger_core::account::lot::{Draw, Draws};
use ledger_core::account::overdraft::Stretch;
use ledger_core::account::withdrawal::{Seen, Withdrawal};
use ledger_core::event::key::ContentHash;
use ledger_core::event::{Data, Event, wire};
use ledger_core::fold::LotChange;
use ledger_core::value::id::AccountId;
use platform::pg::columns::{amount, json_of, name, optional_amount, time, undecodable};
use smallvec::SmallVec;
use sqlx::Row;
use sqlx::postgres::PgRow;

/// Event types whose withdrawal another event may undo.
pub const UNDOABLE_TYPES: [&str; 3] =
    ["ledger.usage.recorded.v1", "ledger.dispute.opened.v1", "ledger.credits.refunded.v1"];

/// Columns that [`read_event`] and [`read_content`] read.
macro_rules! event_columns {
    () => {
        "event_id, source, type, content, occurred_at, recordedat, actor, data::text, outcome"
    };
}
pub(crate) use event_columns;

/// Columns that [`read_event`], [`read_content`] and [`is_applied`] read.
pub const COLUMNS: &str = event_columns!();

/// Columns that [`read_seen`] reads.
macro_rules! seen_columns {
    () => {
        concat!(
            $crate::tables::event::event_columns!(),
            ", period_index, credits::text, coalesce(lots, '[]')::text as lots, line_start::text, line_end::text,
               reversed_at is not null as is_reversed"
        )
    };
}
pub(crate) use seen_columns;

/// Reads an event from a row that has [`COLUMNS`].
pub fn read_event(row: &PgRow, account: &AccountId) -> Result<Event, sqlx::Error> {
    let (event_type, data): (&str, &str) = (row.try_get("type")?, row.try_get("data")?);
    let data = wire::data(event_type, data)
        .ok_or_else(|| undecodable(format!("type {event_type} is unknown")))?
        .map_err(undecodable)?;
    Ok(Event {
        id: name(row, "event_id")?,
        source: name(row, "source")?,
        account: account.clone(),
        occurred_at: time(row, "occurred_at")?,
        recorded_at: time(row, "recordedat")?,
        actor: name(row, "actor")?,
        data,
    })
}

/// Reads the hash that distinguishes a duplicate from a conflict.
pub fn read_content(row: &PgRow) -> Result<ContentHash, sqlx::Error> {
    let bytes: &[u8] = row.try_get("content")?;
    bytes.try_into().map(ContentHash).map_err(|_| undecodable("a content hash has 32 bytes"))
}

/// Returns whether the event had an effect on the balance or the settings.
pub fn is_applied(row: &PgRow) -> Result<bool, sqlx::Error> {
    Ok(row.try_get::<&str, _>("outcome")? == "applied")
}

/// Reads the fold's view of a former event; decodes its data only if another event may undo it.
pub(crate) fn read_seen(row: &PgRow, account: &AccountId) -> Result<Seen, sqlx::Error> {
    let is_undoable = is_applied(row)? && UNDOABLE_TYPES.contains(&row.try_get::<&str, _>("type")?);
    let withdrawal = if is_undoable { Some(Arc::new(read_withdrawal(row, account)?)) } else { None };
    Ok(Seen { content: read_content(row)?, withdrawal, reversed: row.try_get("is_reversed")? })
}

fn read_withdrawal(row: &PgRow, account: &AccountId) -> Result<Withdrawal, sqlx::Error> {
    let event = read_event(row, account)?;
    let (start, end) = (optional_amount(row, "line_start")?, optional_amount(row, "line_end")?);
    let credits = if let Data::DisputeOpened(dispute) = &event.data {
        dispute.amount
    } else if let Data::CreditsRefunded(refund) = &event.data {
        refund.amount
    } else {
        amount(row, "credits")?
    };
    Ok(Withdrawal {
        event: Arc::new(event),
        period_index: row.try_get("period_index")?,
        credits,
        draws: read_draws(row)?,
        line: start.zip(end).map(|(start, end)| Stretch { start, end }),
    })
}

/// Reads draws, which are stored as changes of lots: negative.
fn read_draws(row: &PgRow) -> Result<Draws, sqlx::Error> {
    let changes: SmallVec<[LotChange; 2]> = json_of(row, "lots")?;
    let draw = |LotChange { grant_id, source, amount }| Draw { grant_id, source, amount: amount.negated() };
    Ok(changes.into_iter().map(draw).collect())
}
