//! Projector: folds the journal into the read model, the source of every answer about credits.
//!
//! Writes `read_model_<n>`, and what the audit log has signed; it sends checkpoints of the log, and nothing else.

mod changes;
mod counters;
mod own_limits;
mod projection;
mod service;
mod signing;
mod store;

pub use projection::{Projector, ReadModel};
pub use service::{Config, LANES, build, lanes, partitions, project};
pub use signing::SigningConfig;
