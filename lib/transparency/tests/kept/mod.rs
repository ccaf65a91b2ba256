//! A log whose tiles and bundles are kept in memory, as a ledger keeps them in tables.

use std::collections::BTreeMap;

use transparency_log::appender::Appender;
use transparency_log::entry::{Content, Entry};
use transparency_log::hash::Hash;
use transparency_log::tile::{Kind, TileData};
use transparency_log::tree::{Head, Tiles, Tree};

/// Of each tile and bundle the widest that there was.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    pub hashes: BTreeMap<(u8, u64), Vec<u8>>,
    pub bundles: BTreeMap<u64, Vec<u8>>,
    pub size: u64,
}

impl Tiles for Kept {
    fn hashes(&self, level: u8, index: u64) -> Option<&[u8]> {
        self.hashes.hashes(level, index)
    }
}

/// Returns an entry that is another one for each offset, of each kind in turn.
pub fn entry(offset: u64) -> Entry {
    let (key, value) = (Some(Hash::of(b"key")), Some(Hash::of(&offset.to_be_bytes())));
    let content = match offset % 16 {
        3 => Content::Readable { key: None, value },
        7 => Content::Readable { key, value: None },
        11 => Content::Unreadable,
        _ => Content::Readable { key, value },
    };
    Entry { offset, timestamp_ms: 1_700_000_000_000 + offset, content }
}

impl Kept {
    /// Returns a log of so many entries.
    pub fn of(size: u64) -> Kept {
        let mut kept = Kept::default();
        kept.append_to(&mut Appender::new(), size);
        kept
    }

    /// Appends entries up to a size, in one batch.
    pub fn append_to(&mut self, appender: &mut Appender, size: u64) {
        let mut filled = Vec::new();
        for offset in appender.size()..size {
            appender.append(&entry(offset), &mut filled);
        }
        filled.extend(appender.unfinished());
        self.size = size;
        self.keep(filled);
    }

    fn keep(&mut self, tiles: Vec<TileData>) {
        for TileData { tile, bytes } in tiles {
            match tile.kind {
                Kind::Hashes { level } => self.hashes.insert((level, tile.index), bytes),
                Kind::Entries => self.bundles.insert(tile.index, bytes),
            };
        }
    }

    /// Returns the head of a size that the log had.
    pub fn head(&self, size: u64) -> Head {
        Tree::resume(size, self).expect("every tile is kept").head()
    }
}
