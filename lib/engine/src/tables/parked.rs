//! Table `parked`: the records of halted accounts.

use ledger_core::value::id::AccountId;
use platform::kafka::{Position, Record};
use platform::pg::Rows;
use platform::pg::columns::{name, time};
use rustc_hash::FxHashSet;
use sqlx::{PgConnection, Row};

/// Parked records folded at a time when their account resumes.
const RESUMED_RECORDS_MAX: i64 = 5_000;
/// Halted accounts read at a time: each has a record of up to 64 KiB.
const HALTED_ACCOUNTS_MAX: i64 = 1_000;

const HEADS: &str = include_str!("halted_heads.sql");

const INSERT: &str = r#"
    insert into parked (account_id, partition, "offset", appended_at, reason, key, value)
    select *
    from unnest($1::text[], $2::int[], $3::bigint[], $4::timestamptz[], $5::text[], $6::bytea[], $7::bytea[])"#;

pub(crate) fn collect(rows: &mut Rows, account: &AccountId, record: &Record, reason: &str) {
    rows.row()
        .text(account.as_str())
        .int(record.position.partition)
        .bigint(record.position.offset)
        .time(record.appended_at)
        .text(reason)
        .bytes(record.key.as_deref().unwrap_or_default())
        .bytes(&record.value);
}

pub(crate) async fn insert(tx: &mut PgConnection, rows: &Rows) -> Result<(), sqlx::Error> {
    rows.send(tx, INSERT).await
}

/// Returns the next halted accounts after the given one, each with the record that halts it.
pub(crate) async fn heads(
    tx: &mut PgConnection,
    partitions: &[i32],
    after: &str,
) -> Result<Vec<(AccountId, Vec<u8>)>, sqlx::Error> {
    let rows =
        sqlx::query(HEADS).bind(partitions).bind(after).bind(HALTED_ACCOUNTS_MAX).fetch_all(tx).await?;
    rows.iter().map(|row| Ok((name(row, "account_id")?, row.try_get("value")?))).collect()
}

const TAKE: &str = r#"
    with taken as (
        delete from parked
        where ctid = any(array(select ctid
                               from parked
                               where account_id = any($1)
                               order by account_id, "offset"
                               limit $2))
        returning parked.*
    )
    select partition, "offset", appended_at, key, value
    from taken
    order by account_id, "offset""#;

/// Deletes and returns the next parked records of these accounts, in order of account and offset.
pub(crate) async fn take(
    tx: &mut PgConnection,
    accounts: &FxHashSet<AccountId>,
) -> Result<Vec<Record>, sqlx::Error> {
    let accounts: Vec<&str> = accounts.iter().map(AccountId::as_str).collect();
    let rows = sqlx::query(TAKE).bind(accounts).bind(RESUMED_RECORDS_MAX).fetch_all(tx).await?;
    rows.iter()
        .map(|row| {
            Ok(Record {
                position: Position { partition: row.try_get("partition")?, offset: row.try_get("offset")? },
                appended_at: time(row, "appended_at")?,
                key: Some(row.try_get("key")?),
                value: row.try_get("value")?,
            })
        })
        .collect()
}
