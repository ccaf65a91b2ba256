//! The ids of usage that this process saw lately.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use ledger_core::value::id::{AccountId, EventId, Source};
use rustc_hash::FxHashSet;

/// Ids in each of the two generations of [`RecentIds`].
const GENERATION_MAX: usize = 500_000;

/// Hashes of the ids that this process saw last, at least [`GENERATION_MAX`] of them and at most twice as many.
///
/// Two ids of one hash only cost a query that finds nothing.
#[derive(Default)]
pub struct RecentIds {
    hasher: RandomState,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    newer: FxHashSet<u64>,
    older: FxHashSet<u64>,
}

impl RecentIds {
    /// Adds ids, and returns for each whether it was seen before.
    pub fn insert<'a>(
        &self,
        ids: impl IntoIterator<Item = (&'a AccountId, &'a Source, &'a EventId)>,
    ) -> Vec<bool> {
        let hashes: Vec<u64> = ids.into_iter().map(|id| self.hasher.hash_one(id)).collect();
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.into_iter().map(|hash| generations.insert(hash, GENERATION_MAX)).collect()
    }
}

impl Generations {
    fn insert(&mut self, hash: u64, most: usize) -> bool {
        if self.newer.contains(&hash) {
            return true;
        }
        let seen = self.older.contains(&hash);
        if self.newer.len() >= most {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(hash);
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_until_as_many_others_came() {
        let mut generations = Generations::default();
        let seen: Vec<bool> = [1, 1, 2, 3, 1, 4, 5, 6, 1].map(|hash| generations.insert(hash, 2)).into();
        assert_eq!(seen, [false, true, false, false, true, false, false, false, false]);
        assert!(generations.newer.len() <= 2 && generations.older.len() <= 2, "two generations of two");
    }
}
