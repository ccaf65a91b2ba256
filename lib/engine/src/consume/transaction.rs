//! Runs one batch in one transaction, on a task of its own that is never dropped.

use platform::kafka::Record;
use platform::{failpoint, pg};
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};

use super::checkpoint;
use super::options::ConsumeOptions;
use super::worker::{Summary, Worker, WorkerError};
use crate::tables::checkpoint::{Claim, Step};

/// A transaction that is idle for so long is ended by the server: a lost process must not keep its rows.
const IDLE_IN_TRANSACTION_MAX: &str = "30s";

/// Records, and how they move the checkpoint.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub records: Vec<Record>,
    pub steps: Vec<Step>,
}

/// How a transaction ended.
#[derive(Debug)]
pub(super) enum Ended {
    Committed(Summary),
    /// A checkpoint row was not as we left it; rolled back.
    Fenced,
    /// The generation is not the live one any more; rolled back.
    Retired,
    /// Something went wrong before the COMMIT; rolled back.
    Failed(String),
    /// The answer to the COMMIT was lost.
    Unanswered(String),
}

/// Runs the batch on its own task, which ends by itself whatever becomes of the caller; none when it panicked.
pub(super) async fn run<W: Worker>(
    pool: &PgPool,
    options: &ConsumeOptions,
    mut worker: W,
    batch: Batch,
) -> Option<(W, Batch, Ended)> {
    let (pool, options) = (pool.clone(), options.clone());
    let task = tokio::spawn(async move {
        let ended = fold(&pool, &options, &mut worker, &batch).await;
        (worker, batch, ended)
    });
    task.await.ok()
}

/// Lets the worker do what it has to do with new claims, on a task of its own as well.
pub(super) async fn run_claimed<W: Worker>(
    pool: &PgPool,
    options: &ConsumeOptions,
    mut worker: W,
    claims: Vec<Claim>,
) -> Option<(W, Ended)> {
    let (pool, options) = (pool.clone(), options.clone());
    let task = tokio::spawn(async move {
        let ended = commit(write_claimed(&pool, &options, &mut worker, &claims).await).await;
        (worker, ended)
    });
    task.await.ok()
}

async fn fold<W: Worker>(pool: &PgPool, options: &ConsumeOptions, worker: &mut W, batch: &Batch) -> Ended {
    let written = write(pool, options, worker, batch).await;
    if matches!(written, Ok(Written::Whole(..))) {
        failpoint::hit(&format!("{}.before_commit", worker.name()));
    }
    let ended = commit(written).await;
    if matches!(ended, Ended::Committed(_)) {
        failpoint::hit(&format!("{}.after_commit", worker.name()));
    }
    ended
}

async fn commit(written: Result<Written, WorkerError>) -> Ended {
    match written {
        Err(why) => Ended::Failed(why.to_string()),
        Ok(Written::Fenced) => Ended::Fenced,
        Ok(Written::Retired) => Ended::Retired,
        Ok(Written::Whole(transaction, summary)) => match transaction.commit().await {
            Ok(()) => Ended::Committed(summary),
            Err(error) => Ended::Unanswered(error.to_string()),
        },
    }
}

/// What a transaction came to before its COMMIT.
enum Written {
    Whole(Transaction<'static, Postgres>, Summary),
    Fenced,
    Retired,
}

/// Writes everything but the COMMIT.
async fn write<W: Worker>(
    pool: &PgPool,
    options: &ConsumeOptions,
    worker: &mut W,
    batch: &Batch,
) -> Result<Written, WorkerError> {
    let mut tx = begin(pool, options).await?;
    if options.follows_live && !pg::keep_live(&mut tx, options.schema).await? {
        return leave(tx, Written::Retired).await;
    }
    let moved = checkpoint::advance(&mut tx, options.schema, &options.notify_channel, &batch.steps).await?;
    if moved < batch.steps.len() {
        return leave(tx, Written::Fenced).await;
    }
    let summary = match batch.records.as_slice() {
        [] => Summary::default(),
        records => worker.apply(&mut tx, records).await?,
    };
    Ok(Written::Whole(tx, summary))
}

async fn write_claimed<W: Worker>(
    pool: &PgPool,
    options: &ConsumeOptions,
    worker: &mut W,
    claims: &[Claim],
) -> Result<Written, WorkerError> {
    let mut tx = begin(pool, options).await?;
    if options.follows_live && !pg::keep_live(&mut tx, options.schema).await? {
        return leave(tx, Written::Retired).await;
    }
    if crate::tables::checkpoint::lock(&mut tx, claims).await? < claims.len() {
        return leave(tx, Written::Fenced).await;
    }
    let partitions: Vec<i32> = claims.iter().map(|claim| claim.partition).collect();
    let summary = worker.claimed(&mut tx, &partitions).await?;
    Ok(Written::Whole(tx, summary))
}

async fn begin(
    pool: &PgPool,
    options: &ConsumeOptions,
) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let begin = format!(
        "begin;
         set local search_path = {};
         set local idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_MAX}'",
        options.schema
    );
    pool.begin_with(AssertSqlSafe(begin)).await
}

async fn leave(tx: Transaction<'static, Postgres>, written: Written) -> Result<Written, WorkerError> {
    // Dropped, it would roll back as well; waiting for it says that nothing of it is left.
    let _ = tx.rollback().await;
    Ok(written)
}
