//! Tile: 256 hashes of one level, or 256 entries, under one path; the last of each level may be partial.

use std::fmt;
use std::str::FromStr;

use crate::bundle;
use crate::decimal;
use crate::hash::Hash;

/// A tile spans this many levels of the tree.
pub const HEIGHT: u32 = 8;

/// How many hashes or entries a full tile has.
pub const WIDTH: u16 = 1 << HEIGHT;

/// The highest level that a path may name.
const LEVEL_MAX: u8 = 63;

/// Above this level no tree of 64-bit size has a hash.
pub const LEVELS: u8 = 8;

/// The longest path, with an index of 19 digits: what is longer is no tile.
const PATH_BYTES_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Hashes of a level: at 0 those of leaves, above it those of full tiles of the level below.
    Hashes { level: u8 },
    /// The entries whose hashes a tile of level 0 has.
    Entries,
}

impl Kind {
    fn level(self) -> u32 {
        match self {
            Kind::Hashes { level } => u32::from(level),
            Kind::Entries => 0,
        }
    }

    /// Returns how many hashes or entries of the kind a tree of a size has.
    fn count(self, size: u64) -> u64 {
        size.checked_shr(HEIGHT * self.level()).unwrap_or(0)
    }
}

/// What one tile path names. Displayed as the path below a log's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    pub kind: Kind,
    pub index: u64,
    /// 1 to 256; 256 is a full tile.
    pub width: u16,
}

impl Tile {
    pub fn is_full(self) -> bool {
        self.width == WIDTH
    }

    /// Returns the tile as wide as a tree of a size has it; `None` where such a tree doesn't have it at all.
    pub fn at(kind: Kind, index: u64, size: u64) -> Option<Tile> {
        let behind = kind.count(size).checked_sub(index.checked_mul(u64::from(WIDTH))?)?;
        let width = u16::try_from(behind).unwrap_or(WIDTH).min(WIDTH);
        (width > 0).then_some(Tile { kind, index, width })
    }

    /// Whether a tree of a size has at least all of this tile.
    pub fn is_within(self, size: u64) -> bool {
        Tile::at(self.kind, self.index, size).is_some_and(|there| there.width >= self.width)
    }

    /// Returns the partial tiles of a tree, from level 0 up, without the entries.
    pub fn edge(size: u64) -> impl Iterator<Item = Tile> {
        let partial = move |level| {
            let kind = Kind::Hashes { level };
            let tile = Tile::at(kind, kind.count(size) / u64::from(WIDTH), size);
            tile.filter(|tile| !tile.is_full())
        };
        (0..LEVELS).filter_map(partial)
    }

    /// Cuts the tile's bytes from those of the same tile when it was at least as wide.
    pub fn cut(self, wider: &[u8]) -> Option<&[u8]> {
        match self.kind {
            Kind::Hashes { .. } => wider.get(..usize::from(self.width) * Hash::BYTES),
            Kind::Entries => bundle::first(wider, usize::from(self.width)),
        }
    }
}

/// A tile and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileData {
    pub tile: Tile,
    pub bytes: Vec<u8>,
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Hashes { level } => write!(f, "tile/{level}/")?,
            Kind::Entries => f.write_str("tile/entries/")?,
        }
        let digits = self.index.to_string();
        let padded = format!("{digits:0>width$}", width = digits.len().next_multiple_of(3));
        for group in 0..padded.len() / 3 - 1 {
            write!(f, "x{}/", &padded[3 * group..3 * group + 3])?;
        }
        f.write_str(&padded[padded.len() - 3..])?;
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

/// The path names no tile: it is malformed, or not the one spelling of its tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such tile path")]
pub struct NoTile;

impl FromStr for Tile {
    type Err = NoTile;

    fn from_str(path: &str) -> Result<Tile, NoTile> {
        // Whatever else would be read, such as a group of zeros in front, is not how the tile is written.
        parse(path).filter(|tile| tile.to_string() == path).ok_or(NoTile)
    }
}

fn parse(path: &str) -> Option<Tile> {
    if path.len() > PATH_BYTES_MAX {
        return None;
    }
    let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
    let kind = match kind {
        "entries" => Kind::Entries,
        level => Kind::Hashes { level: small(level, LEVEL_MAX.into())?.try_into().ok()? },
    };
    let (index, width) = match rest.split_once(".p/") {
        Some((index, width)) => (index, small(width, WIDTH - 1).filter(|width| *width > 0)?),
        None => (rest, WIDTH),
    };
    let digits: String = index.chars().filter(char::is_ascii_digit).collect();
    // The comparison with what it displays as checks the groups.
    let index = decimal::parse(digits.trim_start_matches('0')).or_else(|| (digits == "000").then_some(0))?;
    Some(Tile { kind, index, width })
}

fn small(text: &str, max: u16) -> Option<u16> {
    decimal::parse(text)?.try_into().ok().filter(|number| *number <= max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hashes(level: u8, index: u64, width: u16) -> Tile {
        Tile { kind: Kind::Hashes { level }, index, width }
    }

    fn check(tile: Tile, path: &str) {
        assert_eq!(tile.to_string(), path);
        assert_eq!(path.parse(), Ok(tile));
    }

    #[test]
    fn a_path_has_its_index_in_groups_of_three_digits() {
        check(hashes(0, 0, 256), "tile/0/000");
        check(hashes(0, 273, 112), "tile/0/273.p/112");
        check(hashes(63, 1_234_067, 256), "tile/63/x001/x234/067");
        check(hashes(2, 1000, 1), "tile/2/x001/000.p/1");
        check(Tile { kind: Kind::Entries, index: 7, width: 255 }, "tile/entries/007.p/255");
        check(hashes(0, i64::MAX.unsigned_abs(), 256), "tile/0/x009/x223/x372/x036/x854/x775/807");
    }

    #[test]
    fn malformed_paths_are_no_tiles() {
        for path in [
            "",
            "tile",
            "tile/",
            "tile/0",
            "tile/0/",
            "tile/0/0",
            "tile/0/00",
            "tile/0/0000",
            "tile/0/x000",
            "tile/0/x000/001",
            "tile/0/x001",
            "tile/0/001/002",
            "tile/0/x01/002",
            "tile/0/x001/x002",
            "tile/0/x1/001",
            "tile/0/x001//002",
            "tile/0/x001/002/",
            "/tile/0/001",
            "tile//001",
            "tile/00/001",
            "tile/01/001",
            "tile/64/001",
            "tile/-1/001",
            "tile/+1/001",
            "tile/a/001",
            "tile/0/001.p",
            "tile/0/001.p/",
            "tile/0/001.p/0",
            "tile/0/001.p/01",
            "tile/0/001.p/256",
            "tile/0/001.p/1/",
            "tile/0/001.p/1.p/1",
            "tile/0/001.P/1",
            "tile/0/001 ",
            "tile/0/٠٠١",
            "tile/0/0x1",
            "tile/0/..",
            "tile/0/%30%30%31",
            "tile/Entries/001",
            "tile/entry/001",
            "tile/8/0/001",
            "tile/0/x009/x223/x372/x036/x854/x775/808",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/x999/x999/999",
            "checkpoint",
        ] {
            assert_eq!(path.parse::<Tile>(), Err(NoTile), "{path}");
        }
    }

    #[test]
    fn a_tree_has_the_tiles_that_the_specification_counts() {
        // Its example: 273 full tiles and one of 112, one full tile of level 1 and one of 17, one of level 2.
        let edge: Vec<Tile> = Tile::edge(70_000).collect();
        assert_eq!(edge, [hashes(0, 273, 112), hashes(1, 1, 17), hashes(2, 0, 1)]);
        assert_eq!(Tile::edge(256).collect::<Vec<_>>(), [hashes(1, 0, 1)]);
        assert_eq!(Tile::edge(0).count(), 0);
        assert_eq!(Tile::at(Kind::Entries, 273, 70_000).map(|tile| tile.width), Some(112));
        assert_eq!(Tile::at(Kind::Entries, 274, 70_000), None);
        assert!(hashes(0, 272, 256).is_within(70_000));
        assert!(hashes(0, 273, 111).is_within(70_000));
        assert!(!hashes(0, 273, 113).is_within(70_000));
        assert!(!hashes(63, 0, 1).is_within(u64::MAX));
        assert!(!hashes(0, u64::MAX, 1).is_within(u64::MAX));
    }

    proptest! {
        #[test]
        fn every_tile_has_a_path_that_names_it(
            level in prop::option::of(0..=LEVEL_MAX),
            index in prop_oneof![0..3_000_u64, 0..=i64::MAX.unsigned_abs()],
            width in 1..=WIDTH,
        ) {
            let kind = level.map_or(Kind::Entries, |level| Kind::Hashes { level });
            let tile = Tile { kind, index, width };
            prop_assert_eq!(tile.to_string().parse(), Ok(tile));
        }

        #[test]
        fn what_is_read_is_written_the_same(path in "tile/(entries|[0-9]{1,2})/(x[0-9]{3}/){0,3}[0-9]{3}(\\.p/[0-9]{1,3})?") {
            if let Ok(tile) = path.parse::<Tile>() {
                prop_assert_eq!(tile.to_string(), path);
            }
        }
    }
}
