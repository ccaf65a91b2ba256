//! The alert worker: the scheduler of period resets, and the delivery of alerts and notices.

pub mod delivery;
pub mod scheduler;
mod service;

pub use scheduler::SchedulerConfig;
pub use service::{Config, run};
