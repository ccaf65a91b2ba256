//! Opens transactions in a generation's schema, and completes them even if the caller is dropped.
//!
//! A request's future is dropped when its client hangs up, and a transaction dropped between `begin` and its
//! answer goes back to the pool open (sqlx 0.9: `begin` is not cancel-safe). So [`read`] and [`write`] run the
//! whole transaction on a task of its own, which completes even if the caller is dropped.
//!
//! Each has an end on this side of the line, because a server that has gone silent ends nothing. Then the connection is
//! closed and not given back, so it does not matter where the transaction stood; a write may have been committed.

use std::panic;
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::Instrument;

use super::error::silence;
use super::schema::Schema;
use super::scope::Scope;

/// Longest single statement of a read; a longer one is cancelled, so that abandoned reads also end.
const READ_STATEMENT_SECONDS_MAX: u32 = 30;
/// Longest wait for a row that another transaction has locked.
const LOCK_SECONDS_MAX: u32 = 8;
/// A process silent for this long within a transaction counts as gone; shorter than others wait for its locks.
const IDLE_SECONDS_MAX: u32 = 4;

/// Longest read: longer than its longest statement, and shorter than the minute within which a silent database has to be
/// noticed.
pub const READ_MAX: Duration = Duration::from_secs(45);
/// Longest write.
const WRITE_MAX: Duration = Duration::from_secs(20);
/// Longest transaction that changes tables.
const MAINTENANCE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The same, and other systems are asked within: no statement and no pause is too long.
const MAINTENANCE_BEGINS: &str = "begin;
    set local statement_timeout = 0;
    set local lock_timeout = 0;
    set local idle_in_transaction_session_timeout = 0";

/// Opens a snapshot of one generation: repeatable read, read only, unqualified names in its schema.
///
/// Not for request handlers, whose futures may be dropped: use [`read`].
pub async fn begin_read(
    pool: &PgPool,
    schema: Schema,
) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    pool.begin_with(AssertSqlSafe(read_begins(schema))).await
}

fn read_begins(schema: Schema) -> String {
    format!(
        "begin isolation level repeatable read read only;
         set local search_path = {schema};
         set local statement_timeout = '{READ_STATEMENT_SECONDS_MAX}s'"
    )
}

fn read_of_begins(schema: Schema, scope: &Scope) -> String {
    format!("{}; set local ledger.account = '{}'", read_begins(schema), scope.setting())
}

/// Opens a snapshot of one generation as [`begin_read`], on a connection of the caller's own.
pub async fn begin_read_on(
    connection: &mut PgConnection,
    schema: Schema,
) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
    connection.begin_with(AssertSqlSafe(read_begins(schema))).await
}

/// Opens a transaction that may lock and write, unqualified names in one generation's schema; each statement sees what
/// was committed when it began.
///
/// Not for request handlers, whose futures may be dropped. A process that freezes while it holds locks loses them.
pub async fn begin_write_on(
    connection: &mut PgConnection,
    schema: Schema,
) -> Result<Transaction<'_, Postgres>, sqlx::Error> {
    let begin = format!(
        "begin;
         set local search_path = {schema};
         set local lock_timeout = '{LOCK_SECONDS_MAX}s';
         set local idle_in_transaction_session_timeout = '{IDLE_SECONDS_MAX}s'"
    );
    connection.begin_with(AssertSqlSafe(begin)).await
}

/// Runs `work` in one snapshot of a generation and returns its result.
///
/// ```ignore
/// let rows = pg::read(&pool, schema, |connection| Box::pin(async move {
///     sqlx::query("select …").fetch_all(connection).await
/// })).await?;
/// ```
pub async fn read<T, E, F>(pool: &PgPool, schema: Schema, work: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<sqlx::Error> + Send + 'static,
    F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
{
    on_own_task(pool, read_begins(schema), READ_MAX, work).await
}

/// Runs `work` in one snapshot of a generation that shows the rows of some accounts only, to the login of the reading
/// service.
pub async fn read_of<T, E, F>(pool: &PgPool, schema: Schema, scope: &Scope, work: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<sqlx::Error> + Send + 'static,
    F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
{
    read_of_within(pool, schema, scope, READ_MAX, work).await
}

/// Runs `work` as [`read_of`], for at most this long.
pub async fn read_of_within<T, E, F>(
    pool: &PgPool,
    schema: Schema,
    scope: &Scope,
    longest: Duration,
    work: F,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<sqlx::Error> + Send + 'static,
    F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
{
    on_own_task(pool, read_of_begins(schema, scope), longest, work).await
}

/// Runs `work` in one transaction on `control` (qualified names); commits if it returns `Ok`.
pub async fn write<T, E, F>(pool: &PgPool, work: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<sqlx::Error> + Send + 'static,
    F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
{
    on_own_task(pool, "begin".to_owned(), WRITE_MAX, work).await
}

/// Runs `work` in one transaction that changes tables or asks other systems, and takes the time that it takes.
pub async fn maintain<T, E, F>(pool: &PgPool, work: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<sqlx::Error> + Send + 'static,
    F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
{
    on_own_task(pool, MAINTENANCE_BEGINS.to_owned(), MAINTENANCE_MAX, work).await
}

/// Runs a transaction to its end even if the caller is dropped; forwards its panics to the caller.
async fn on_own_task<T, E, F>(pool: &PgPool, begin: String, longest: Duration, work: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<sqlx::Error> + Send + 'static,
    F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
{
    let (put_answer, mut answer) = oneshot::channel();
    let work: Work = Box::new(move |connection| {
        Box::pin(async move {
            let outcome = work(connection).await;
            let commits = outcome.is_ok();
            // The caller may be gone.
            let _ = put_answer.send(outcome);
            commits
        })
    });
    match tokio::spawn(transact(pool.clone(), begin, longest, work).in_current_span()).await {
        Ok(Ok(())) => answer.try_recv().unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed.into())),
        Ok(Err(error)) => Err(error.into()),
        Err(failure) if failure.is_panic() => panic::resume_unwind(failure.into_panic()),
        // Only when the process is ending.
        Err(_) => Err(sqlx::Error::WorkerCrashed.into()),
    }
}

/// Work within a transaction: it stores its own answer, and returns whether to commit.
///
/// Without type parameters, [`transact`] and the task that runs it are compiled once and not for every caller.
type Work = Box<dyn for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, bool> + Send>;

/// Begins a transaction, runs `work` in it, and commits it or rolls it back. Errors: the begin or the commit failed, or
/// the server was silent.
async fn transact(pool: PgPool, begin: String, longest: Duration, work: Work) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    if let Ok(ended) = timeout(longest, transact_on(&mut connection, begin, work)).await {
        return ended;
    }
    drop(connection.detach());
    Err(silence(longest))
}

async fn transact_on(connection: &mut PgConnection, begin: String, work: Work) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with(AssertSqlSafe(begin)).await?;
    if work(&mut transaction).await {
        return transaction.commit().await;
    }
    // The refusal is the answer; the pool closes a connection that can't roll back.
    let _ = transaction.rollback().await;
    Ok(())
}
