//! Creates, drops and flips generations; one row of `control.generation` per model names the live one.

use sqlx::{AssertSqlSafe, PgConnection, PgExecutor, PgPool};
use tracing::warn;

use super::access;
use super::error::Error;
use super::migrations::{self, ALERTING, Migration, READ_MODEL};
use super::schema::{Model, Schema};
use super::transaction::maintain;

/// Channel that a flip notifies; the payload is the new live schema.
pub const GENERATION_CHANNEL: &str = "ledger_generation";

/// Advisory lock, with the model's number: shared by writers of the live generation, exclusive to flip or freeze it.
const LIVE_LOCK: i32 = 0x6c67_656e;

/// Returns the live generation of a model; `None` before the first start.
pub async fn live_generation(
    executor: impl PgExecutor<'_>,
    model: Model,
) -> Result<Option<Schema>, sqlx::Error> {
    let live: Option<i32> = sqlx::query_scalar("select live from control.generation where model = $1")
        .bind(model.name())
        .fetch_optional(executor)
        .await?;
    Ok(live.map(|generation| Schema { model, generation }))
}

/// Returns the live generation, and creates the first one if there is none and this login may. A database that was restored
/// without its generations, which follow from the journal, has the live one made again, empty.
pub async fn ensure_generation(pool: &PgPool, model: Model) -> Result<Schema, Error> {
    if let Some(live) = live_generation(pool, model).await?
        && exists(&mut *pool.acquire().await?, live).await?
    {
        return Ok(live);
    }
    maintain(pool, move |connection| {
        Box::pin(async move {
            migrations::lock(connection).await?;
            if let Some(generation) = live(connection, model).await? {
                let schema = Schema { model, generation };
                if !exists(connection, schema).await? {
                    warn!(%schema, "the live generation is missing in this database and is folded anew");
                    migrations::forget(connection, schema).await?;
                    create(connection, schema).await?;
                }
                return Ok(schema);
            }
            let first = Schema { model, generation: 1 };
            create(connection, first).await?;
            flip(connection, first).await?;
            Ok(first)
        })
    })
    .await
}

/// Creates the empty tables of a generation; does not make it live.
pub async fn create_generation(pool: &PgPool, schema: Schema) -> Result<(), Error> {
    maintain(pool, move |connection| {
        Box::pin(async move {
            migrations::lock(connection).await?;
            create(connection, schema).await
        })
    })
    .await
}

/// Drops a generation with everything in it. Errors: it is live.
pub async fn drop_generation(pool: &PgPool, schema: Schema) -> Result<(), Error> {
    maintain(pool, move |connection| {
        Box::pin(async move {
            migrations::lock(connection).await?;
            if live(connection, schema.model).await? == Some(schema.generation) {
                return Err(Error::GenerationLive(schema));
            }
            let drop = format!("drop schema if exists {schema} cascade");
            sqlx::query(AssertSqlSafe(drop)).execute(&mut *connection).await?;
            migrations::forget(connection, schema).await
        })
    })
    .await
}

/// Returns the existing generations of a model, in order.
pub async fn generations(connection: &mut PgConnection, model: Model) -> Result<Vec<Schema>, sqlx::Error> {
    let names: Vec<String> =
        sqlx::query_scalar("select nspname::text from pg_namespace where nspname like $1 || '\\_%'")
            .bind(model.name())
            .fetch_all(connection)
            .await?;
    let mut schemas: Vec<Schema> = names.iter().filter_map(|name| name.parse().ok()).collect();
    schemas.retain(|schema| schema.model == model);
    schemas.sort_by_key(|schema| schema.generation);
    Ok(schemas)
}

/// Returns whether a generation is live, and keeps it so until the transaction ends.
///
/// Writers of the live generation call this first in each transaction: after a flip the former one never advances
/// again, so a position that a reader saw in it is in the next generation too.
pub async fn keep_live(connection: &mut PgConnection, schema: Schema) -> Result<bool, sqlx::Error> {
    // Two statements in one message: the second one's snapshot is taken when the lock is held.
    let ask = format!(
        "select pg_advisory_xact_lock_shared({LIVE_LOCK}, {});
         select 1 from control.generation where model = '{}' and live = {}",
        schema.model.number(),
        schema.model.name(),
        schema.generation
    );
    let answers = sqlx::raw_sql(AssertSqlSafe(ask)).fetch_all(connection).await?;
    Ok(answers.len() == 2)
}

/// Blocks all writers of a model's live generation until the transaction ends.
pub async fn hold_still(connection: &mut PgConnection, model: Model) -> Result<(), sqlx::Error> {
    let lock = sqlx::query("select pg_advisory_xact_lock($1, $2)").bind(LIVE_LOCK).bind(model.number());
    lock.execute(connection).await.map(drop)
}

/// Makes a generation the live one, in the caller's transaction: readers see the old or the new, never a mix.
pub async fn flip(connection: &mut PgConnection, schema: Schema) -> Result<(), Error> {
    hold_still(&mut *connection, schema.model).await?;
    if !exists(connection, schema).await? {
        return Err(Error::GenerationMissing(schema));
    }
    sqlx::query(
        "insert into control.generation (model, live, flipped_at)
         values ($1, $2, clock_timestamp())
         on conflict (model) do update
         set live       = excluded.live,
             flipped_at = excluded.flipped_at",
    )
    .bind(schema.model.name())
    .bind(schema.generation)
    .execute(&mut *connection)
    .await?;
    sqlx::query("select pg_notify($1, $2)")
        .bind(GENERATION_CHANNEL)
        .bind(schema.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

async fn create(connection: &mut PgConnection, schema: Schema) -> Result<(), Error> {
    if exists(connection, schema).await? {
        return Err(Error::GenerationExists(schema));
    }
    let create = format!("create schema {schema}");
    sqlx::query(AssertSqlSafe(create)).execute(&mut *connection).await?;
    apply(connection, schema).await
}

/// Migrates an existing generation to the newest tables.
pub(super) async fn apply(connection: &mut PgConnection, schema: Schema) -> Result<(), Error> {
    migrations::apply(connection, &schema.to_string(), migrations_of(schema.model)).await?;
    Ok(access::grant_generation(connection, schema).await?)
}

/// Migrates every existing generation of every model to the newest tables.
pub(super) async fn apply_all(connection: &mut PgConnection) -> Result<(), Error> {
    for model in Model::ALL {
        for schema in generations(connection, model).await? {
            apply(connection, schema).await?;
        }
    }
    Ok(())
}

pub(super) async fn live(connection: &mut PgConnection, model: Model) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar("select live from control.generation where model = $1")
        .bind(model.name())
        .fetch_optional(connection)
        .await
}

async fn exists(connection: &mut PgConnection, schema: Schema) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from pg_namespace where nspname = $1)")
        .bind(schema.to_string())
        .fetch_one(connection)
        .await
}

pub(super) fn migrations_of(model: Model) -> &'static [Migration] {
    match model {
        Model::ReadModel => READ_MODEL,
        Model::Alerting => ALERTING,
    }
}
