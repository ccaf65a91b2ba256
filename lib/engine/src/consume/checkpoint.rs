//! Claims, moves and reads the checkpoint's rows.

use std::collections::BTreeMap;

use platform::pg::Schema;
use platform::position::Position;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use uuid::Uuid;

use super::decide::{CheckpointRow, Step};
use super::error::Error;
use super::options::Source;
use crate::progress_channel;

/// A partition as its new owner found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub partition: i32,
    pub epoch: Uuid,
    pub next_offset: i64,
    pub last_leaf: Option<[u8; 32]>,
}

/// Writes a random epoch into each partition's row, so that its former owner can't write any more.
///
/// Refuses where another fold version or another log stands.
pub(super) async fn claim(
    source: &Source,
    schema: Schema,
    fold_version: i32,
    partitions: &[i32],
) -> Result<Vec<Claim>, Error> {
    let epochs: Vec<Uuid> = partitions.iter().map(|_| Uuid::new_v4()).collect();
    let claim = format!(
        "insert into {schema}.checkpoint as c (partition, next_offset, epoch, last_leaf, fold_version, log_id)
         select partition, 0, epoch, null, $3, $4 from unnest($1::int[], $2::uuid[]) as claim (partition, epoch)
         order by partition
         on conflict (partition) do update set epoch = excluded.epoch
         where c.fold_version = excluded.fold_version and c.log_id = excluded.log_id
         returning partition, epoch, next_offset, last_leaf"
    );
    let rows: Vec<(i32, Uuid, i64, Option<[u8; 32]>)> = sqlx::query_as(AssertSqlSafe(claim))
        .bind(partitions)
        .bind(&epochs)
        .bind(fold_version)
        .bind(source.identity.log_id)
        .fetch_all(&source.pool)
        .await?;
    if rows.len() < partitions.len() {
        return Err(misfit(source, schema, fold_version).await?);
    }
    let claim_of =
        |(partition, epoch, next_offset, last_leaf)| Claim { partition, epoch, next_offset, last_leaf };
    Ok(rows.into_iter().map(claim_of).collect())
}

/// Returns why this binary or this log does not fit a generation.
async fn misfit(source: &Source, schema: Schema, fold_version: i32) -> Result<Error, Error> {
    let odd = format!(
        "select fold_version, log_id from {schema}.checkpoint where fold_version <> $1 or log_id <> $2 limit 1"
    );
    let row: Option<(i32, Uuid)> = sqlx::query_as(AssertSqlSafe(odd))
        .bind(fold_version)
        .bind(source.identity.log_id)
        .fetch_optional(&source.pool)
        .await?;
    Ok(Error::Refused(match row {
        Some((theirs, _)) if theirs > fold_version => {
            format!(
                "{schema} was folded by version {theirs}, this binary is older and folds by {fold_version}"
            )
        }
        Some((theirs, _)) if theirs < fold_version => {
            format!(
                "{schema} was folded by version {theirs}, this binary folds by {fold_version}: rebuild into a new generation"
            )
        }
        Some((_, theirs)) => {
            format!("{schema} was folded from log {theirs}, the journal is log {}", source.identity.log_id)
        }
        None => format!("{schema} changed while it was claimed"),
    }))
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
    let partitions: Vec<i32> = steps.iter().map(|step| step.partition).collect();
    let epochs: Vec<Uuid> = steps.iter().map(|step| step.epoch).collect();
    let old: Vec<i64> = steps.iter().map(|step| step.old_offset).collect();
    let new: Vec<i64> = steps.iter().map(|step| step.new_offset).collect();
    let leaves: Vec<&[u8]> = steps.iter().map(|step| step.last_leaf.as_slice()).collect();
    let (moved, _notified): (i64, Option<String>) = sqlx::query_as(
        "with moved as (
             update checkpoint as c set next_offset = step.new, last_leaf = step.leaf
             from unnest($1::int[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bytea[])
               as step (partition, epoch, old, new, leaf)
             where c.partition = step.partition and c.epoch = step.epoch and c.next_offset = step.old
             returning 1
         )
         select (select count(*) from moved),
                case when $7::text is not null then pg_notify($6, $7)::text end",
    )
    .bind(&partitions)
    .bind(&epochs)
    .bind(&old)
    .bind(&new)
    .bind(&leaves)
    .bind(channel)
    .bind(notification(schema, steps))
    .fetch_one(tx)
    .await?;
    Ok(usize::try_from(moved).unwrap_or_default())
}

/// Returns the notification of a batch; none where the batch has more partitions than a notification can name, and the
/// waiters' poll finds it.
fn notification(schema: Schema, steps: &[Step]) -> Option<String> {
    let next_offsets: Vec<Position> =
        steps.iter().map(|step| Position { partition: step.partition, offset: step.new_offset }).collect();
    progress_channel::payload(schema, &next_offsets)
}

/// Locks the rows of claims that still hold and returns their number.
pub(super) async fn lock(tx: &mut PgConnection, claims: &[Claim]) -> Result<usize, sqlx::Error> {
    let partitions: Vec<i32> = claims.iter().map(|claim| claim.partition).collect();
    let epochs: Vec<Uuid> = claims.iter().map(|claim| claim.epoch).collect();
    let held: Vec<i32> = sqlx::query_scalar(
        "select partition from checkpoint
         where (partition, epoch) in (select * from unnest($1::int[], $2::uuid[]))
         order by partition
         for update",
    )
    .bind(&partitions)
    .bind(&epochs)
    .fetch_all(tx)
    .await?;
    Ok(held.len())
}

/// Reads the rows as they are now.
pub(super) async fn rows(
    pool: &PgPool,
    schema: Schema,
    partitions: &[i32],
) -> Result<BTreeMap<i32, CheckpointRow>, sqlx::Error> {
    let read =
        format!("select partition, epoch, next_offset from {schema}.checkpoint where partition = any($1)");
    let rows: Vec<(i32, Option<Uuid>, i64)> =
        sqlx::query_as(AssertSqlSafe(read)).bind(partitions).fetch_all(pool).await?;
    let row = |(partition, epoch, next_offset)| (partition, CheckpointRow { epoch, next_offset });
    Ok(rows.into_iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use platform::pg::Model;

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
        // Postgres takes 8,000 bytes less one.
        assert!(notification_of(600).is_some_and(|text| text.len() < 8_000));
        assert_eq!(notification_of(1_000), None);
    }
}
