//! Slots: how much long work runs at once, in all and for each key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bounds the concurrency of long work, in all and for each key.
pub struct Slots {
    free: Arc<Semaphore>,
    most: usize,
    held: Arc<Held>,
}

/// How many slots each key holds; keys without any are missing.
type Held = Mutex<HashMap<Arc<str>, usize>>;

/// A slot of a key, held until it is dropped.
pub struct Slot {
    key: Arc<str>,
    held: Arc<Held>,
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    /// Makes slots of which one key may hold half.
    pub fn new(slots: usize) -> Self {
        Self::with_share(slots, slots / 2)
    }

    /// Makes slots of which one key may hold so many, at least one.
    pub fn with_share(slots: usize, most: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(slots)), most: most.max(1), held: Arc::default() }
    }

    /// Returns how many slots each key holds.
    pub fn held(&self) -> Vec<(Arc<str>, usize)> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().map(|(key, slots)| (Arc::clone(key), *slots)).collect()
    }

    /// Takes a slot for this key; none if all are taken, or if the key holds its share.
    pub fn take(&self, key: &Arc<str>) -> Option<Slot> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.get(key).is_some_and(|slots| *slots >= self.most) {
            return None;
        }
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        *held.entry(Arc::clone(key)).or_default() += 1;
        Some(Slot { key: Arc::clone(key), held: Arc::clone(&self.held), _permit: permit })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slots) = held.get_mut(&self.key) {
            *slots -= 1;
            if *slots == 0 {
                held.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_holds_at_most_half_of_the_slots() {
        let slots = Slots::new(4);
        let [noisy, other, third] = ["noisy", "other", "third"].map(Arc::<str>::from);
        let mut taken: Vec<Slot> = (0..10).filter_map(|_| slots.take(&noisy)).collect();
        assert_eq!(taken.len(), 2);
        let others: Vec<Slot> = (0..10).filter_map(|_| slots.take(&other)).collect();
        assert_eq!(others.len(), 2);
        assert!(slots.take(&third).is_none(), "all are taken");
        taken.pop();
        assert!(slots.take(&third).is_some());
        drop((taken, others));
        assert!(slots.held.lock().expect("whole").is_empty());
    }

    #[test]
    fn the_half_of_one_is_one() {
        let slots = Slots::new(1);
        assert!(slots.take(&Arc::from("key")).is_some());
    }
}
