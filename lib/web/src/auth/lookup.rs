//! Lookups of keys that are not known: all that wait are looked up at once, so seldom that nobody can load the database
//! by sending made-up keys.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use platform::pg;
use sqlx::PgPool;
use tokio::time::{Instant, sleep_until};

use super::key::{self, StoredKey};
use crate::http::Problem;

/// Shortest pause between two lookups.
const PAUSE: Duration = Duration::from_millis(50);
/// Most keys that wait for one lookup.
const WAITING_MAX: usize = 10_000;
/// How long a missing key is not looked up again.
const MISSING_KEPT: Duration = Duration::from_secs(1);
/// Most missing keys remembered; beyond that, all are forgotten.
const MISSING_MAX: usize = 10_000;

/// A key with the time that it was asked for.
pub(super) type Found = Option<(Instant, Arc<StoredKey>)>;

pub(super) struct Lookups {
    pool: PgPool,
    /// The answers that are waited for, by key id.
    waiting: Mutex<HashMap<String, Arc<Answer>>>,
    /// When the last lookup began; its holder looks up for all who wait.
    turn: tokio::sync::Mutex<Option<Instant>>,
    missing: Mutex<HashMap<String, Instant>>,
}

type Answer = OnceLock<Result<Found, Problem>>;

impl Lookups {
    pub fn new(pool: PgPool) -> Self {
        Self {
            pool,
            waiting: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            missing: Mutex::default(),
        }
    }

    /// Finds a key; none if it does not exist or is revoked.
    pub async fn find(&self, key_id: &str) -> Result<Found, Problem> {
        if self.is_missing(key_id) {
            return Ok(None);
        }
        let answer = self.wait_for(key_id)?;
        let mut turn = self.turn.lock().await;
        if let Some(answer) = answer.get() {
            return answer.clone();
        }
        if let Some(last) = *turn {
            sleep_until(last + PAUSE).await;
        }
        *turn = Some(Instant::now());
        self.look_up_all().await;
        answer.get().cloned().unwrap_or_else(|| Err(Problem::unavailable("the key could not be looked up")))
    }

    /// A caller that is dropped here leaves the waiting as they are, for the next turn.
    async fn look_up_all(&self) {
        let asked_at = Instant::now();
        let asked: Vec<String> = {
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.keys().cloned().collect()
        };
        let ids: Vec<&str> = asked.iter().map(String::as_str).collect();
        let mut read = key::load_stored(pg::bounded(&self.pool), &ids).await.map_err(Problem::from);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for key_id in asked {
            let found = match &mut read {
                Ok(read) => Ok(read.remove(&key_id).map(|stored| (asked_at, Arc::new(stored)))),
                Err(problem) => Err(problem.clone()),
            };
            if let Ok(None) = found {
                self.note_missing(&key_id, asked_at);
            }
            if let Some(answer) = waiting.remove(&key_id) {
                // Only the holder of the turn answers, and each answer once.
                let _ = answer.set(found);
            }
        }
    }

    fn wait_for(&self, key_id: &str) -> Result<Arc<Answer>, Problem> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= WAITING_MAX && !waiting.contains_key(key_id) {
            return Err(Problem::too_many_requests("too many unknown keys at once"));
        }
        Ok(Arc::clone(waiting.entry(key_id.to_owned()).or_default()))
    }

    fn is_missing(&self, key_id: &str) -> bool {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.get(key_id).is_some_and(|at| at.elapsed() < MISSING_KEPT)
    }

    fn note_missing(&self, key_id: &str, at: Instant) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if missing.len() >= MISSING_MAX {
            missing.clear();
        }
        missing.insert(key_id.to_owned(), at);
    }
}
