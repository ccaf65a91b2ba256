//! Detects changes of open holds for the streams of a process.
//!
//! Other processes and time alone change holds in `control`, without any projection. One small statement a second, made
//! by the first stream that needs it, covers every account with a stream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledger_core::value::id::AccountId;
use platform::pg::{self, PgPool, Schema, Scope};
use tokio::time::Instant;

/// Pause between two statements, whatever the number of streams.
pub(crate) const HOLDING_POLL: Duration = Duration::from_secs(1);

/// Changes whenever the account's open holds do; none before its first hold.
pub(crate) type Mark = Option<String>;

/// The followed accounts, and their marks at the last read.
#[derive(Default)]
pub(crate) struct Holding {
    /// The number of followers of each.
    followed: Mutex<BTreeMap<AccountId, usize>>,
    seen: tokio::sync::Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    at: Option<Instant>,
    marks: BTreeMap<String, String>,
}

// The last transaction that moved the gate, not the held amount: that may have returned to an earlier value. Expiry
// moves no gate. The clock is read once, so that the index is used.
const MARKS: &str = "
    select gate.account_id,
           gate.xmin::text || '/' || coalesce((select sum(hold.counts)
                                               from control.hold
                                               where hold.account_id = gate.account_id
                                                 and hold.state      = 'held'
                                                 and hold.expires_at <= (select clock_timestamp())), 0)::text
    from control.gate
    where gate.account_id = any($1)";

impl Holding {
    /// Follows an account until the returned value is dropped.
    pub fn follow(self: &Arc<Self>, account: AccountId) -> Following {
        *self.followed().entry(account.clone()).or_default() += 1;
        Following { holding: Arc::clone(self), account }
    }

    fn followed(&self) -> std::sync::MutexGuard<'_, BTreeMap<AccountId, usize>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn mark(&self, pool: &PgPool, schema: Schema, account: &AccountId) -> Result<Mark, sqlx::Error> {
        let mut seen = self.seen.lock().await;
        if seen.at.is_none_or(|at| at.elapsed() >= HOLDING_POLL) {
            // Set before the answer, so that an unavailable database receives no more queries.
            seen.at = Some(Instant::now());
            let accounts: Vec<String> = self.followed().keys().map(ToString::to_string).collect();
            // Of all accounts that anybody follows; each follower gets the mark of its own.
            let rows: Vec<(String, String)> = pg::read_of(pool, schema, &Scope::All, |connection| {
                Box::pin(async move { sqlx::query_as(MARKS).bind(accounts).fetch_all(connection).await })
            })
            .await?;
            seen.marks = rows.into_iter().collect();
        }
        Ok(seen.marks.get(account.as_str()).cloned())
    }
}

/// An account that a stream follows.
pub(crate) struct Following {
    holding: Arc<Holding>,
    account: AccountId,
}

impl Following {
    /// Returns the account's mark, less than [`HOLDING_POLL`] old.
    pub async fn mark(&self, pool: &PgPool, schema: Schema) -> Result<Mark, sqlx::Error> {
        self.holding.mark(pool, schema, &self.account).await
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut followed = self.holding.followed();
        if let Some(count) = followed.get_mut(&self.account) {
            *count -= 1;
            if *count == 0 {
                followed.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_asked_about_while_somebody_follows_it() {
        let holding = Arc::new(Holding::default());
        let acme = AccountId::new("acme").expect("an id");
        let (first, second) = (holding.follow(acme.clone()), holding.follow(acme.clone()));
        assert_eq!(holding.followed().get(&acme), Some(&2));
        drop(first);
        assert_eq!(holding.followed().get(&acme), Some(&1));
        drop(second);
        assert!(holding.followed().is_empty());
    }
}
