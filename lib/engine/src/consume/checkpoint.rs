//! Claims partitions and moves their checkpoints.

use std::collections::BTreeMap;

use platform::pg::Schema;
use platform::position::Position;
use sqlx::{PgConnection, PgPool};

use super::error::Error;
use super::options::Source;
use crate::ask::ask;
use crate::progress_channel;
use crate::tables::checkpoint::{self, CheckpointRow, Claim, Fold, Step};

/// Claims partitions, so that their former owners can no longer write.
///
/// Refuses rows of another fold version or another log.
pub(super) async fn claim(
    source: &Source,
    schema: Schema,
    fold_version: i32,
    partitions: &[i32],
) -> Result<Vec<Claim>, Error> {
    let fold = Fold { fold_version, log_id: source.identity.log_id };
    let partitions = partitions.to_vec();
    let claimed = ask(&source.pool, move |connection| {
        Box::pin(async move {
            let claims = checkpoint::claim(&mut *connection, schema, fold, &partitions).await?;
            if claims.len() == partitions.len() {
                return Ok(Ok(claims));
            }
            Ok(Err(checkpoint::other_fold(connection, schema, fold).await?))
        })
    });
    claimed.await?.map_err(|other| Error::Refused(misfit(schema, fold, other)))
}

/// Returns why this binary or this log does not fit a generation.
fn misfit(schema: Schema, ours: Fold, theirs: Option<Fold>) -> String {
    let Some(Fold { fold_version, log_id }) = theirs else {
        return format!("{schema} changed while it was claimed");
    };
    let was = format!("{schema} was folded by version {fold_version}");
    let binary = ours.fold_version;
    if fold_version > binary {
        format!("{was}, this binary is older and folds by {binary}")
    } else if fold_version < binary {
        format!("{was}, this binary folds by {binary}: rebuild into a new generation")
    } else {
        format!("{schema} was folded from log {log_id}, the journal is log {}", ours.log_id)
    }
}

/// Moves the checkpoint of every partition of a batch and notifies waiters; returns how many rows moved.
///
/// First statement of a batch's transaction: fewer rows than steps means that a claim is gone.
pub(super) async fn advance(
    tx: &mut PgConnection,
    schema: Schema,
    channel: &str,
    steps: &[Step],
) -> Result<usize, sqlx::Error> {
    checkpoint::advance(tx, channel, notification(schema, steps), steps).await
}

/// Returns the notification of a batch; none where the batch has more partitions than a notification can name, and the
/// waiters' poll finds it.
fn notification(schema: Schema, steps: &[Step]) -> Option<String> {
    let next_offsets: Vec<Position> =
        steps.iter().map(|step| Position { partition: step.partition, offset: step.new_offset }).collect();
    progress_channel::payload(schema, &next_offsets)
}

/// Reads the rows as they are now, by their partition.
pub(super) async fn rows(
    pool: &PgPool,
    schema: Schema,
    partitions: &[i32],
) -> Result<BTreeMap<i32, CheckpointRow>, sqlx::Error> {
    let partitions = partitions.to_vec();
    let rows = ask(pool, move |connection| {
        Box::pin(async move { checkpoint::rows(connection, schema, &partitions).await })
    });
    Ok(rows.await?.into_iter().map(|row| (row.partition, row)).collect())
}

#[cfg(test)]
mod tests {
    use platform::pg::Model;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_batch_of_more_partitions_than_a_notification_can_name_has_no_notification() {
        let notification_of = |partitions: i32| {
            let step = |partition| Step {
                partition,
                epoch: Uuid::nil(),
                old_offset: 0,
                new_offset: 1_000_000,
                last_leaf: [0; 32],
            };
            let steps: Vec<Step> = (0..partitions).map(step).collect();
            notification(Schema { model: Model::ReadModel, generation: 1 }, &steps)
        };
        assert_eq!(notification_of(2).as_deref(), Some("read_model_1 0:1000000,1:1000000"));
        // Postgres accepts less than 8,000 bytes.
        assert!(notification_of(600).is_some_and(|text| text.len() < 8_000));
        assert_eq!(notification_of(1_000), None);
    }
}
