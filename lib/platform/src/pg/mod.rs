//! Postgres: pools, migrations, generations, column conversions, and transactions that survive a dropped request.

mod access;
mod bounded;
pub mod columns;
mod connect;
mod convert;
mod error;
mod generation;
mod login;
mod migrate;
mod migrations;
mod role;
mod rows;
mod schema;
mod scope;
mod transaction;
mod turns;

pub use sqlx::{PgConnection, PgPool};

pub use bounded::{Bounded, bounded};
pub use connect::{PgConfig, Purpose, connect, connect_for};
pub use convert::{credits_of, numeric_text, time_of, timestamp, usd_of};
pub use error::{Error, is_unavailable, silence};
pub use generation::{
    GENERATION_CHANNEL, create_generation, drop_generation, ensure_generation, flip, generations, hold_still,
    keep_live, live_generation,
};
pub use login::Login;
pub use migrate::{migrate, migrate_or_check};
pub use role::{PASSWORD_CHARS_MIN, Password, Role, existing_roles, make_login};
pub use rows::{Amount, Rows, column};
pub use schema::{Model, NotASchema, Schema};
pub use scope::Scope;
pub use transaction::{
    READ_MAX, begin_read, begin_read_on, begin_write_on, maintain, read, read_of, read_of_within, write,
};
pub use turns::{Turn, Turns};
