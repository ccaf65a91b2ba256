//! The read side: balances, usage, history, and the journal for auditors.
//!
//! Writes nothing: its connections are read only. Every read of an account is one Postgres snapshot that names the
//! position it reflects.

mod access;
mod accounts;
mod alerts;
mod answer;
mod app;
mod as_of;
mod audit;
mod backtest;
mod balance;
mod columns;
mod decisions;
mod entries;
mod events;
mod grants;
mod holding;
mod list;
mod messages;
mod notifications;
mod openapi;
mod periods;
mod reading;
mod referrals;
mod reservations;
mod routes;
mod service;
mod stops;
mod stream;
mod usage;
mod users;

pub use app::{App, Waiters};
pub use audit::line as journal_line;
pub use list::{LIMIT_DEFAULT, LIMIT_MAX};
pub use openapi::openapi;
pub use routes::router;
pub use service::{Config, build};
