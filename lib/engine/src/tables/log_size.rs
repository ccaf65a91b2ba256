//! Table `log_size`: how far each partition's transparency log has come. The fold writes it.

use sqlx::{AssertSqlSafe, PgConnection};

use platform::pg::Schema;

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

/// Moves a log from where it is thought to be; returns whether it was there.
pub(crate) async fn advance(tx: &mut PgConnection, step: LogStep) -> Result<bool, sqlx::Error> {
    let advance = "
        update log_size
        set size = $3, next_offset = $5
        where partition   = $1
          and size        = $2
          and next_offset = $4";
    let advance = sqlx::query(advance).bind(step.partition).bind(step.old_size).bind(step.new_size);
    let advance = advance.bind(step.old_offset).bind(step.new_offset);
    Ok(advance.execute(tx).await?.rows_affected() == 1)
}
