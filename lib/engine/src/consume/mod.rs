//! The one consume loop: journal records into Postgres with exactly-once effect.
//!
//! A worker folds; the loop claims partitions, fences, commits, and finds out whether a commit
//! took effect if its answer was lost.

mod checkpoint;
mod cut;
mod decide;
mod driver;
mod error;
mod failure;
mod fill;
mod lane;
mod lanes;
mod options;
mod partitions;
mod resume;
mod status;
mod transaction;
mod worker;

pub use driver::{run, run_until};
pub use error::Error;
pub use options::{BATCH_RECORDS_MAX, ConsumeOptions, Source};
pub use status::Status;
pub use worker::{Resumed, Summary, Worker, WorkerError};
