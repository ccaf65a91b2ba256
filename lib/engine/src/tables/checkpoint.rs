//! Table `checkpoint`: each partition's progress, and the process that may fold it.

use platform::pg::{Schema, column};
use platform::position::Position;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;

/// A claimed partition, with its state at the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Claim {
    pub partition: i32,
    /// Random; names the claim.
    pub epoch: Uuid,
    pub next_offset: i64,
    /// Hash of the record before `next_offset`.
    pub last_leaf: Option<[u8; 32]>,
}

/// One partition's step in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub partition: i32,
    /// Epoch of the claim under which the batch was read.
    pub epoch: Uuid,
    pub old_offset: i64,
    pub new_offset: i64,
    /// Hash of the record before `new_offset`.
    pub last_leaf: [u8; 32],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct CheckpointRow {
    pub partition: i32,
    pub epoch: Option<Uuid>,
    pub next_offset: i64,
}

/// What a generation was folded by and from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Fold {
    pub fold_version: i32,
    pub log_id: Uuid,
}

/// Writes a random epoch into each partition's row, so that its former owner can no longer write.
///
/// Leaves out rows of another fold.
pub(crate) async fn claim(
    connection: &mut PgConnection,
    schema: Schema,
    fold: Fold,
    partitions: &[i32],
) -> Result<Vec<Claim>, sqlx::Error> {
    let epochs: Vec<Uuid> = partitions.iter().map(|_| Uuid::new_v4()).collect();
    let claim = format!(
        "insert into {schema}.checkpoint as c (partition, next_offset, epoch, last_leaf, fold_version, log_id)
         select partition, 0, epoch, null, $3, $4
         from unnest($1::int[], $2::uuid[]) as claim (partition, epoch)
         order by partition
         on conflict (partition) do update
         set epoch = excluded.epoch
         where c.fold_version = excluded.fold_version
           and c.log_id       = excluded.log_id
         returning partition, epoch, next_offset, last_leaf"
    );
    sqlx::query_as(AssertSqlSafe(claim))
        .bind(partitions)
        .bind(&epochs)
        .bind(fold.fold_version)
        .bind(fold.log_id)
        .fetch_all(connection)
        .await
}

/// Returns another fold that rows of a generation come from, if any.
pub(crate) async fn other_fold(
    connection: &mut PgConnection,
    schema: Schema,
    fold: Fold,
) -> Result<Option<Fold>, sqlx::Error> {
    let other = format!(
        "select fold_version, log_id
         from {schema}.checkpoint
         where fold_version <> $1
            or log_id       <> $2
         limit 1"
    );
    let other = sqlx::query_as(AssertSqlSafe(other)).bind(fold.fold_version).bind(fold.log_id);
    other.fetch_optional(connection).await
}

const ADVANCE: &str = "
    with moved as (
        update checkpoint as c
        set next_offset = step.new, last_leaf = step.leaf
        from unnest($1::int[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bytea[])
             as step (partition, epoch, old, new, leaf)
        where c.partition   = step.partition
          and c.epoch       = step.epoch
          and c.next_offset = step.old
        returning 1
    )
    select (select count(*) from moved) as moved,
           case when $7::text is not null then pg_notify($6, $7)::text end as notified";

/// Moves the checkpoint of every partition of a batch and notifies waiters; returns how many rows moved.
///
/// Fewer rows than steps means that a claim is gone.
pub(crate) async fn advance(
    tx: &mut PgConnection,
    channel: &str,
    notification: Option<String>,
    steps: &[Step],
) -> Result<usize, sqlx::Error> {
    let leaves: Vec<&[u8]> = steps.iter().map(|step| step.last_leaf.as_slice()).collect();
    let advanced = sqlx::query(ADVANCE)
        .bind(column(steps, |step| step.partition))
        .bind(column(steps, |step| step.epoch))
        .bind(column(steps, |step| step.old_offset))
        .bind(column(steps, |step| step.new_offset))
        .bind(leaves)
        .bind(channel)
        .bind(notification)
        .fetch_one(tx)
        .await?;
    let moved: i64 = advanced.try_get("moved")?;
    Ok(usize::try_from(moved).unwrap_or_default())
}

const LOCK: &str = "
    select partition
    from checkpoint
    where (partition, epoch) in (select * from unnest($1::int[], $2::uuid[]))
    order by partition
    for update";

/// Locks the rows of claims that are still valid and returns their number.
pub(crate) async fn lock(tx: &mut PgConnection, claims: &[Claim]) -> Result<usize, sqlx::Error> {
    let partitions = column(claims, |claim| claim.partition);
    let epochs = column(claims, |claim| claim.epoch);
    Ok(sqlx::query(LOCK).bind(partitions).bind(epochs).fetch_all(tx).await?.len())
}

/// Reads the rows of some partitions.
pub(crate) async fn rows(
    connection: &mut PgConnection,
    schema: Schema,
    partitions: &[i32],
) -> Result<Vec<CheckpointRow>, sqlx::Error> {
    let rows = format!(
        "select partition, epoch, next_offset
         from {schema}.checkpoint
         where partition = any($1)"
    );
    sqlx::query_as(AssertSqlSafe(rows)).bind(partitions).fetch_all(connection).await
}

/// Reads the next offset of every partition.
pub(crate) async fn next_offsets(
    connection: &mut PgConnection,
    schema: Schema,
) -> Result<Vec<Position>, sqlx::Error> {
    let all = format!("select partition, epoch, next_offset from {schema}.checkpoint");
    let rows: Vec<CheckpointRow> = sqlx::query_as(AssertSqlSafe(all)).fetch_all(connection).await?;
    let position = |row: CheckpointRow| Position { partition: row.partition, offset: row.next_offset };
    Ok(rows.into_iter().map(position).collect())
}

/// Reads the next offset of one partition in the caller's snapshot; `None` if nothing of it was folded.
pub async fn next_offset(connection: &mut PgConnection, partition: i32) -> Result<Option<i64>, sqlx::Error> {
    let next = sqlx::query_scalar("select next_offset from checkpoint where partition = $1");
    next.bind(partition).fetch_optional(connection).await
}
