//! The status of a consume loop, for readiness and for operators.

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use platform::heartbeat::Heartbeat;
use platform::unready::Unready;

/// Shared between a loop and its observers; clones share one state.
#[derive(Debug, Clone)]
pub struct Status {
    shared: Arc<Mutex<State>>,
    heartbeat: Heartbeat,
}

impl Default for Status {
    fn default() -> Self {
        Self::new("consume")
    }
}

#[derive(Debug, Default)]
struct State {
    /// Next offset of each partition that this loop folds.
    folding: BTreeMap<i32, i64>,
    /// Why a partition has stopped for good.
    halted: BTreeMap<i32, String>,
    /// Partitions that somebody beside the loop wants halted, and why.
    to_halt: BTreeMap<i32, String>,
    /// The problem that blocks the whole loop now.
    trouble: Option<String>,
}

impl Status {
    /// Makes the status of a loop; the name stands in its metrics.
    pub fn new(name: &'static str) -> Self {
        Self { shared: Arc::default(), heartbeat: Heartbeat::new(name) }
    }

    /// Returns the loop's sign of life.
    pub fn heartbeat(&self) -> &Heartbeat {
        &self.heartbeat
    }

    /// Returns all problems of the loop; an empty list means that it is healthy.
    pub fn problems(&self) -> Vec<String> {
        let state = self.lock();
        let halted =
            state.halted.iter().map(|(partition, why)| format!("partition {partition} halted: {why}"));
        halted.chain(state.trouble.clone()).chain(self.heartbeat.problem()).collect()
    }

    /// Returns a readiness check that fails while the loop has problems.
    pub fn check(&self) -> impl Fn() -> Ready<Result<(), Unready>> + Send + Sync + 'static {
        let status = self.clone();
        move || ready(status.judge())
    }

    /// Halted partitions are named; what blocks the whole loop may quote the database or the broker, so it is not.
    fn judge(&self) -> Result<(), Unready> {
        let state = self.lock();
        if let Some(trouble) = &state.trouble {
            return Err(Unready::because("failing", trouble));
        }
        self.heartbeat.judge()?;
        if state.halted.is_empty() {
            return Ok(());
        }
        let halted =
            state.halted.iter().map(|(partition, why)| format!("partition {partition} halted: {why}"));
        Err(Unready::new("halted", halted.collect::<Vec<_>>().join("; ")))
    }

    /// Returns the next offset of each partition that this loop folds.
    pub fn folding(&self) -> BTreeMap<i32, i64> {
        self.lock().folding.clone()
    }

    /// Asks the loop to halt a partition, if it folds it.
    pub fn ask_to_halt(&self, partition: i32, why: String) {
        self.lock().to_halt.insert(partition, why);
    }

    /// Returns what the loop was asked to halt since the last call, of what it folds.
    pub(super) fn asked_to_halt(&self) -> Vec<(i32, String)> {
        let mut state = self.lock();
        let asked = std::mem::take(&mut state.to_halt);
        asked.into_iter().filter(|(partition, _)| state.folding.contains_key(partition)).collect()
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

    /// Returns how many partitions have stopped for good.
    pub(super) fn halted(&self) -> usize {
        self.lock().halted.len()
    }

    /// Forgets everything, for a loop that starts again.
    pub(super) fn reset(&self) {
        *self.lock() = State::default();
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        self.lock().trouble = trouble;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
