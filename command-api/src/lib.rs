//! The write side: HTTP writes and the Kafka ingress, judged at the door, priced, and appended to the journal.
//!
//! A handler has four steps: parse, decide, append, answer. What the door knows of accounts may lag; the fold judges.

mod accounts;
mod adjustments;
mod answer;
mod app;
mod asked;
mod book;
mod cards;
mod check;
mod checkout;
mod clock;
mod contacts;
mod effects;
mod grants;
mod holds;
mod idempotency;
mod ingress;
mod intake;
mod keys;
mod openapi;
mod outbox;
mod outcome;
mod payments;
mod plan;
mod promotions;
mod rate_cards;
mod reservations;
mod reversals;
mod routes;
mod service;
mod settings;
mod submit;
mod usage;
mod webhooks;

pub use crate::app::{App, Sales};
pub use crate::holds::{HoldsConfig, drop_old};
pub use crate::openapi::openapi;
pub use crate::promotions::PromotionsConfig;
pub use crate::routes::router;
pub use crate::service::{Config, build};
