//! Table `log_size`: how far each partition's transparency log has come. The fold writes it.

use platform::pg::{Schema, column};
use sqlx::{AssertSqlSafe, PgConnection};

/// A partition's log.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LogSize {
    pub partition: i32,
    /// How many entries it has.
    pub size: i64,
    /// Every record before this offset is in the log, and none from it on.
    pub next_offset: i64,
    /// That of the genesis record; key hashes are made with it.
    pub salt: Vec<u8>,
}

/// Reads the logs of some partitions in the caller's generation; a partition without a log is left out.
pub async fn read(connection: &mut PgConnection, partitions: &[i32]) -> Result<Vec<LogSize>, sqlx::Error> {
    let read = "select partition, size, next_offset, salt from log_size where partition = any($1)";
    sqlx::query_as(read).bind(partitions).fetch_all(connection).await
}

/// Reads the logs of some partitions in a generation.
pub async fn read_in(
    connection: &mut PgConnection,
    schema: Schema,
    partitions: &[i32],
) -> Result<Vec<LogSize>, sqlx::Error> {
    let read = format!(
        "select partition, size, next_offset, salt
         from {schema}.log_size
         where partition = any($1)"
    );
    sqlx::query_as(AssertSqlSafe(read)).bind(partitions).fetch_all(connection).await
}

/// Begins a partition's log, empty; leaves it as it is where there is one.
pub(crate) async fn begin(tx: &mut PgConnection, partition: i32, salt: &[u8]) -> Result<(), sqlx::Error> {
    let begin = "
        insert into log_size (partition, size, next_offset, salt)
        values ($1, 0, 0, $2)
        on conflict (partition) do nothing";
    sqlx::query(begin).bind(partition).bind(salt).execute(tx).await.map(drop)
}

/// One log's step in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogStep {
    pub partition: i32,
    pub old_size: i64,
    pub new_size: i64,
    pub old_offset: i64,
    pub new_offset: i64,
}

const ADVANCE: &str = "
    update log_size as log
    set size = step.new_size, next_offset = step.new_offset
    from unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
         as step (partition, old_size, new_size, old_offset, new_offset)
    where log.partition   = step.partition
      and log.size        = step.old_size
      and log.next_offset = step.old_offset
    returning log.partition";

/// Moves logs from where they are thought to be; returns the partitions of those that were there.
pub(crate) async fn advance(tx: &mut PgConnection, steps: &[LogStep]) -> Result<Vec<i32>, sqlx::Error> {
    let advance = sqlx::query_scalar(ADVANCE)
        .bind(column(steps, |step| step.partition))
        .bind(column(steps, |step| step.old_size))
        .bind(column(steps, |step| step.new_size))
        .bind(column(steps, |step| step.old_offset))
        .bind(column(steps, |step| step.new_offset));
    advance.fetch_all(tx).await
}
