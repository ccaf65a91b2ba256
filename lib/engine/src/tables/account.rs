//! Table `account`: the cores of accounts, without their lots.

use ledger_core::account::Core;
use ledger_core::value::id::AccountId;
use platform::pg::columns::{json_of, name, undecodable};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

/// A requested account, with or without a row.
#[derive(Debug)]
pub(crate) struct WantedRow {
    pub account: AccountId,
    /// None before its opening, and while it is halted.
    pub core: Option<Core>,
    pub halted: bool,
}

// One row per id; an account without a row may be halted, before its opening. The core of a halted account is not read:
// it may be what can't be read.
const WANTED: &str = "
    select wanted.account_id,
           case when halted.account_id is null then account.core::text end as core,
           halted.account_id is not null as halted
    from unnest($1::text[]) as wanted (account_id)
    left join account on account.account_id = wanted.account_id
    left join halted  on halted.account_id  = wanted.account_id and not halted.account_id = any($2)";

/// Reads accounts, one row for each id in any order; those that are resumed do not count as halted.
pub(crate) async fn wanted(
    tx: &mut PgConnection,
    ids: &[&str],
    resumed: &[&str],
) -> Result<Vec<WantedRow>, sqlx::Error> {
    sqlx::query(WANTED).bind(ids).bind(resumed).fetch_all(tx).await?.iter().map(read_wanted).collect()
}

fn read_wanted(row: &PgRow) -> Result<WantedRow, sqlx::Error> {
    let core: Option<&str> = row.try_get("core")?;
    let core = core.map(serde_json::from_str).transpose().map_err(undecodable)?;
    Ok(WantedRow { account: name(row, "account_id")?, core, halted: row.try_get("halted")? })
}

#[derive(Debug)]
pub(crate) struct CoreRow {
    pub offset: i64,
    pub core: Core,
}

const EXISTING: &str = r#"
    select "offset", core::text
    from account
    where account_id = any($1)"#;

pub(crate) async fn existing(tx: &mut PgConnection, ids: &[&str]) -> Result<Vec<CoreRow>, sqlx::Error> {
    let read = |row: &PgRow| Ok(CoreRow { offset: row.try_get("offset")?, core: json_of(row, "core")? });
    sqlx::query(EXISTING).bind(ids).fetch_all(tx).await?.iter().map(read).collect()
}
