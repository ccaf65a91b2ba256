//! Serves HTTP with limits, problems, readiness and API keys.

pub mod auth;
pub mod http;
pub mod openapi;
pub mod quota;
