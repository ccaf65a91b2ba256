//! The alert worker: today the scheduler of period resets; alerts and top-ups build on it.

pub mod delivery;
pub mod scheduler;
mod service;

pub use scheduler::SchedulerConfig;
pub use service::{Config, run};
