//! Runs one batch in one transaction, on a task of its own that is never dropped.

use platform::kafka::Record;
use platform::{failpoint, pg};
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};

use super::checkpoint;
use super::options::ConsumeOptions;
use super::worker::{Summary, Worker, WorkerError};
use crate::tables::checkpoint::{Claim, Step};

/// The server ends a transaction after this idle time, so that a lost process does not keep its rows locked.
const IDLE_IN_TRANSACTION_MAX: &str = "30s";

/// Records, and their checkpoint steps.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub records: Vec<Record>,
    pub steps: Vec<Step>,
}

#[derive(Debug)]
pub(super) enum Ended {
    Committed(Summary),
    /// Another process changed a checkpoint row; rolled back.
    Fenced,
    /// The generation is no longer live; rolled back.
    Retired,
    /// A failure before the COMMIT; rolled back.
    Failed(String),
    /// The answer to the COMMIT was lost.
    Unanswered(String),
}

/// Runs the batch on its own task, which finishes even if the caller is dropped; `None` if it panicked.
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

/// Runs the worker's part of new claims, also on a task of its own.
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

enum Written {
    Whole(Transaction<'static, Postgres>, Summary),
    Fenced,
    Retired,
}

/// Writes everything except the COMMIT.
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
    // Dropping it would roll back as well; waiting makes sure that the rollback has finished.
    let _ = tx.rollback().await;
    Ok(written)
}
