//! The alert worker: evaluates alerts and notices, delivers them, tops up accounts, and appends due resets.

pub mod alerting;
pub mod delivery;
pub mod scheduler;
mod service;
pub mod top_ups;

pub use scheduler::SchedulerConfig;
pub use service::{Config, build};
pub use top_ups::TopUpConfig;
