//! The alert worker: evaluates alerts and notices, tells them, and appends the resets that are due.

pub mod alerting;
pub mod delivery;
pub mod scheduler;
mod service;

pub use scheduler::SchedulerConfig;
pub use service::{Config, run};
