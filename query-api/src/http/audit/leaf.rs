//! Leaf: finds a record of the journal in its partition's transparency log, by its offset.

use engine::tables::{log_size, log_tile};
use platform::pg;
use platform::pg::columns::undecodable;
use sqlx::PgConnection;
use transparency_log::bundle;
use transparency_log::entry::Entry;
use transparency_log::tile::{Kind, Tile, WIDTH};
use web::http::Problem;

use crate::app::App;

/// Where to begin to read a partition, so that counting gives each record its leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub offset: i64,
    pub leaf: u64,
}

/// Returns where to begin for the records from an offset on: there, or where the log ends if that is before.
pub(super) async fn start(app: &App, partition: i32, offset: i64) -> Result<Start, Problem> {
    let first = u64::try_from(offset).unwrap_or_default();
    pg::read(&app.pool, app.waiter.schema(), move |connection| {
        Box::pin(async move {
            let log = log_size::read(connection, &[partition]).await?.into_iter().next();
            let (size, end) = log.map_or((0, 0), |log| (log.size, log.next_offset));
            let size = u64::try_from(size).map_err(Problem::internal)?;
            if offset >= end {
                return Ok(Start { offset: end, leaf: size });
            }
            Ok(Start { offset, leaf: first_at_or_after(connection, partition, size, first).await? })
        })
    })
    .await
}

/// Returns the leaf of the record with an offset, in a log of this size.
pub(super) async fn of_offset(
    connection: &mut PgConnection,
    partition: i32,
    size: u64,
    offset: u64,
) -> Result<Option<u64>, sqlx::Error> {
    let leaf = first_at_or_after(connection, partition, size, offset).await?;
    if leaf >= size {
        return Ok(None);
    }
    let entries = entries(connection, partition, size, leaf / u64::from(WIDTH)).await?;
    let entry = entries.get(usize::try_from(leaf % u64::from(WIDTH)).map_err(undecodable)?);
    Ok(entry.filter(|entry| entry.offset == offset).map(|_| leaf))
}

/// Returns the first leaf whose record has this offset or a greater one; the log's size if there is none.
///
/// Offsets may have holes and leaves have none, so a leaf is at most its offset.
async fn first_at_or_after(
    connection: &mut PgConnection,
    partition: i32,
    size: u64,
    offset: u64,
) -> Result<u64, sqlx::Error> {
    let width = u64::from(WIDTH);
    let Some(last) = size.checked_sub(1) else { return Ok(0) };
    // The bundle that has it, or begins behind it, is searched for among these.
    let (mut low, mut high) = (0, (last.min(offset) / width) + 1);
    while high - low > 1 {
        let middle = low.midpoint(high);
        let begins_before = match log_tile::first_offset(connection, partition, middle).await? {
            Some(first) => first <= offset,
            None => entries(connection, partition, size, middle)
                .await?
                .first()
                .is_some_and(|e| e.offset <= offset),
        };
        if begins_before {
            low = middle;
        } else {
            high = middle;
        }
    }
    let entries = entries(connection, partition, size, low).await?;
    let before = entries.partition_point(|entry| entry.offset < offset);
    Ok(low * width + u64::try_from(before).map_err(undecodable)?)
}

/// Reads the entries of one bundle, as many as a log of this size has.
async fn entries(
    connection: &mut PgConnection,
    partition: i32,
    size: u64,
    index: u64,
) -> Result<Vec<Entry>, sqlx::Error> {
    let tile = Tile::at(Kind::Entries, index, size).ok_or(sqlx::Error::RowNotFound)?;
    let bytes = log_tile::read(connection, partition, tile).await?.ok_or(sqlx::Error::RowNotFound)?;
    let entries = bundle::entries(&bytes).map_err(undecodable)?;
    entries.into_iter().map(|entry| Entry::decode(entry).map_err(undecodable)).collect()
}
