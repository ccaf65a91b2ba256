//! Generations: a model is a schema `<model>_<n>`, and one row says which n is live.

use std::fmt;
use std::str::FromStr;

use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::migrate::{self, Migration};
use super::{Error, write};

/// Channel that a flip notifies; the payload is the schema that is live now.
pub const GENERATION_CHANNEL: &str = "ledger_generation";

/// Advisory lock of who writes the live generation (shared) and of who flips it or holds it still (exclusive);
/// with the model's number.
const LIVE_LOCK: i32 = 0x6c67_656e;

/// What is rebuilt from the journal as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Model {
    /// Balances and history, written by the projector.
    ReadModel,
    /// Alerts, notices and deliveries, written by the alert worker.
    Alerting,
}

impl Model {
    const ALL: [Model; 2] = [Model::ReadModel, Model::Alerting];

    /// Returns the name that schemas and the row of the live generation carry.
    pub const fn name(self) -> &'static str {
        match self {
            Model::ReadModel => "read_model",
            Model::Alerting => "alerting",
        }
    }

    /// Returns the model's place among the locks.
    const fn number(self) -> i32 {
        match self {
            Model::ReadModel => 1,
            Model::Alerting => 2,
        }
    }

    fn migrations(self) -> &'static [Migration] {
        match self {
            Model::ReadModel => migrate::READ_MODEL,
            Model::Alerting => migrate::ALERTING,
        }
    }
}

/// One generation of a model; its text is the schema's name and needs no quoting in SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Schema {
    /// Whose generation.
    pub model: Model,
    /// Counts from 1.
    pub generation: i32,
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.model.name(), self.generation)
    }
}

/// The text names no generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a generation: want a name like read_model_1")]
pub struct NotASchema;

impl FromStr for Schema {
    type Err = NotASchema;

    fn from_str(text: &str) -> Result<Self, NotASchema> {
        let (name, number) = text.rsplit_once('_').ok_or(NotASchema)?;
        let model = Model::ALL.into_iter().find(|model| model.name() == name).ok_or(NotASchema)?;
        let generation = number.parse().map_err(|_| NotASchema)?;
        let schema = Schema { model, generation };
        // Only the one way of writing a number: 01 and +1 name no schema.
        if generation < 1 || schema.to_string() != text {
            return Err(NotASchema);
        }
        Ok(schema)
    }
}

/// Returns the live generation of a model, asked from the database; `None` before the first start.
pub async fn live_generation(pool: &PgPool, model: Model) -> Result<Option<Schema>, sqlx::Error> {
    let live: Option<i32> = sqlx::query_scalar("select live from control.generation where model = $1")
        .bind(model.name())
        .fetch_optional(pool)
        .await?;
    Ok(live.map(|generation| Schema { model, generation }))
}

/// Returns the live generation, making the first one where there is none.
pub async fn ensure_generation(pool: &PgPool, model: Model) -> Result<Schema, Error> {
    write(pool, move |connection| {
        Box::pin(async move {
            migrate::lock(connection).await?;
            if let Some(generation) = live(connection, model).await? {
                return Ok(Schema { model, generation });
            }
            let first = Schema { model, generation: 1 };
            create(connection, first).await?;
            flip(connection, first).await?;
            Ok(first)
        })
    })
    .await
}

/// Makes the empty tables of a generation; which one is live stays as it is.
pub async fn create_generation(pool: &PgPool, schema: Schema) -> Result<(), Error> {
    write(pool, move |connection| {
        Box::pin(async move {
            migrate::lock(connection).await?;
            create(connection, schema).await
        })
    })
    .await
}

/// Drops a generation that is not live, with everything in it.
pub async fn drop_generation(pool: &PgPool, schema: Schema) -> Result<(), Error> {
    write(pool, move |connection| {
        Box::pin(async move {
            migrate::lock(connection).await?;
            if live(connection, schema.model).await? == Some(schema.generation) {
                return Err(Error::GenerationLive(schema));
            }
            let drop = format!("drop schema if exists {schema} cascade");
            sqlx::query(AssertSqlSafe(drop)).execute(&mut *connection).await?;
            migrate::forget(connection, schema).await
        })
    })
    .await
}

/// Returns the generations of a model that stand, in order.
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

/// Tells whether a generation is live, and keeps it so until the transaction ends.
///
/// Who writes the live generation asks first in each transaction: what a flip leaves behind never moves again, so
/// whoever saw a position in it finds it in the next generation too.
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

/// Keeps everybody from writing a model's live generation until the transaction ends.
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

/// Brings a standing generation to the newest tables.
pub(super) async fn apply(connection: &mut PgConnection, schema: Schema) -> Result<(), Error> {
    migrate::apply(connection, &schema.to_string(), schema.model.migrations()).await?;
    migrate::let_reader_see_all(connection, schema).await
}

/// Brings every standing generation of every model to the newest tables.
pub(super) async fn apply_all(connection: &mut PgConnection) -> Result<(), Error> {
    for model in Model::ALL {
        for schema in generations(connection, model).await? {
            apply(connection, schema).await?;
        }
    }
    Ok(())
}

async fn live(connection: &mut PgConnection, model: Model) -> Result<Option<i32>, sqlx::Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_reads_back_as_written() {
        for text in ["read_model_1", "alerting_12"] {
            let schema: Schema = text.parse().expect("a schema");
            assert_eq!(schema.to_string(), text);
        }
    }

    #[test]
    fn nothing_else_can_reach_sql_as_a_schema() {
        for text in [
            "",
            "read_model",
            "read_model_",
            "read_model_0",
            "read_model_01",
            "read_model_-1",
            "read_model_+1",
            "control_1",
            "read_model_1; drop table x",
            "Read_Model_1",
        ] {
            assert_eq!(text.parse::<Schema>(), Err(NotASchema), "{text}");
        }
    }
}
