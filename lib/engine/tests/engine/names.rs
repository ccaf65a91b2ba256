//! Names: a migration says of the names before it what the projector says of those after it.

use anyhow::{Result, ensure};
use engine::tables::account::{NAME_KEY_CHARACTERS_MAX, name_key};
use platform::pg;
use serde_json::json;

use crate::database;

/// Undoes the migration, in a generation that has folded since.
const BEFORE: &str = "
delete from control.migration where schema = 'read_model_1' and name >= '0008';
alter table read_model_1.account drop column name_key;
drop index read_model_1.account_open, read_model_1.account_closed;
";

#[tokio::test]
async fn names_from_before_the_migration_have_the_keys_that_a_rebuild_gives_them() -> Result<()> {
    let database = database().await?;
    // JSON in Postgres has no NUL.
    let every: Vec<char> = ('\u{1}'..=char::MAX).collect();
    let mut names: Vec<String> =
        every.chunks(NAME_KEY_CHARACTERS_MAX).map(|part| part.iter().collect()).collect();
    names.extend(["Acme GmbH".to_owned(), String::new(), "É".repeat(1_000)]);
    let mut cores: Vec<String> = names.iter().map(|name| json!({"name": name}).to_string()).collect();
    cores.extend([json!({"name": null}).to_string(), "{}".to_owned()]);
    sqlx::raw_sql(BEFORE).execute(&database.pool).await?;
    sqlx::query(
        r#"insert into read_model_1.account
                  (account_id, partition, "offset", events, ledger_time, clock, opened_at, core)
           select n::text, 0, 1, 1, now(), 'live', now(), core::jsonb
           from unnest($1::text[]) with ordinality as new (core, n)"#,
    )
    .bind(&cores)
    .execute(&database.pool)
    .await?;

    pg::migrate(&database.pool).await?;
    let keys: Vec<Option<String>> =
        sqlx::query_scalar("select name_key from read_model_1.account order by account_id::int")
            .fetch_all(&database.pool)
            .await?;
    ensure!(keys.len() == cores.len());
    for (at, key) in keys.iter().enumerate() {
        let expected = names.get(at).map(|name| name_key(name));
        ensure!(*key == expected, "{:?}: {key:?}, not {expected:?}", names.get(at));
    }
    Ok(())
}
