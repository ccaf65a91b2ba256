//! What a transaction adds to a log, and how it is written.

use platform::kafka::Record;
use sqlx::PgConnection;
use transparency_log::entry::Entry;
use transparency_log::tile::{Kind, TileData, WIDTH};

use super::state::{Error, Log};
use crate::tables::log_size::{self, LogStep};
use crate::tables::log_tail::{self, NewEntries};
use crate::tables::log_tile::{self, NewTile};

/// A log with the entries of a transaction.
#[derive(Debug)]
pub(super) struct Growth {
    partition: i32,
    log: Log,
    old_size: u64,
    old_offset: i64,
    /// The tiles and bundles that were filled.
    filled: Vec<TileData>,
    /// The new entries behind the last of these.
    tail: Vec<u8>,
}

impl Growth {
    pub fn new(partition: i32, log: Log) -> Growth {
        let (old_size, old_offset) = (log.appender.size(), log.next_offset);
        Growth { partition, log, old_size, old_offset, filled: Vec::new(), tail: Vec::new() }
    }

    pub fn append_record(&mut self, record: &Record) {
        let entry = self.log.hasher.entry(record);
        self.append(&entry);
    }

    pub fn append(&mut self, entry: &Entry) {
        let filled = self.filled.len();
        self.log.appender.append(entry, &mut self.filled);
        if self.filled.len() > filled {
            self.tail.clear();
        } else {
            self.tail.extend_from_slice(&entry.encode());
        }
    }

    pub fn reach(&mut self, offset: i64) {
        self.log.next_offset = offset;
    }

    pub fn into_log(self) -> (i32, Log) {
        (self.partition, self.log)
    }

    fn step(&self) -> LogStep {
        LogStep {
            partition: self.partition,
            old_size: self.old_size.cast_signed(),
            new_size: self.log.appender.size().cast_signed(),
            old_offset: self.old_offset,
            new_offset: self.log.next_offset,
        }
    }

    /// Returns the tiles to write: those filled, and above level 0 the unfinished ones, if anything below them was filled.
    fn tiles(&self) -> Vec<TileData> {
        let is_stored = |data: &TileData| matches!(data.tile.kind, Kind::Hashes { level: 1.. });
        let mut tiles = self.filled.clone();
        if !tiles.is_empty() {
            tiles.extend(self.log.appender.unfinished().filter(is_stored));
        }
        tiles
    }

    fn new_entries(&self) -> Option<NewEntries<'_>> {
        let size = self.log.appender.size();
        let first = if self.filled.is_empty() { self.old_size } else { size - size % u64::from(WIDTH) };
        let entries =
            NewEntries { partition: self.partition, leaf: first.cast_signed(), entries: &self.tail };
        (!self.tail.is_empty()).then_some(entries)
    }
}

/// Writes all that a transaction adds.
pub(super) async fn write(tx: &mut PgConnection, growths: &[Growth]) -> Result<(), Error> {
    let steps: Vec<LogStep> = growths.iter().map(Growth::step).collect();
    let moved = log_size::advance(&mut *tx, &steps).await?;
    if let Some(step) = steps.iter().find(|step| !moved.contains(&step.partition)) {
        return Err(Error::OutOfStep(step.partition));
    }
    let filled: Vec<i32> =
        growths.iter().filter(|growth| !growth.filled.is_empty()).map(|growth| growth.partition).collect();
    if !filled.is_empty() {
        let tiles: Vec<(i32, TileData)> = growths
            .iter()
            .flat_map(|growth| growth.tiles().into_iter().map(|data| (growth.partition, data)))
            .collect();
        let tiles: Vec<NewTile<'_>> =
            tiles.iter().map(|(partition, data)| NewTile { partition: *partition, data }).collect();
        log_tile::upsert(&mut *tx, &tiles).await?;
        log_tail::clear(&mut *tx, &filled).await?;
    }
    let entries: Vec<NewEntries<'_>> = growths.iter().filter_map(Growth::new_entries).collect();
    if !entries.is_empty() {
        log_tail::insert(tx, &entries).await?;
    }
    Ok(())
}
