//! Published: the checkpoints and keys that the signer has made known. Nothing beyond the last checkpoint is served.

use ledger_core::value::time::Time;
use platform::pg::columns::{self, undecodable};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

/// A checkpoint, as the note that was published.
pub(super) struct Published {
    pub partition: i32,
    pub size: u64,
    pub note: String,
}

/// A public key of a partition's log.
pub(super) struct LogKey {
    pub partition: i32,
    pub origin: String,
    pub vkey: String,
    pub since: Time,
    /// None: signs now.
    pub until: Option<Time>,
}

/// Reads the last checkpoint of one partition.
pub(super) async fn last(
    connection: &mut PgConnection,
    partition: i32,
) -> Result<Option<Published>, sqlx::Error> {
    let last = "
        select partition, size, note
        from control.log_checkpoint
        where partition = $1
        order by size desc
        limit 1";
    let row = sqlx::query(last).bind(partition).fetch_optional(connection).await?;
    row.as_ref().map(published).transpose()
}

/// Reads the last checkpoint of each partition that has one.
pub(super) async fn last_of_each(
    connection: &mut PgConnection,
    partitions: i32,
) -> Result<Vec<Published>, sqlx::Error> {
    // One step into the index for each partition, whatever the number of checkpoints.
    let last = "
        select partition, size, note
        from generate_series(0, $1 - 1) as of
        cross join lateral (
            select partition, size, note
            from control.log_checkpoint
            where partition = of
            order by size desc
            limit 1
        ) as last
        order by partition";
    let rows = sqlx::query(last).bind(partitions).fetch_all(connection).await?;
    rows.iter().map(published).collect()
}

fn published(row: &PgRow) -> Result<Published, sqlx::Error> {
    let size: i64 = row.try_get("size")?;
    Ok(Published {
        partition: row.try_get("partition")?,
        size: u64::try_from(size).map_err(undecodable)?,
        note: row.try_get("note")?,
    })
}

/// Reads every key that has signed, by partition, the oldest first.
pub(super) async fn keys(connection: &mut PgConnection) -> Result<Vec<LogKey>, sqlx::Error> {
    let keys = "
        select partition, origin, vkey, since, until
        from control.log_key
        order by partition, since, vkey";
    let rows = sqlx::query(keys).fetch_all(connection).await?;
    let key = |row: &PgRow| {
        Ok(LogKey {
            partition: row.try_get("partition")?,
            origin: row.try_get("origin")?,
            vkey: row.try_get("vkey")?,
            since: columns::time(row, "since")?,
            until: columns::optional_time(row, "until")?,
        })
    };
    rows.iter().map(key).collect()
}
