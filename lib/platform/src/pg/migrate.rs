//! Migrates the whole database to the newest tables, or checks that somebody has.

use sqlx::{PgConnection, PgPool};

use super::error::Error;
use super::login::Login;
use super::schema::{Model, Schema};
use super::transaction::{maintain, write};
use super::{access, generation, migrations};

/// Migrates `control`, `delivery` and every existing generation to the newest tables, and grants the services' logins
/// their rights; idempotent, safe to race.
pub async fn migrate(pool: &PgPool) -> Result<(), Error> {
    maintain(pool, |connection| {
        Box::pin(async move {
            migrations::lock(connection).await?;
            migrations::make_bookkeeping(connection).await?;
            migrations::apply(connection, "control", migrations::CONTROL).await?;
            migrations::apply(connection, "delivery", migrations::DELIVERY).await?;
            access::grant_fixed_schemas(connection).await?;
            generation::apply_all(connection).await
        })
    })
    .await
}

/// Makes sure that the tables are those of this program: their owner migrates them, any other login checks.
pub async fn migrate_or_check(pool: &PgPool) -> Result<(), Error> {
    if Login::of(pool).await?.owns { migrate(pool).await } else { check(pool).await }
}

/// Checks that every table is as new as this program. Errors: the first migration that is missing.
async fn check(pool: &PgPool) -> Result<(), Error> {
    write(pool, |connection| {
        Box::pin(async move {
            let made = "select to_regclass('control.migration') is not null";
            if !sqlx::query_scalar::<_, bool>(made).fetch_one(&mut *connection).await? {
                return Err(Error::NotMigrated);
            }
            migrations::check(connection, "control", migrations::CONTROL).await?;
            migrations::check(connection, "delivery", migrations::DELIVERY).await?;
            for model in Model::ALL {
                check_live(connection, model).await?;
            }
            Ok(())
        })
    })
    .await
}

async fn check_live(connection: &mut PgConnection, model: Model) -> Result<(), Error> {
    let live = generation::live(connection, model).await?.ok_or(Error::NotMigrated)?;
    let schema = Schema { model, generation: live }.to_string();
    migrations::check(connection, &schema, generation::migrations_of(model)).await
}
