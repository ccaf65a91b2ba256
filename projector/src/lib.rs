//! Projector: folds the journal into the read model that every answer about credits is read from.
//!
//! Writes `read_model_<n>` only, and sends nothing.

mod cache;
mod changes;
mod compare;
mod counters;
mod intake;
mod load;
mod projection;
mod rows;
mod service;
mod store;

pub use compare::{Columns, Difference, SAMPLES_MAX, Sample, TABLES_COMPARED, compare};
pub use intake::Decode;
pub use projection::{Projection, RESUMED_RECORDS_MAX};
pub use service::{Config, LANES, Options, lanes, partitions, project, run};
