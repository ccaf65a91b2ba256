//! The alert worker: today the scheduler of period resets; alerts and top-ups build on it.

pub mod scheduler;

pub use scheduler::{Config, run};
