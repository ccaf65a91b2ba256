//! The write side: validates, prices and appends HTTP writes and the Kafka ingress to the journal.
//!
//! A handler has four steps: parse, decide, append, answer. Its knowledge of accounts may lag; the fold decides.

mod admission;
mod app;
mod billing;
mod email;
mod holds;
mod http;
mod ingress;
mod openapi;
mod paging;
mod promotions;
mod request_context;
mod routes;
mod service;
mod stored;
mod test_calls;
mod write;

pub use crate::app::{App, Reach, Sales};
pub use crate::billing::{manual_resolution, top_up_resolution};
pub use crate::holds::HoldsConfig;
pub use crate::holds::upkeep::drop_old;
pub use crate::openapi::openapi;
pub use crate::promotions::config::PromotionsConfig;
pub use crate::routes::router;
pub use crate::service::{Config, build};
