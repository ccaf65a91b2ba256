//! Migrations: every table in order, for `control`, for `delivery` and for each generation of each model.
//!
//! An own runner of a few lines instead of sqlx's: one program migrates several schemas of one shape
//! (`read_model_1`, `read_model_2` …), all in one transaction, which sqlx's migrator has no notion of.

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use tracing::{info, warn};

use super::generation::{self, Schema};
use super::{Error, write};

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
            sql: include_str!(concat!("../../../migrations/", $folder, "/", $name, ".sql")),
        }),*]
    };
}

const CONTROL: &[Migration] = migrations!(
    "control": "0001_control", "0002_contacts", "0003_holds", "0004_top_ups", "0005_growth", "0006_outbox_order"
);
const DELIVERY: &[Migration] = migrations!("delivery": "0001_delivery", "0002_told_from", "0003_kept");
pub(super) const READ_MODEL: &[Migration] =
    migrations!("read_model": "0001_read_model", "0002_ended_hold", "0003_payments");
pub(super) const ALERTING: &[Migration] = migrations!("alerting": "0001_alerting");

/// Any constant: held while tables are made or dropped, so that processes starting together take turns.
const MIGRATION_LOCK: i64 = 0x6c65_6467_6572;

/// Role of connections that only read; nobody logs in as it.
const READER: &str = "ledger_reader";

/// Takes the reader's role where it exists and may be taken; otherwise leaves the session as it is.
pub(super) const BECOME_READER: &str = "select set_config('role', rolname, false)
       from pg_roles
      where rolname = 'ledger_reader'
        and pg_has_role(rolname, 'member')";

/// What has been applied where; made before the first migration, which it records.
const BOOKKEEPING: &str = r#"
create schema if not exists control;
create table if not exists control.migration (
    schema     text        collate "C" not null,
    name       text        collate "C" not null,
    sha256     bytea       not null,
    applied_at timestamptz not null,
    primary key (schema, name)
)"#;

/// Roles belong to the whole server: another database's migration may be making it this moment,
/// and the user may not be allowed to make roles at all.
const CREATE_READER: &str = "do $$
begin
    if not exists (select from pg_roles where rolname = 'ledger_reader') then
        create role ledger_reader nologin;
    end if;
    if not pg_has_role('ledger_reader', 'member') then
        execute format('grant ledger_reader to %I', current_user);
    end if;
exception
    when duplicate_object or unique_violation then null;
end
$$";

/// What reading services need of `control` and `delivery`: no record in waiting, no address, nothing that is only for
/// writing. Of holds, what they show.
const LET_READER_SEE_CONTROL: &str = "
grant usage  on schema control to ledger_reader;
grant select on control.generation, control.log_identity, control.api_key, control.rate_card, control.gate,
                control.hold, control.user_hold, control.decision, control.referrer
    to ledger_reader;
grant usage  on schema delivery to ledger_reader;
grant select (account_id, notification_id, firing_id, kind, channel, recipient, subject, text, status, attempts,
              next_attempt_at, created_at, sent_at, last_error)
    on delivery.notification to ledger_reader";

/// Brings `control`, `delivery` and every standing generation to the newest tables; harmless to repeat and to race.
pub async fn migrate(pool: &PgPool) -> Result<(), Error> {
    create_reader(pool).await;
    write(pool, |connection| {
        Box::pin(async move {
            lock(connection).await?;
            sqlx::raw_sql(BOOKKEEPING).execute(&mut *connection).await?;
            apply(connection, "control", CONTROL).await?;
            apply(connection, "delivery", DELIVERY).await?;
            if reader_exists(connection).await? {
                sqlx::raw_sql(LET_READER_SEE_CONTROL).execute(&mut *connection).await?;
            }
            generation::apply_all(connection).await
        })
    })
    .await
}

/// Waits for the turn to make or drop tables; held until the transaction ends.
pub(super) async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(connection).await.map(drop)
}

/// Applies what is still missing in one schema, unqualified names meaning that schema.
pub(super) async fn apply(
    connection: &mut PgConnection,
    schema: &str,
    migrations: &[Migration],
) -> Result<(), Error> {
    let applied: Vec<(String, Vec<u8>)> =
        sqlx::query_as("select name, sha256 from control.migration where schema = $1 order by name")
            .bind(schema)
            .fetch_all(&mut *connection)
            .await?;
    for migration in pending(schema, migrations, &applied)? {
        apply_one(connection, schema, migration).await?;
    }
    Ok(())
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
    info!(schema, migration = migration.name, "migration applied");
    Ok(())
}

/// Returns what is not applied yet, or refuses a history that is not a beginning of ours.
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

/// Forgets what was applied to a schema that is gone.
pub(super) async fn forget(connection: &mut PgConnection, schema: Schema) -> Result<(), Error> {
    sqlx::query("delete from control.migration where schema = $1")
        .bind(schema.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// Lets the reader's role see all tables of a generation, where there is such a role.
pub(super) async fn let_reader_see_all(connection: &mut PgConnection, schema: Schema) -> Result<(), Error> {
    if !reader_exists(connection).await? {
        return Ok(());
    }
    let grant = format!(
        "grant usage on schema {schema} to {READER};
         grant select on all tables in schema {schema} to {READER}"
    );
    sqlx::raw_sql(AssertSqlSafe(grant)).execute(connection).await?;
    Ok(())
}

async fn create_reader(pool: &PgPool) {
    if let Err(error) = sqlx::raw_sql(CREATE_READER).execute(pool).await {
        warn!(%error, "no role {READER}: reads run under the writer's role, in read-only transactions");
    }
}

async fn reader_exists(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)")
        .bind(READER)
        .fetch_one(connection)
        .await
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
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations").join(folder);
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
