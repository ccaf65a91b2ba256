//! Proofs: that an entry is in a tree (inclusion), and that a tree continues an earlier one (consistency).
//!
//! They are made in two steps, because tiles may have to be fetched in between: an [`Outline`] says which tiles a proof
//! needs, and then makes it of them.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::hash::Hash;
use crate::tile::{HEIGHT, Kind, Tile};
use crate::tree::{Head, MissingTile, Tiles};

/// No tree of the size has the leaf, or the earlier tree is the larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is beyond the tree of size {1}")]
pub struct BeyondTree(pub u64, pub u64);

/// A proof before its hashes are at hand: the ranges of leaves whose hashes it consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    size: u64,
    ranges: Vec<Range<u64>>,
}

impl Outline {
    /// Outlines the proof that the tree of a size has a leaf (RFC 6962, 2.1.1).
    pub fn inclusion(leaf: u64, size: u64) -> Result<Outline, BeyondTree> {
        if leaf >= size {
            return Err(BeyondTree(leaf, size));
        }
        let mut ranges = Vec::new();
        let mut within = 0..size;
        while within.end - within.start > 1 {
            let middle = middle(&within);
            let (left, right) = (within.start..middle, middle..within.end);
            let (near, far) = if leaf < middle { (left, right) } else { (right, left) };
            ranges.push(far);
            within = near;
        }
        ranges.reverse();
        Ok(Outline { size, ranges })
    }

    /// Outlines the proof that the tree of size `to` begins with that of size `from` (RFC 6962, 2.1.2).
    ///
    /// It is empty where there is nothing to prove: from the empty tree, and between equal sizes.
    pub fn consistency(from: u64, to: u64) -> Result<Outline, BeyondTree> {
        if from > to {
            return Err(BeyondTree(from, to));
        }
        let mut ranges = Vec::new();
        let mut within = 0..to;
        while from != 0 && within.end != from {
            let middle = middle(&within);
            let (left, right) = (within.start..middle, middle..within.end);
            let (near, far) = if from <= middle { (left, right) } else { (right, left) };
            ranges.push(far);
            within = near;
        }
        // Who has the earlier root has this hash already where it is the whole of that tree.
        if within.start != 0 {
            ranges.push(within);
        }
        ranges.reverse();
        Ok(Outline { size: to, ranges })
    }

    /// Returns the tiles that the proof needs, each as wide as the tree has it.
    pub fn tiles(&self) -> BTreeSet<Tile> {
        let subtrees = self.ranges.iter().flat_map(subtrees);
        subtrees.filter_map(|subtree| Tile::at(subtree.kind(), subtree.tile(), self.size)).collect()
    }

    /// Makes the proof.
    pub fn hashes(&self, tiles: &impl Tiles) -> Result<Vec<Hash>, MissingTile> {
        self.ranges.iter().map(|range| self.hash(range, tiles)).collect()
    }

    /// Returns the hash of a range: of its complete subtrees, joined from the right.
    fn hash(&self, range: &Range<u64>, tiles: &impl Tiles) -> Result<Hash, MissingTile> {
        let hashes: Vec<Hash> =
            subtrees(range).map(|subtree| subtree.hash(self.size, tiles)).collect::<Result<_, _>>()?;
        let joined = hashes.into_iter().rev().reduce(|right, left| Hash::of_node(left, right));
        Ok(joined.expect("no range of a proof is empty"))
    }
}

/// Returns where RFC 6962 splits a range: behind the largest power of two that is smaller than its length.
fn middle(range: &Range<u64>) -> u64 {
    let length = range.end - range.start;
    range.start + (1 << (length - 1).ilog2())
}

/// A complete subtree of 2^height leaves, the position-th of its height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Subtree {
    height: u32,
    position: u64,
}

impl Subtree {
    /// The level whose tiles have hashes from which it is made: 2^rest of them.
    fn level(self) -> u8 {
        u8::try_from(self.height / HEIGHT).expect("a tree has fewer than 64 levels")
    }

    fn kind(self) -> Kind {
        Kind::Hashes { level: self.level() }
    }

    fn rest(self) -> u32 {
        self.height % HEIGHT
    }

    fn tile(self) -> u64 {
        self.position >> (HEIGHT - self.rest())
    }

    fn hash(self, size: u64, tiles: &impl Tiles) -> Result<Hash, MissingTile> {
        let tile = Tile { kind: self.kind(), index: self.tile(), width: 0 };
        let tile = Tile::at(tile.kind, tile.index, size).unwrap_or(tile);
        let hashes = tiles.hashes(self.level(), tile.index).ok_or(MissingTile(tile))?;
        let length = Hash::BYTES << self.rest();
        let in_tile = self.position & ((1 << (HEIGHT - self.rest())) - 1);
        let at = usize::try_from(in_tile).expect("a tile has 256 hashes") * length;
        let hashes = hashes.get(at..at + length).ok_or(MissingTile(tile))?;
        Ok(root(hashes.chunks_exact(Hash::BYTES).filter_map(Hash::from_slice).collect()))
    }
}

/// Returns the root above as many hashes as a power of two.
fn root(mut hashes: Vec<Hash>) -> Hash {
    while hashes.len() > 1 {
        hashes = hashes.chunks_exact(2).map(|pair| Hash::of_node(pair[0], pair[1])).collect();
    }
    hashes[0]
}

/// Returns the complete subtrees of a range, the largest first. It begins where one of its length can.
fn subtrees(range: &Range<u64>) -> impl Iterator<Item = Subtree> + use<> {
    let mut rest = range.clone();
    std::iter::from_fn(move || {
        let height = (rest.end - rest.start).checked_ilog2()?;
        let subtree = Subtree { height, position: rest.start >> height };
        rest.start += 1 << height;
        Some(subtree)
    })
}

/// Whether a proof shows that the tree has a leaf hash at an index (RFC 9162, 2.1.3.2).
#[must_use]
pub fn includes(head: &Head, index: u64, leaf: Hash, proof: &[Hash]) -> bool {
    if index >= head.size {
        return false;
    }
    let mut climb = Climb { at: index, last: head.size - 1 };
    let mut root = leaf;
    for hash in proof {
        let Some(side) = climb.step() else { return false };
        root = side.join(root, *hash);
    }
    climb.last == 0 && root == head.root
}

/// Whether a proof shows that one tree begins with another (RFC 9162, 2.1.4.2).
#[must_use]
pub fn continues(from: &Head, to: &Head, proof: &[Hash]) -> bool {
    if from.size == 0 {
        let is_empty = from.root == Hash::of_empty_tree() && proof.is_empty();
        return is_empty && (to.size > 0 || to.root == from.root);
    }
    if from.size >= to.size {
        return from == to && proof.is_empty();
    }
    // A complete earlier tree is a node of the later one, so its root is the first hash.
    let (mut earlier, proof) = match proof {
        hashes if from.size.is_power_of_two() => (from.root, hashes),
        [first, hashes @ ..] => (*first, hashes),
        [] => return false,
    };
    let complete = from.size.trailing_zeros();
    let mut climb = Climb { at: (from.size - 1) >> complete, last: (to.size - 1) >> complete };
    let mut later = earlier;
    for hash in proof {
        let Some(side) = climb.step() else { return false };
        if side == Side::Left {
            earlier = Hash::of_node(*hash, earlier);
        }
        later = side.join(later, *hash);
    }
    climb.last == 0 && earlier == from.root && later == to.root
}

/// The way from a node to the root: its position among those of its height, and that of the last one.
struct Climb {
    at: u64,
    last: u64,
}

/// On which side of the path a hash of the proof stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Side {
    fn join(self, path: Hash, hash: Hash) -> Hash {
        match self {
            Side::Left => Hash::of_node(hash, path),
            Side::Right => Hash::of_node(path, hash),
        }
    }
}

impl Climb {
    /// Goes up to the next node that has two children; `None` at the root.
    fn step(&mut self) -> Option<Side> {
        if self.last == 0 {
            return None;
        }
        let side = if self.at & 1 == 1 || self.at == self.last { Side::Left } else { Side::Right };
        // The last node of a height may have no sibling, and then rises as it is.
        let rises = if side == Side::Left { self.at.trailing_zeros() } else { 0 };
        self.at >>= rises + 1;
        self.last >>= rises + 1;
        Some(side)
    }
}
