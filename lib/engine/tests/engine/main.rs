//! The engine on a real journal and a real Postgres.

mod consume;
mod filled;
mod log;
mod outbox;
mod progress;

use anyhow::{Result, ensure};
use local_stack::TestSpace;
use platform::pg::{self, Model, PgPool, Schema};

local_stack::shared_test_stack!();

const CONNECTIONS: u32 = 4;
const FIRST: Schema = Schema { model: Model::ReadModel, generation: 1 };

/// A migrated database with its first generation; dropped with the space.
struct Database {
    pool: PgPool,
    _space: TestSpace,
}

async fn database() -> Result<Database> {
    let space = TestSpace::new().await?;
    let pool = pg::connect(&space.database_url, "test", CONNECTIONS).await?;
    pg::migrate(&pool).await?;
    ensure!(pg::ensure_generation(&pool, Model::ReadModel).await? == FIRST);
    Ok(Database { pool, _space: space })
}
