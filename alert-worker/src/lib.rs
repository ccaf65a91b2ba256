//! The alert worker: evaluates alerts and notices, delivers them, tops accounts up, and appends the resets that are due.

pub mod alerting;
pub mod delivery;
pub mod scheduler;
mod service;
pub mod top_ups;

pub use scheduler::SchedulerConfig;
pub use service::{Config, build};
pub use top_ups::TopUpConfig;
