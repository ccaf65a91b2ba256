//! Appender: a log while entries are appended, with the tiles and bundles to keep.

use crate::bundle;
use crate::entry::Entry;
use crate::hash::Hash;
use crate::tile::{Kind, Tile, TileData, WIDTH};
use crate::tree::{Head, MissingTile, Tiles, Tree};

/// A log's tree and its unfinished entry bundle.
#[derive(Debug, Clone, Default)]
pub struct Appender {
    tree: Tree,
    bundle: Vec<u8>,
}

impl Appender {
    pub fn new() -> Appender {
        Appender::default()
    }

    /// Takes a log up again at a size that it had, from what is kept: the tiles at its edge, and the last bundle.
    pub fn resume(size: u64, tiles: &impl Tiles, bundle: &[u8]) -> Result<Appender, MissingTile> {
        let tree = Tree::resume(size, tiles)?;
        let last = Tile::at(Kind::Entries, size / u64::from(WIDTH), size);
        let bundle = last.map_or(Ok(&[][..]), |tile| tile.cut(bundle).ok_or(MissingTile(tile)))?;
        Ok(Appender { tree, bundle: bundle.to_vec() })
    }

    /// Appends an entry, and adds the tiles and the bundle that it fills to `filled`. Returns the leaf's hash.
    pub fn append(&mut self, entry: &Entry, filled: &mut Vec<TileData>) -> Hash {
        let entry = entry.encode();
        let leaf = Hash::of_leaf(&entry);
        bundle::push(&mut self.bundle, &entry);
        self.tree.append(leaf, filled);
        if self.tree.size().is_multiple_of(u64::from(WIDTH)) {
            let index = self.tree.size() / u64::from(WIDTH) - 1;
            let tile = Tile { kind: Kind::Entries, index, width: WIDTH };
            filled.push(TileData { tile, bytes: std::mem::take(&mut self.bundle) });
        }
        leaf
    }

    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    pub fn head(&self) -> Head {
        self.tree.head()
    }

    /// Returns the partial tiles, and the partial bundle if there is one.
    pub fn unfinished(&self) -> impl Iterator<Item = TileData> {
        let last = Tile::at(Kind::Entries, self.size() / u64::from(WIDTH), self.size());
        let bundle = last.map(|tile| TileData { tile, bytes: self.bundle.clone() });
        self.tree.unfinished().chain(bundle)
    }
}
