//! Who may reach which table: the rights of the services' logins, and the rows that the reading one may see.
//!
//! Granted anew with every migration and with every generation, so that a table that is made later has them too. A role
//! that this server does not have is left out.

use sqlx::{AssertSqlSafe, PgConnection};

use super::role::{Role, existing};
use super::schema::{Model, Schema};

/// Grants the rights in `control` and `delivery`; what is not granted here any more is revoked.
pub(super) async fn grant_fixed_schemas(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    for role in existing(connection).await? {
        let name = role.name();
        let grant = format!(
            "revoke all on schema control, delivery from {name};
             revoke all on all tables in schema control, delivery from {name};
             {}",
            role.rights()
        );
        sqlx::raw_sql(AssertSqlSafe(grant)).execute(&mut *connection).await?;
    }
    for schema in ["control", "delivery"] {
        secure_rows(connection, schema).await?;
    }
    Ok(())
}

/// Grants the rights in a generation.
pub(super) async fn grant_generation(
    connection: &mut PgConnection,
    schema: Schema,
) -> Result<(), sqlx::Error> {
    for role in existing(connection).await? {
        if let Some(rights) = rights_in(role, schema.model) {
            let name = role.name();
            let mut grant = format!(
                "grant usage on schema {schema} to {name};
                 grant {rights} on all tables in schema {schema} to {name};"
            );
            for table in withheld(role, schema.model) {
                grant += &format!("revoke all on table {schema}.{table} from {name};");
            }
            sqlx::raw_sql(AssertSqlSafe(grant)).execute(&mut *connection).await?;
        }
    }
    secure_rows(connection, &schema.to_string()).await
}

/// Returns a role's rights to the tables of a generation.
const fn rights_in(role: Role, model: Model) -> Option<&'static str> {
    match (role, model) {
        (Role::Projector, Model::ReadModel) | (Role::AlertWorker, Model::Alerting) => {
            Some("select, insert, update, delete")
        }
        (Role::QueryApi, Model::ReadModel | Model::Alerting)
        | (Role::CommandApi | Role::AlertWorker, Model::ReadModel) => Some("select"),
        (Role::Projector | Role::CommandApi, Model::Alerting) => None,
    }
}

/// Returns the tables of a generation that a role has no right to: whole records, and no column says whose they are.
const fn withheld(role: Role, model: Model) -> &'static [&'static str] {
    match (role, model) {
        (Role::CommandApi | Role::AlertWorker | Role::QueryApi, Model::ReadModel) => &["dead_letter"],
        (Role::Projector, Model::ReadModel) | (_, Model::Alerting) => &[],
    }
}

async fn secure_rows(connection: &mut PgConnection, schema: &str) -> Result<(), sqlx::Error> {
    let secure = include_str!("rights/row_security.sql").replace("{schema}", schema);
    sqlx::raw_sql(AssertSqlSafe(secure)).execute(connection).await.map(drop)
}
