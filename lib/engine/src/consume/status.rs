//! The status of a consume loop, for readiness and for operators.

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared between a loop and its observers; clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Status {
    shared: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Next offset of each partition that this loop folds.
    folding: BTreeMap<i32, i64>,
    /// Why a partition has stopped for good.
    halted: BTreeMap<i32, String>,
    /// The problem that blocks the whole loop now.
    trouble: Option<String>,
}

impl Status {
    /// Returns all problems of the loop; an empty list means that it is healthy.
    pub fn problems(&self) -> Vec<String> {
        let state = self.lock();
        let halted =
            state.halted.iter().map(|(partition, why)| format!("partition {partition} halted: {why}"));
        halted.chain(state.trouble.clone()).collect()
    }

    /// Returns a readiness check that fails while the loop has problems.
    pub fn check(&self) -> impl Fn() -> Ready<Result<(), String>> + Send + Sync + 'static {
        let status = self.clone();
        move || {
            let problems = status.problems();
            ready(if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) })
        }
    }

    /// Returns the next offset of each partition that this loop folds.
    pub fn folding(&self) -> BTreeMap<i32, i64> {
        self.lock().folding.clone()
    }

    pub(super) fn set_folding(&self, partition: i32, next_offset: i64) {
        self.lock().folding.insert(partition, next_offset);
    }

    pub(super) fn lose(&self, partition: i32) {
        let mut state = self.lock();
        state.folding.remove(&partition);
        state.halted.remove(&partition);
    }

    pub(super) fn halt(&self, partition: i32, why: String) {
        let mut state = self.lock();
        state.folding.remove(&partition);
        state.halted.insert(partition, why);
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        self.lock().trouble = trouble;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
