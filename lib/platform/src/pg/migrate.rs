//! Migrates the whole database to the newest tables.

use sqlx::PgPool;

use super::error::Error;
use super::transaction::write;
use super::{generation, migrations, reader};

/// Migrates `control`, `delivery` and every existing generation to the newest tables; idempotent, safe to race.
pub async fn migrate(pool: &PgPool) -> Result<(), Error> {
    reader::create(pool).await;
    write(pool, |connection| {
        Box::pin(async move {
            migrations::lock(connection).await?;
            migrations::make_bookkeeping(connection).await?;
            migrations::apply(connection, "control", migrations::CONTROL).await?;
            migrations::apply(connection, "delivery", migrations::DELIVERY).await?;
            reader::let_see_fixed_schemas(connection).await?;
            generation::apply_all(connection).await
        })
    })
    .await
}
