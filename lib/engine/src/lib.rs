//! The event-sourcing engine: consumes the journal, folds it into Postgres, and publishes its progress.

mod ask;
pub mod compare;
pub mod consume;
pub mod fold;
pub mod load;
mod log;
pub mod outbox;
pub mod progress;
pub mod progress_channel;
pub mod tables;
