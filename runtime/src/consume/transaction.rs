//! One batch, one transaction, on a task of its own that nobody drops.

use sqlx::PgPool;

use super::decide::Step;
use super::{ConsumeOptions, Summary, Worker, checkpoint};
use crate::failpoint;
use crate::kafka::Record;
use crate::pg;

/// A transaction that hears nothing from us for so long is ended by the server: a lost process must not keep its rows.
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

async fn fold<W: Worker>(pool: &PgPool, options: &ConsumeOptions, worker: &mut W, batch: &Batch) -> Ended {
    let summary = match write(pool, options, worker, batch).await {
        Ok(Some(written)) => written,
        Ok(None) => return Ended::Fenced,
        Err(why) => return Ended::Failed(why),
    };
    let (transaction, summary) = summary;
    failpoint::hit(&format!("{}.before_commit", worker.name()));
    if let Err(error) = transaction.commit().await {
        return Ended::Unanswered(error.to_string());
    }
    failpoint::hit(&format!("{}.after_commit", worker.name()));
    Ended::Committed(summary)
}

type Written = (sqlx::Transaction<'static, sqlx::Postgres>, Summary);

/// Writes everything but the COMMIT; none where a claim is gone.
async fn write<W: Worker>(
    pool: &PgPool,
    options: &ConsumeOptions,
    worker: &mut W,
    batch: &Batch,
) -> Result<Option<Written>, String> {
    let postgres = |error: sqlx::Error| format!("postgres: {error}");
    let mut tx = pg::begin_write(pool, options.schema).await.map_err(postgres)?;
    sqlx::query("select set_config('idle_in_transaction_session_timeout', $1, true)")
        .bind(IDLE_IN_TRANSACTION_MAX)
        .execute(&mut *tx)
        .await
        .map_err(postgres)?;
    let moved = checkpoint::advance(&mut tx, options.schema, &options.notify_channel, &batch.steps)
        .await
        .map_err(postgres)?;
    if moved < batch.steps.len() {
        // Dropped, a transaction rolls back; waiting for it says that nothing of it is left.
        let _ = tx.rollback().await;
        return Ok(None);
    }
    let summary = if batch.records.is_empty() {
        Summary::default()
    } else {
        worker.apply(&mut tx, &batch.records).await.map_err(|error| error.to_string())?
    };
    Ok(Some((tx, summary)))
}
