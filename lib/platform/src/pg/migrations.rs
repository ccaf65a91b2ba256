//! The embedded migrations, and the runner that applies them to one schema.
//!
//! sqlx's own migrator does not fit: one program migrates several schemas of one shape (`read_model_1`,
//! `read_model_2` …), all in one transaction.

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgConnection};
use tracing::{debug, info};

use super::error::Error;
use super::schema::Schema;

/// One file under `migrations/`; never edited once applied anywhere.
#[derive(Debug)]
pub(super) struct Migration {
    /// File name without `.sql`.
    name: &'static str,
    sql: &'static str,
}

macro_rules! migrations {
    ($folder:literal: $($name:literal),*) => {
        &[$(Migration {
            name: $name,
            sql: include_str!(concat!("../../../../migrations/", $folder, "/", $name, ".sql")),
        }),*]
    };
}

pub(super) const CONTROL: &[Migration] = migrations!(
    "control": "0001_control", "0002_contacts", "0003_holds", "0004_top_ups", "0005_growth", "0006_outbox_order",
    "0007_payments", "0008_callers", "0009_idempotency_age", "0010_summaries",
    "0011_audit_log"
);
pub(super) const DELIVERY: &[Migration] = migrations!(
    "delivery": "0001_delivery", "0002_told_from", "0003_kept", "0004_shares", "0005_restored",
    "0006_notification_recipient"
);
pub(super) const READ_MODEL: &[Migration] = migrations!(
    "read_model": "0001_read_model", "0002_ended_hold", "0003_payments", "0004_next_due_at", "0005_halted",
    "0006_prices_and_calls", "0007_snapshot_time", "0008_account_names",
    "0009_user_totals", "0010_own_limits", "0011_log", "0012_daily_usage"
);
pub(super) const ALERTING: &[Migration] = migrations!(
    "alerting": "0001_alerting", "0002_halted", "0003_prices_and_calls", "0004_firing_subject", "0005_limit_pages"
);

/// Any constant: held while tables are created or dropped, so that processes starting together take turns.
const MIGRATION_LOCK: i64 = 0x6c65_6467_6572;

const BOOKKEEPING: &str = r#"
create schema if not exists control;
create table if not exists control.migration (
    schema     text        collate "C" not null,
    name       text        collate "C" not null,
    sha256     bytea       not null,
    applied_at timestamptz not null,
    primary key (schema, name)
)"#;

/// Creates the table that records the applied migrations.
pub(super) async fn make_bookkeeping(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(BOOKKEEPING).execute(connection).await.map(drop)
}

/// Waits for the lock on creating or dropping tables; held until the transaction ends.
pub(super) async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(connection).await.map(drop)
}

/// Applies the missing migrations of one schema; unqualified names mean that schema.
pub(super) async fn apply(
    connection: &mut PgConnection,
    schema: &str,
    migrations: &[Migration],
) -> Result<(), Error> {
    let applied = applied(connection, schema).await?;
    let pending = pending(schema, migrations, &applied)?;
    for migration in pending {
        apply_one(connection, schema, migration).await?;
    }
    if let Some(last) = pending.last() {
        info!(schema, count = pending.len(), last = last.name, "migrations applied");
    }
    Ok(())
}

/// Checks that a schema has every migration. Errors: the first one that is missing, or another history.
pub(super) async fn check(
    connection: &mut PgConnection,
    schema: &str,
    migrations: &[Migration],
) -> Result<(), Error> {
    let applied = applied(connection, schema).await?;
    match pending(schema, migrations, &applied)? {
        [] => Ok(()),
        [missing, ..] => Err(Error::MigrationMissing { schema: schema.to_owned(), name: missing.name }),
    }
}

/// Returns the applied migrations of a schema with their hashes, in order.
async fn applied(connection: &mut PgConnection, schema: &str) -> Result<Vec<(String, Vec<u8>)>, sqlx::Error> {
    sqlx::query_as("select name, sha256 from control.migration where schema = $1 order by name")
        .bind(schema)
        .fetch_all(connection)
        .await
}

async fn apply_one(connection: &mut PgConnection, schema: &str, migration: &Migration) -> Result<(), Error> {
    let enter = format!("set local search_path = {schema}");
    sqlx::query(AssertSqlSafe(enter)).execute(&mut *connection).await?;
    sqlx::raw_sql(migration.sql).execute(&mut *connection).await?;
    sqlx::query(
        "insert into control.migration (schema, name, sha256, applied_at)
         values ($1, $2, $3, clock_timestamp())",
    )
    .bind(schema)
    .bind(migration.name)
    .bind(hash(migration))
    .execute(connection)
    .await?;
    debug!(schema, migration = migration.name, "migration applied");
    Ok(())
}

/// Returns the migrations to apply. Errors: the history is not a prefix of ours.
fn pending<'a>(
    schema: &str,
    migrations: &'a [Migration],
    applied: &[(String, Vec<u8>)],
) -> Result<&'a [Migration], Error> {
    for (at, (name, sha256)) in applied.iter().enumerate() {
        let (schema, name) = (schema.to_owned(), name.clone());
        match migrations.get(at) {
            Some(known) if known.name == name && hash(known) == *sha256 => {}
            Some(known) if known.name == name => {
                return Err(Error::MigrationChanged { schema, name });
            }
            _ => return Err(Error::MigrationUnknown { schema, name }),
        }
    }
    Ok(&migrations[applied.len()..])
}

fn hash(migration: &Migration) -> Vec<u8> {
    Sha256::digest(migration.sql).to_vec()
}

/// Deletes the records of a dropped schema.
pub(super) async fn forget(connection: &mut PgConnection, schema: Schema) -> Result<(), Error> {
    sqlx::query("delete from control.migration where schema = $1")
        .bind(schema.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const TWO: &[Migration] =
        &[Migration { name: "0001_a", sql: "select 1" }, Migration { name: "0002_b", sql: "select 2" }];

    fn applied(name: &str, sql: &str) -> (String, Vec<u8>) {
        (name.to_owned(), Sha256::digest(sql).to_vec())
    }

    fn check(history: &[(String, Vec<u8>)], expected: Result<&[&str], &str>) {
        let names = pending("s", TWO, history).map(|rest| rest.iter().map(|m| m.name).collect());
        let names: Result<Vec<&str>, String> = names.map_err(|error| error.to_string());
        assert_eq!(names.as_deref().map_err(|error| error.as_str()), expected);
    }

    #[test]
    fn only_what_is_missing_is_applied() {
        check(&[], Ok(&["0001_a", "0002_b"]));
        check(&[applied("0001_a", "select 1")], Ok(&["0002_b"]));
    }

    #[test]
    fn another_history_is_refused() {
        check(
            &[applied("0001_a", "select 7")],
            Err("migration s/0001_a was changed after it had been applied"),
        );
        let newer =
            [applied("0001_a", "select 1"), applied("0002_b", "select 2"), applied("0003_c", "select 3")];
        check(&newer, Err("migration s/0003_c is unknown: this program is older than the database"));
    }

    #[test]
    fn every_file_in_the_folders_is_embedded_in_order() {
        let folders = [
            ("control", CONTROL),
            ("delivery", DELIVERY),
            ("read_model", READ_MODEL),
            ("alerting", ALERTING),
        ];
        for (folder, embedded) in folders {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations").join(folder);
            let mut files: Vec<String> = fs::read_dir(path)
                .map(|entries| {
                    entries
                        .map(|entry| entry.expect("readable").file_name().into_string().expect("plain"))
                        .collect()
                })
                .unwrap_or_default();
            files.sort();
            let names: Vec<String> = embedded.iter().map(|m| format!("{}.sql", m.name)).collect();
            assert_eq!(files, names, "{folder}");
        }
    }
}
