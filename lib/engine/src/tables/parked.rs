//! Table `parked`: the records of halted accounts.

use ledger_core::value::id::AccountId;
use platform::kafka::{Position, Record};
use platform::pg::Rows;
use platform::pg::columns::time;
use sqlx::{PgConnection, Row};

// A record is named by its place in the log: one that is parked already is the same.
const INSERT: &str = r#"
    insert into parked (account_id, partition, "offset", appended_at, reason, key, value)
    select *
    from unnest($1::text[], $2::int[], $3::bigint[], $4::timestamptz[], $5::text[], $6::bytea[], $7::bytea[])
    on conflict (account_id, "offset") do nothing"#;

pub(crate) fn collect(rows: &mut Rows, account: &AccountId, record: &Record, reason: &str) {
    rows.row()
        .text(account.as_str())
        .int(record.position.partition)
        .bigint(record.position.offset)
        .time(record.appended_at)
        .text(reason)
        .bytes(record.key.as_deref().unwrap_or_default())
        .bytes(record.value_bytes());
}

pub(crate) async fn insert(tx: &mut PgConnection, rows: &Rows) -> Result<(), sqlx::Error> {
    rows.send(tx, INSERT).await
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

/// Deletes and returns the next parked records of these accounts, at most so many, in order of account and offset.
pub(crate) async fn take(
    tx: &mut PgConnection,
    accounts: &[&str],
    records_max: usize,
) -> Result<Vec<Record>, sqlx::Error> {
    let records_max = i64::try_from(records_max).unwrap_or(i64::MAX);
    let rows = sqlx::query(TAKE).bind(accounts).bind(records_max).fetch_all(tx).await?;
    rows.iter()
        .map(|row| {
            Ok(Record {
                position: Position { partition: row.try_get("partition")?, offset: row.try_get("offset")? },
                appended_at: time(row, "appended_at")?,
                key: Some(row.try_get("key")?),
                value: Some(row.try_get("value")?),
            })
        })
        .collect()
}

/// Rewrites why the first parked record of an account is parked, after it has failed again.
pub(crate) async fn set_reason(
    tx: &mut PgConnection,
    account: &AccountId,
    reason: &str,
) -> Result<(), sqlx::Error> {
    let set = r#"
        update parked
        set reason = $2
        where account_id = $1
          and "offset" = (select min("offset") from parked where account_id = $1)"#;
    sqlx::query(set).bind(account.as_str()).bind(reason).execute(tx).await.map(drop)
}
