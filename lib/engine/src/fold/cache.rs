//! Caches the cores of recently used accounts, so that most batches load nothing.
//!
//! A batch takes its cores out and puts them back once its commit is known; after a failure in between, the
//! cache does not have them and the next batch loads them from the database.

use std::collections::BTreeMap;

use ledger_core::account::Core;
use ledger_core::value::id::AccountId;
use rustc_hash::FxHashMap;

/// Most accounts cached; a core takes about 2 KiB.
pub const CACHED_ACCOUNTS_MAX: usize = 50_000;
/// Most open lots cached over all accounts; a lot takes about 1 KiB including the indexes.
pub const CACHED_LOTS_MAX: usize = 200_000;

/// Cores by account, bounded; evicts the least recently used first.
#[derive(Debug)]
pub struct Cache<X> {
    cores: FxHashMap<AccountId, Cached<X>>,
    /// Accounts by last use, oldest first.
    uses: BTreeMap<u64, AccountId>,
    clock: u64,
    lots: usize,
    accounts_max: usize,
    lots_max: usize,
}

#[derive(Debug)]
struct Cached<X> {
    core: Core,
    side_state: X,
    partition: i32,
    used: u64,
}

impl<X> Default for Cache<X> {
    fn default() -> Self {
        Self::new(CACHED_ACCOUNTS_MAX, CACHED_LOTS_MAX)
    }
}

impl<X> Cache<X> {
    pub fn new(accounts_max: usize, lots_max: usize) -> Self {
        let (cores, uses) = (FxHashMap::default(), BTreeMap::new());
        Self { cores, uses, clock: 0, lots: 0, accounts_max, lots_max }
    }

    /// Takes an account's core out, with its side state.
    pub fn take(&mut self, account: &AccountId) -> Option<(Core, X)> {
        let cached = self.cores.remove(account)?;
        self.uses.remove(&cached.used);
        self.lots -= cached.core.lots.len();
        Some((cached.core, cached.side_state))
    }

    /// Inserts an account's core, and evicts the least recently used beyond the bounds.
    pub fn put(&mut self, core: Core, side_state: X, partition: i32) {
        let account = core.account.clone();
        self.take(&account);
        self.clock += 1;
        self.lots += core.lots.len();
        self.uses.insert(self.clock, account.clone());
        self.cores.insert(account, Cached { core, side_state, partition, used: self.clock });
        while self.cores.len() > self.accounts_max || self.lots > self.lots_max {
            let Some((_, oldest)) = self.uses.pop_first() else { break };
            if let Some(cached) = self.cores.remove(&oldest) {
                self.lots -= cached.core.lots.len();
            }
        }
    }

    /// Drops the accounts of partitions.
    pub fn forget(&mut self, partitions: &[i32]) {
        let gone: Vec<AccountId> = self
            .cores
            .iter()
            .filter(|(_, cached)| partitions.contains(&cached.partition))
            .map(|(account, _)| account.clone())
            .collect();
        for account in gone {
            self.take(&account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger_core::event::OpenAccount;
    use ledger_core::value::time::Time;

    fn core(account: &str) -> Core {
        let opening: OpenAccount =
            serde_json::from_str(r#"{"plan":{"cycle":"monthly","allowance":"1"}}"#).expect("a body");
        Core::open(AccountId::new(account).expect("an id"), &opening, Time::from_millis(0))
    }

    fn id(account: &str) -> AccountId {
        AccountId::new(account).expect("an id")
    }

    #[test]
    fn the_longest_unused_account_goes_first() {
        let mut cache = Cache::new(2, 10);
        for account in ["a", "b"] {
            cache.put(core(account), (), 0);
        }
        let (a, ()) = cache.take(&id("a")).expect("kept");
        cache.put(a, (), 0);
        cache.put(core("c"), (), 0);
        assert!(cache.take(&id("b")).is_none());
        assert!(cache.take(&id("a")).is_some() && cache.take(&id("c")).is_some());
    }

    #[test]
    fn a_lost_partition_takes_its_accounts_along() {
        let mut cache = Cache::new(9, 9);
        cache.put(core("a"), (), 1);
        cache.put(core("b"), (), 2);
        cache.forget(&[1]);
        assert!(cache.take(&id("a")).is_none());
        assert!(cache.take(&id("b")).is_some());
    }
}
