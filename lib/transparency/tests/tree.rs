//! The tree against RFC 6962: its known hashes and proofs, a naive model, and properties of random trees.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod kept;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use kept::{Kept, entry};
use proptest::prelude::*;
use proptest::sample::Index;
use transparency_log::appender::Appender;
use transparency_log::bundle;
use transparency_log::entry::Entry;
use transparency_log::hash::Hash;
use transparency_log::proof::{BeyondTree, Outline, continues, includes};
use transparency_log::tile::{Kind, Tile};
use transparency_log::tree::{Head, Tiles, Tree};

/// A size beyond two full tiles of level 1, with hashes at level 2.
const LARGE: u64 = 140_000;

static LOG: LazyLock<Kept> = LazyLock::new(|| Kept::of(LARGE));

/// The leaves and roots with which implementations of Certificate Transparency are tested.
const LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn hash(hex: &str) -> Hash {
    Hash::from_slice(&hex::decode(hex).unwrap()).unwrap()
}

fn leaves(count: usize) -> Vec<Hash> {
    LEAVES[..count].iter().map(|leaf| Hash::of_leaf(&hex::decode(leaf).unwrap())).collect()
}

/// Builds a tree of leaves, with its tiles.
fn tree(leaves: &[Hash]) -> (Tree, BTreeMap<(u8, u64), Vec<u8>>) {
    let (mut tree, mut tiles) = (Tree::new(), Vec::new());
    leaves.iter().for_each(|leaf| tree.append(*leaf, &mut tiles));
    tiles.extend(tree.unfinished());
    let by_place = tiles.into_iter().filter_map(|data| match data.tile.kind {
        Kind::Hashes { level } => Some(((level, data.tile.index), data.bytes)),
        Kind::Entries => None,
    });
    (tree, by_place.collect())
}

#[test]
fn roots_are_those_of_certificate_transparency() {
    for (size, root) in ROOTS.iter().enumerate() {
        assert_eq!(tree(&leaves(size)).0.root(), hash(root), "{size}");
    }
}

#[test]
fn proofs_are_those_of_certificate_transparency() {
    let (_, tiles) = tree(&leaves(8));
    let check = |outline: Result<Outline, BeyondTree>, proof: &[&str]| {
        let expected: Vec<Hash> = proof.iter().map(|hex| hash(hex)).collect();
        assert_eq!(outline.unwrap().hashes(&tiles), Ok(expected));
    };
    let (leaf_0, leaf_1) = (ROOTS[1], "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7");
    let (first_4, leaf_2_and_3) =
        (ROOTS[4], "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e");
    let (leaf_4, leaf_6_and_7) = (
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    );
    let last_4 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
    let leaf_4_and_5 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
    check(Outline::inclusion(0, 1), &[]);
    check(Outline::inclusion(0, 8), &[leaf_1, leaf_2_and_3, last_4]);
    check(Outline::inclusion(5, 8), &[leaf_4, leaf_6_and_7, first_4]);
    check(Outline::inclusion(2, 3), &[ROOTS[2]]);
    check(Outline::inclusion(1, 5), &[leaf_0, leaf_2_and_3, leaf_4]);
    check(Outline::consistency(1, 1), &[]);
    check(Outline::consistency(1, 8), &[leaf_1, leaf_2_and_3, last_4]);
    check(Outline::consistency(6, 8), &[leaf_4_and_5, leaf_6_and_7, first_4]);
    check(Outline::consistency(2, 5), &[leaf_2_and_3, leaf_4]);
    check(Outline::consistency(0, 5), &[]);
}

#[test]
fn a_proof_of_what_the_tree_has_not_is_refused() {
    assert_eq!(Outline::inclusion(8, 8), Err(BeyondTree(8, 8)));
    assert_eq!(Outline::inclusion(0, 0), Err(BeyondTree(0, 0)));
    assert_eq!(Outline::consistency(9, 8), Err(BeyondTree(9, 8)));
}

/// The definitions of RFC 6962, word for word.
mod naive {
    use super::Hash;

    fn split(leaves: &[Hash]) -> usize {
        leaves.len().next_power_of_two() / 2
    }

    pub fn root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Hash::of(b""),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(split(leaves));
                Hash::of_node(root(left), root(right))
            }
        }
    }

    pub fn inclusion(leaf: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let (left, right) = leaves.split_at(split(leaves));
        let (mut proof, sibling) = if leaf < left.len() {
            (inclusion(leaf, left), root(right))
        } else {
            (inclusion(leaf - left.len(), right), root(left))
        };
        proof.push(sibling);
        proof
    }

    pub fn consistency(size: usize, leaves: &[Hash], is_whole: bool) -> Vec<Hash> {
        if size == leaves.len() {
            return if is_whole { Vec::new() } else { vec![root(leaves)] };
        }
        let (left, right) = leaves.split_at(split(leaves));
        let (mut proof, sibling) = if size <= left.len() {
            (consistency(size, left, is_whole), root(right))
        } else {
            (consistency(size - left.len(), right, false), root(left))
        };
        proof.push(sibling);
        proof
    }
}

fn leaf_hashes(size: u64) -> Vec<Hash> {
    (0..size).map(|offset| entry(offset).leaf_hash()).collect()
}

#[test]
fn every_proof_of_small_trees_is_that_of_the_definition() {
    let all = leaf_hashes(40);
    for size in 1..=40 {
        let leaves = &all[..size];
        let (tree, tiles) = tree(leaves);
        assert_eq!(tree.root(), naive::root(leaves));
        for at in 0..size {
            let inclusion = Outline::inclusion(at as u64, size as u64).unwrap().hashes(&tiles).unwrap();
            assert_eq!(inclusion, naive::inclusion(at, leaves), "{at} in {size}");
            assert!(includes(&tree.head(), at as u64, leaves[at], &inclusion));
            let consistency =
                Outline::consistency(at as u64 + 1, size as u64).unwrap().hashes(&tiles).unwrap();
            assert_eq!(consistency, naive::consistency(at + 1, leaves, true), "{} to {size}", at + 1);
            let from = Head { size: at as u64 + 1, root: naive::root(&leaves[..=at]) };
            assert!(continues(&from, &tree.head(), &consistency));
        }
    }
}

/// Only these tiles, each exactly as wide as it was asked for.
fn fetched<'a>(tiles: impl IntoIterator<Item = &'a Tile>) -> BTreeMap<(u8, u64), Vec<u8>> {
    let fetch = |tile: &Tile| match tile.kind {
        Kind::Hashes { level } => {
            let kept = LOG.hashes(level, tile.index).unwrap();
            ((level, tile.index), tile.cut(kept).unwrap().to_vec())
        }
        Kind::Entries => panic!("a proof is made of hashes"),
    };
    tiles.into_iter().map(fetch).collect()
}

/// Makes a proof from the tiles that its outline names. Without any one of them it can't be made.
fn proof_of(outline: &Outline) -> Vec<Hash> {
    let tiles = fetched(&outline.tiles());
    for missing in tiles.keys() {
        let mut fewer = tiles.clone();
        fewer.remove(missing);
        assert!(outline.hashes(&fewer).is_err(), "{missing:?} was not needed");
    }
    outline.hashes(&tiles).unwrap()
}

/// Returns the same bytes with one bit flipped.
fn flipped(hash: Hash, bit: usize) -> Hash {
    let mut bytes = hash.0;
    bytes[bit / 8] ^= 1 << (bit % 8);
    Hash(bytes)
}

/// Returns a number below another one.
fn below(end: u64, at: Index) -> u64 {
    at.index(usize::try_from(end).expect("a small number")) as u64
}

fn bit() -> impl Strategy<Value = usize> {
    0..256_usize
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_trees_have_the_root_of_the_definition(size in 1..700_u64) {
        let leaves = leaf_hashes(size);
        prop_assert_eq!(tree(&leaves).0.root(), naive::root(&leaves));
        prop_assert_eq!(LOG.head(size).root, naive::root(&leaves));
    }

    #[test]
    fn every_inclusion_proof_holds_and_no_other_does(
        size in prop_oneof![1..2_000_u64, 1..=LARGE], at in any::<Index>(), which in any::<Index>(), bit in bit(),
    ) {
        let index = below(size, at);
        let (head, leaf) = (LOG.head(size), entry(index).leaf_hash());
        let proof = proof_of(&Outline::inclusion(index, size).unwrap());
        prop_assert!(includes(&head, index, leaf, &proof));

        prop_assert!(!includes(&head, index, flipped(leaf, bit), &proof));
        let other = Head { root: flipped(head.root, bit), ..head };
        prop_assert!(!includes(&other, index, leaf, &proof));
        prop_assert!(!includes(&head, index ^ 1, leaf, &proof) || size == 1);
        prop_assert!(!includes(&head, size, leaf, &proof));
        prop_assert!(!includes(&head, index, leaf, &[&proof[..], &[Hash::ZERO]].concat()));
        if !proof.is_empty() {
            let which = which.index(proof.len());
            let mut other = proof.clone();
            other[which] = flipped(other[which], bit);
            prop_assert!(!includes(&head, index, leaf, &other));
            other.copy_from_slice(&proof);
            other.remove(which);
            prop_assert!(!includes(&head, index, leaf, &other));
        }
    }

    #[test]
    fn every_consistency_proof_holds_and_no_other_does(
        to in prop_oneof![1..2_000_u64, 1..=LARGE], at in any::<Index>(), which in any::<Index>(), bit in bit(),
    ) {
        let from = LOG.head(below(to, at) + 1);
        let to = LOG.head(to);
        let proof = proof_of(&Outline::consistency(from.size, to.size).unwrap());
        prop_assert!(continues(&from, &to, &proof));

        let (other_from, other_to) = (Head { root: flipped(from.root, bit), ..from }, Head { root: flipped(to.root, bit), ..to });
        prop_assert!(!continues(&other_from, &to, &proof));
        prop_assert!(!continues(&from, &other_to, &proof));
        prop_assert!(!continues(&from, &to, &[&proof[..], &[Hash::ZERO]].concat()));
        prop_assert!(from.size == to.size || !continues(&to, &from, &proof));
        if !proof.is_empty() {
            let which = which.index(proof.len());
            let mut other = proof.clone();
            other[which] = flipped(other[which], bit);
            prop_assert!(!continues(&from, &to, &other));
            other.copy_from_slice(&proof);
            other.remove(which);
            prop_assert!(!continues(&from, &to, &other));
        }
    }

    #[test]
    fn a_log_is_taken_up_again_at_every_size_that_it_had(
        size in prop_oneof![0..1_200_u64, 60_000..70_000_u64], more in 0..600_u64,
    ) {
        let mut appender = Appender::resume(size, &*LOG, last_bundle(size)).unwrap();
        prop_assert_eq!(appender.head(), LOG.head(size));
        let mut again = Kept::default();
        again.append_to(&mut appender, size + more);
        prop_assert_eq!(appender.head(), LOG.head(size + more));
        for ((level, index), bytes) in &again.hashes {
            prop_assert_eq!(Some(bytes.as_slice()), LOG.hashes(*level, *index).and_then(|kept| kept.get(..bytes.len())));
        }
        for (index, bytes) in &again.bundles {
            prop_assert_eq!(bytes.as_slice(), &LOG.bundles[index][..bytes.len()]);
        }
    }

    #[test]
    fn any_cut_into_batches_keeps_the_same(cuts in proptest::collection::vec(0..400_u64, 0..6)) {
        let (mut appender, mut kept) = (Appender::new(), Kept::default());
        for more in &cuts {
            let size = appender.size() + more;
            kept.append_to(&mut appender, size);
        }
        let whole = Kept::of(cuts.iter().sum());
        prop_assert_eq!(kept.hashes, whole.hashes);
        prop_assert_eq!(kept.bundles, whole.bundles);
    }
}

/// Returns the bundle at whose end a log of the size is taken up again.
fn last_bundle(size: u64) -> &'static [u8] {
    LOG.bundles.get(&(size / 256)).map_or(&[], Vec::as_slice)
}

#[test]
fn the_empty_tree_comes_before_every_other() {
    let (empty, some) = (Head { size: 0, root: Hash::of_empty_tree() }, LOG.head(5));
    assert_eq!(LOG.head(0), empty);
    assert!(continues(&empty, &some, &[]));
    assert!(continues(&empty, &empty, &[]));
    assert!(!continues(&empty, &some, &[Hash::ZERO]));
    assert!(!continues(&Head { root: Hash::ZERO, ..empty }, &some, &[]));
    assert!(!continues(&empty, &Head { size: 0, root: some.root }, &[]));
    assert!(!includes(&empty, 0, Hash::ZERO, &[]));
}

#[test]
fn entries_stand_in_bundles_as_their_hashes_do_in_tiles() {
    assert_eq!(LOG.bundles.len() as u64, LARGE.div_ceil(256));
    for (index, bytes) in &LOG.bundles {
        let hashes = LOG.hashes(0, *index).unwrap();
        let entries = bundle::entries(bytes).unwrap();
        assert_eq!(entries.len(), hashes.len() / Hash::BYTES);
        for (at, bytes) in entries.iter().enumerate() {
            let offset = 256 * index + at as u64;
            assert_eq!(Entry::decode(bytes), Ok(entry(offset)));
            assert_eq!(hashes[32 * at..32 * at + 32], Hash::of_leaf(bytes).0);
        }
    }
}

#[test]
fn every_hash_above_is_the_root_of_a_full_tile_below() {
    let above = |level: u8| (0..u64::MAX).map_while(move |index| LOG.hashes(level, index));
    for level in 1..=2 {
        let hashes = above(level).flat_map(|tile| tile.chunks_exact(Hash::BYTES));
        let full = above(level - 1).filter(|tile| tile.len() == 256 * Hash::BYTES);
        let mut count = 0;
        for (tile, hash) in full.zip(hashes) {
            let below: Vec<Hash> = tile.chunks_exact(Hash::BYTES).filter_map(Hash::from_slice).collect();
            assert_eq!(naive::root(&below).0, *hash);
            count += 1;
        }
        assert_eq!(count, LARGE >> (8 * level));
    }
}

#[test]
fn a_tree_that_lost_a_tile_is_not_taken_up_again() {
    let without = |level: u8, index: u64| {
        let mut kept = Kept::of(70_000);
        kept.hashes.remove(&(level, index));
        Tree::resume(70_000, &kept).map(|_| ()).map_err(|missing| missing.0.to_string())
    };
    assert_eq!(without(0, 0), Ok(()));
    assert_eq!(without(0, 273), Err("tile/0/273.p/112".to_owned()));
    assert_eq!(without(1, 1), Err("tile/1/001.p/17".to_owned()));
    assert_eq!(without(2, 0), Err("tile/2/000.p/1".to_owned()));
    let short = Appender::resume(70_000, &*LOG, &last_bundle(70_000)[..111 * 90]);
    assert_eq!(
        short.map(|_| ()).map_err(|missing| missing.0.to_string()),
        Err("tile/entries/273.p/112".to_owned())
    );
}
