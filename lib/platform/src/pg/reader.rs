//! The role of read-only connections; it has no login.

use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use tracing::warn;

use super::schema::Schema;

const READER: &str = "ledger_reader";

/// Takes the reader's role if it exists and may be taken; otherwise leaves the session as it is.
const BECOME: &str = "
    select set_config('role', rolname, false)
    from pg_roles
    where rolname = 'ledger_reader'
      and pg_has_role(rolname, 'member')";

/// Creates the role; without the privilege, reads run under the writer's role.
pub(super) async fn create(pool: &PgPool) {
    if let Err(error) = sqlx::raw_sql(include_str!("create_reader.sql")).execute(pool).await {
        warn!(%error, "no role {READER}: reads run under the writer's role, in read-only transactions");
    }
}

/// Grants the role the necessary reads of `control` and `delivery`.
pub(super) async fn let_see_fixed_schemas(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    if !exists(connection).await? {
        return Ok(());
    }
    sqlx::raw_sql(include_str!("grant_reader.sql")).execute(connection).await.map(drop)
}

/// Grants the role reads of all tables of a generation.
pub(super) async fn let_see(connection: &mut PgConnection, schema: Schema) -> Result<(), sqlx::Error> {
    if !exists(connection).await? {
        return Ok(());
    }
    let grant = format!(
        "grant usage on schema {schema} to {READER};
         grant select on all tables in schema {schema} to {READER}"
    );
    sqlx::raw_sql(AssertSqlSafe(grant)).execute(connection).await.map(drop)
}

/// Sets the session's role to the reader.
pub(super) async fn become_reader(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(BECOME).execute(connection).await.map(drop)
}

async fn exists(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)")
        .bind(READER)
        .fetch_one(connection)
        .await
}
