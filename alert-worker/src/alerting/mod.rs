//! Alerting: folds the journal a second time, evaluates the rules of each account, and records what fired.
//!
//! Writes `alerting_<n>`, and in the same transaction the outbox of what is to be told.

mod changes;
mod evaluate;
mod load;
mod service;
mod store;

pub use evaluate::{Alerting, Evaluation};
pub use service::{LANES, Options, Telling, begin, lanes, watch};
