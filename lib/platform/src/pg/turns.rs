//! Turns: those who would wait for one lock of the database wait here first, one at a time and without a connection.
//!
//! Without it, each of them would wait on a connection of its own, and a process that has stopped with the lock in its
//! hands would take the whole pool from everybody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a turn is waited for; as long as a connection is.
const TURN_WAIT_MAX: Duration = Duration::from_secs(5);
/// Most that wait for one lock; more are told to come again at once.
const WAITING_MAX: usize = 1_024;

/// The turns of one process; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Mutex<HashMap<String, Line>>>);

/// Those who want one lock.
#[derive(Debug)]
struct Line {
    turn: Arc<Semaphore>,
    /// With the one whose turn it is.
    members: usize,
}

/// One's turn at a lock; ends when dropped.
#[derive(Debug)]
pub struct Turn {
    _place: Place,
    _permit: OwnedSemaphorePermit,
}

impl Turns {
    /// Waits until nobody else in this process is at the lock of this name.
    ///
    /// Errors: not in time, or too many wait; as for a lock that the database does not give in time.
    pub async fn take(&self, lock: &str) -> Result<Turn, sqlx::Error> {
        self.take_within(lock, TURN_WAIT_MAX).await
    }

    async fn take_within(&self, lock: &str, longest: Duration) -> Result<Turn, sqlx::Error> {
        let (place, turn) = self.queue(lock).ok_or(sqlx::Error::PoolTimedOut)?;
        match timeout(longest, turn.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn { _place: place, _permit: permit }),
            Ok(Err(_)) | Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    fn queue(&self, lock: &str) -> Option<(Place, Arc<Semaphore>)> {
        let mut lines = self.lines();
        let line = lines
            .entry(lock.to_owned())
            .or_insert_with(|| Line { turn: Arc::new(Semaphore::new(1)), members: 0 });
        if line.members > WAITING_MAX {
            return None;
        }
        line.members += 1;
        Some((Place { turns: self.clone(), lock: lock.to_owned() }, Arc::clone(&line.turn)))
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<String, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a line; the last one to leave takes the line away.
#[derive(Debug)]
struct Place {
    turns: Turns,
    lock: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.turns.lines();
        if let Some(line) = lines.get_mut(&self.lock) {
            line.members -= 1;
            if line.members == 0 {
                lines.remove(&self.lock);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn one_is_at_a_lock_and_others_come_after_it_or_are_sent_away() {
        let turns = Turns::default();
        let first = turns.take("acme").await.expect("free");
        assert!(turns.take_within("acme", SHORT).await.is_err(), "still taken");
        turns.take("beta").await.expect("another lock is another line");
        drop(first);
        turns.take("acme").await.expect("free again");
        assert!(turns.lines().is_empty(), "nobody waits, nothing is kept");
    }

    #[tokio::test]
    async fn a_line_has_an_end() {
        let turns = Turns::default();
        let _first = turns.take("acme").await.expect("free");
        let waiting: Vec<_> = (0..WAITING_MAX).map(|_| turns.queue("acme").expect("a place")).collect();
        let sent_away = timeout(SHORT, turns.take_within("acme", LONG)).await;
        assert!(sent_away.expect("at once").is_err());
        drop(waiting);
        assert_eq!(turns.lines()["acme"].members, 1);
    }
}
