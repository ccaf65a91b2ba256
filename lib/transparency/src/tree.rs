//! Tree: the Merkle tree of RFC 6962 while leaves are appended, in memory that grows with the logarithm of its size.

use std::collections::BTreeMap;

use crate::hash::Hash;
use crate::tile::{HEIGHT, Kind, LEVELS, Tile, TileData, WIDTH};

/// A tree's size and root: all that a checkpoint says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub size: u64,
    pub root: Hash,
}

/// Where the hashes of tiles come from.
pub trait Tiles {
    /// Returns a tile's hashes one after another, as many as are at hand.
    fn hashes(&self, level: u8, index: u64) -> Option<&[u8]>;
}

/// Tiles by level and index.
impl Tiles for BTreeMap<(u8, u64), Vec<u8>> {
    fn hashes(&self, level: u8, index: u64) -> Option<&[u8]> {
        self.get(&(level, index)).map(Vec::as_slice)
    }
}

/// A tile that was needed is not at hand, or has too few hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is missing")]
pub struct MissingTile(pub Tile);

/// A growing tree: the unfinished tile of each level, and nothing else.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    size: u64,
    levels: Vec<Unfinished>,
}

/// The unfinished tile of a level.
#[derive(Debug, Clone, Default)]
struct Unfinished {
    hashes: Vec<u8>,
    /// The roots of the complete subtrees among them, the largest first: one for each bit of their count.
    peaks: Vec<Hash>,
}

impl Unfinished {
    fn len(&self) -> usize {
        self.hashes.len() / Hash::BYTES
    }

    /// Adds a hash. Once the tile is full, hands it out with its root, and begins the next.
    fn push(&mut self, hash: Hash) -> Option<(Vec<u8>, Hash)> {
        let mut node = hash;
        for _ in 0..self.len().trailing_ones() {
            let left = self.peaks.pop().expect("each bit of the count has a peak");
            node = Hash::of_node(left, node);
        }
        self.hashes.extend_from_slice(&hash.0);
        if self.len() == usize::from(WIDTH) {
            return Some((std::mem::take(&mut self.hashes), node));
        }
        self.peaks.push(node);
        None
    }
}

impl Tree {
    pub fn new() -> Tree {
        Tree::default()
    }

    /// Takes a tree up again at a size that it had, now or before, from the tiles at its edge.
    pub fn resume(size: u64, tiles: &impl Tiles) -> Result<Tree, MissingTile> {
        let mut tree = Tree { size, levels: Vec::new() };
        for tile in Tile::edge(size) {
            let Kind::Hashes { level } = tile.kind else { continue };
            let hashes = tiles.hashes(level, tile.index).and_then(|hashes| tile.cut(hashes));
            let hashes = hashes.ok_or(MissingTile(tile))?;
            let unfinished = tree.level(level);
            for hash in hashes.chunks_exact(Hash::BYTES).filter_map(Hash::from_slice) {
                unfinished.push(hash);
            }
        }
        Ok(tree)
    }

    /// Appends a leaf, and adds the tiles that it fills to `filled`.
    pub fn append(&mut self, leaf: Hash, filled: &mut Vec<TileData>) {
        self.size += 1;
        let mut hash = leaf;
        for level in 0..LEVELS {
            let Some((bytes, root)) = self.level(level).push(hash) else { return };
            let index = (self.size >> (HEIGHT * (u32::from(level) + 1))) - 1;
            filled.push(TileData { tile: Tile { kind: Kind::Hashes { level }, index, width: WIDTH }, bytes });
            hash = root;
        }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the root of all leaves so far.
    pub fn root(&self) -> Hash {
        let from_the_right = self.levels.iter().flat_map(|level| level.peaks.iter().rev());
        from_the_right
            .copied()
            .reduce(|right, left| Hash::of_node(left, right))
            .unwrap_or_else(Hash::of_empty_tree)
    }

    pub fn head(&self) -> Head {
        Head { size: self.size, root: self.root() }
    }

    /// Returns the partial tiles, from level 0 up.
    pub fn unfinished(&self) -> impl Iterator<Item = TileData> {
        let hashes = |tile: Tile| match tile.kind {
            Kind::Hashes { level } => self.levels[usize::from(level)].hashes.clone(),
            Kind::Entries => Vec::new(),
        };
        Tile::edge(self.size).map(move |tile| TileData { tile, bytes: hashes(tile) })
    }

    fn level(&mut self, level: u8) -> &mut Unfinished {
        let level = usize::from(level);
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Unfinished::default);
        }
        &mut self.levels[level]
    }
}
