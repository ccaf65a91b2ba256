//! Projector: folds the journal into the read model, the source of every answer about credits.
//!
//! Writes `read_model_<n>` only, and sends nothing.

mod changes;
mod counters;
mod own_limits;
mod projection;
mod service;
mod store;

pub use projection::{Projector, ReadModel};
pub use service::{Config, LANES, build, lanes, partitions, project};
