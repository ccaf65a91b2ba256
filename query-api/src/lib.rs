//! The read side: balances, usage, history, and the journal for auditors.
//!
//! It writes nothing: its connections are read-only. Every read of an account is one Postgres snapshot, and the answer
//! names the position that it reflects.

mod access;
mod answer;
mod app;
mod as_of;
mod explain;
mod http;
mod list;
mod openapi;
mod past_rows;
mod reading;
mod routes;
mod service;
mod stream;

pub use app::{App, Waiters};
pub use http::audit::events::line as journal_line;
pub use list::{LIMIT_DEFAULT, LIMIT_MAX};
pub use openapi::openapi;
pub use routes::router;
pub use service::{AuditConfig, Config, build};
