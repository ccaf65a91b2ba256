//! Table `account`: the cores of accounts, without their lots.

use ledger_core::account::Core;
use ledger_core::value::id::AccountId;
use platform::pg::columns::{json_of, name, undecodable};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

/// Most characters of a name by which it is found: an index takes no row of more than 2,700 bytes.
pub const NAME_KEY_CHARACTERS_MAX: usize = 256;

/// Returns what an account's name is found by: its first characters in lower case.
///
/// Letter by letter, so that the beginning of a name has the beginning of its key. A letter whose lower case is several
/// letters stays, as in the migration that filled the column.
pub fn name_key(name: &str) -> String {
    name.chars().take(NAME_KEY_CHARACTERS_MAX).map(lower).collect()
}

fn lower(letter: char) -> char {
    let mut lower = letter.to_lowercase();
    if lower.len() == 1 { lower.next().unwrap_or(letter) } else { letter }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_whatever_its_case() {
        for (name, key) in [
            ("Acme GmbH", "acme gmbh"),
            ("ÉCLAIR", "éclair"),
            ("ΟΔΟΣ", "οδοσ"),
            ("Привет", "привет"),
            ("İstanbul", "İstanbul"),
            ("50%_\\", "50%_\\"),
            ("株式会社", "株式会社"),
            ("", ""),
        ] {
            assert_eq!(name_key(name), key);
        }
        assert_eq!(name_key(&"É".repeat(1_000)), "é".repeat(NAME_KEY_CHARACTERS_MAX));
    }

    #[test]
    fn the_key_of_a_beginning_is_the_beginning_of_the_key() {
        let every: Vec<char> = ('\0'..=char::MAX).collect();
        for part in every.chunks(NAME_KEY_CHARACTERS_MAX) {
            let name: String = part.iter().collect();
            let beginning: String = part[..part.len() / 2].iter().collect();
            assert!(name_key(&name).starts_with(&name_key(&beginning)));
            assert_eq!(name_key(&name).chars().count(), part.len());
        }
    }
}
