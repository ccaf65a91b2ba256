//! Table `halted`: the accounts that can't be folded on, each with the reason.

use ledger_core::value::id::AccountId;
use ledger_core::value::time::Time;
use platform::pg::columns::{name, time, variant};
use platform::pg::{Rows, Schema};
use platform::position::Position;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};

/// Halted accounts read at a time: each comes with a record of up to 64 KiB.
const ACCOUNTS_MAX: i64 = 1_000;

/// Why an account is halted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// This binary does not know the type of its next event; a newer one resumes it.
    UnknownType,
    /// Folding its next event fails for a reason of the event's own; an operator resumes it.
    Failed,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::UnknownType => "unknown_type",
            Kind::Failed => "failed",
        }
    }
}

/// A halted account, as operators and callers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Halt {
    pub account_id: AccountId,
    pub kind: Kind,
    /// The unknown type, or how folding the record fails.
    pub reason: String,
    /// The record that halts it.
    pub position: Position,
    /// When that record was appended: the account's figures are of before.
    pub since: Time,
    /// Whether the worker is about to try again.
    pub resume: bool,
}

/// Collects a halt; a later one of the same account replaces it.
pub(crate) fn collect(rows: &mut Rows, account: &AccountId, partition: i32, kind: Kind, reason: &str) {
    rows.row().text(account.as_str()).int(partition).text(kind.as_str()).text(reason);
}

const INSERT: &str = "
    insert into halted (account_id, partition, kind, reason, resume)
    select account_id, partition, kind, reason, false
    from unnest($1::text[], $2::int[], $3::text[], $4::text[]) as new (account_id, partition, kind, reason)
    on conflict (account_id) do update
    set kind   = excluded.kind,
        reason = excluded.reason,
        resume = false";

pub(crate) async fn insert(tx: &mut PgConnection, rows: &Rows) -> Result<(), sqlx::Error> {
    rows.send(tx, INSERT).await
}

/// Records that an account still can't be folded on.
pub(crate) async fn fail(
    tx: &mut PgConnection,
    account: &AccountId,
    reason: &str,
) -> Result<(), sqlx::Error> {
    let fail = "update halted set kind = 'failed', reason = $2, resume = false where account_id = $1";
    sqlx::query(fail).bind(account.as_str()).bind(reason).execute(tx).await.map(drop)
}

/// Deletes the halts of accounts that have no parked record left.
pub(crate) async fn release(tx: &mut PgConnection, accounts: &[&str]) -> Result<(), sqlx::Error> {
    let release = "
        delete from halted
        where account_id = any($1)
          and not exists (select from parked where parked.account_id = halted.account_id)";
    sqlx::query(release).bind(accounts).execute(tx).await.map(drop)
}

/// A halted account with the record that halts it.
#[derive(Debug)]
pub(crate) struct Head {
    pub account: AccountId,
    /// An operator asked for it.
    pub resume: bool,
    pub record: Vec<u8>,
}

/// Returns the next halted accounts that may go on: by a newer binary, or because an operator asked for it.
///
/// In order of their ids after the given one; with `asked`, only those that an operator asked for.
pub(crate) async fn heads(
    tx: &mut PgConnection,
    partitions: &[i32],
    after: &str,
    asked: bool,
) -> Result<Vec<Head>, sqlx::Error> {
    let heads = r#"
        select halted.account_id, halted.resume, head.value
        from halted
        cross join lateral (select value
                            from parked
                            where parked.account_id = halted.account_id
                            order by parked.account_id, parked."offset"
                            limit 1) as head
        where halted.partition = any($1)
          and halted.account_id > $2
          and (halted.resume or not $3 and halted.kind = 'unknown_type')
        order by halted.account_id
        limit $4"#;
    let heads = sqlx::query(heads).bind(partitions).bind(after).bind(asked).bind(ACCOUNTS_MAX);
    let read = |row: &PgRow| {
        Ok(Head {
            account: name(row, "account_id")?,
            resume: row.try_get("resume")?,
            record: row.try_get("value")?,
        })
    };
    heads.fetch_all(tx).await?.iter().map(read).collect()
}

/// Counts the halted accounts of partitions, and tells whether an operator wants any of them to go on.
pub(crate) async fn count(
    connection: &mut PgConnection,
    schema: Schema,
    partitions: &[i32],
) -> Result<(i64, bool), sqlx::Error> {
    let count = format!(
        "select count(*), coalesce(bool_or(resume), false)
         from {schema}.halted
         where partition = any($1)"
    );
    sqlx::query_as(AssertSqlSafe(count)).bind(partitions).fetch_one(connection).await
}

/// Selects the halts that a statement on `halted` returns.
fn select(schema: Schema, rows: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        r#"with stopped as ({rows})
           select stopped.account_id, stopped.kind, stopped.reason, stopped.resume, head.partition, head."offset",
                  head.appended_at
           from stopped
           cross join lateral (select partition, "offset", appended_at
                               from {schema}.parked
                               where parked.account_id = stopped.account_id
                               order by parked.account_id, parked."offset"
                               limit 1) as head
           order by stopped.account_id"#
    ))
}

fn read(row: &PgRow) -> Result<Halt, sqlx::Error> {
    Ok(Halt {
        account_id: name(row, "account_id")?,
        kind: variant(row, "kind")?,
        reason: row.try_get("reason")?,
        position: Position { partition: row.try_get("partition")?, offset: row.try_get("offset")? },
        since: time(row, "appended_at")?,
        resume: row.try_get("resume")?,
    })
}

/// Returns the halt of an account in a generation; `None` if it is folded on.
pub async fn of(
    connection: &mut PgConnection,
    schema: Schema,
    account: &AccountId,
) -> Result<Option<Halt>, sqlx::Error> {
    let halt = select(schema, &format!("select * from {schema}.halted where account_id = $1"));
    let row = sqlx::query(halt).bind(account.as_str()).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// Lets an account be folded on, or all that failed; returns their halts.
///
/// The worker that owns the partition tries within seconds; if that fails again, the account is halted again.
pub async fn resume(
    connection: &mut PgConnection,
    schema: Schema,
    account: Option<&AccountId>,
) -> Result<Vec<Halt>, sqlx::Error> {
    let marked = format!(
        "update {schema}.halted
         set resume = true
         where case when $1::text is null then kind = 'failed' else account_id = $1 end
         returning *"
    );
    let rows = sqlx::query(select(schema, &marked)).bind(account.map(AccountId::as_str));
    rows.fetch_all(connection).await?.iter().map(read).collect()
}
