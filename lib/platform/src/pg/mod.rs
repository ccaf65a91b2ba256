//! Postgres: pools, migrations, generations, column conversions, and transactions that survive a dropped request.

pub mod columns;
mod connect;
mod convert;
mod error;
mod generation;
mod migrate;
mod migrations;
mod reader;
mod rows;
mod schema;
mod transaction;

pub use sqlx::{PgConnection, PgPool};

pub use connect::{PgConfig, connect, connect_read_only};
pub use convert::{credits_of, numeric_text, time_of, timestamp, usd_of};
pub use error::{Error, is_unavailable};
pub use generation::{
    GENERATION_CHANNEL, create_generation, drop_generation, ensure_generation, flip, generations, hold_still,
    keep_live, live_generation,
};
pub use migrate::migrate;
pub use rows::{Amount, Rows, column};
pub use schema::{Model, NotASchema, Schema};
pub use transaction::{begin_read, begin_read_on, begin_write_on, read, write};
