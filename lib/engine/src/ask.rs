//! Asks the database with a bound: a server that falls silent costs a connection, not the asker.

use std::time::Duration;

use futures::future::BoxFuture;
use platform::pg;
use sqlx::{PgConnection, PgPool};
use tokio::time::timeout;

/// Longest wait for the answers to a question; the questions read or write a few rows by key.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Asks on a connection of the pool, which is closed if the answer does not come in time.
pub(crate) async fn ask<T, F>(pool: &PgPool, question: F) -> Result<T, sqlx::Error>
where
    F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>,
{
    let mut connection = pool.acquire().await?;
    if let Ok(answer) = timeout(ANSWER_MAX, question(&mut connection)).await {
        return answer;
    }
    drop(connection.detach());
    Err(pg::silence(ANSWER_MAX))
}
