//! The state of one account, which the fold keeps.

pub mod alert;
mod core;
pub mod limit;
pub mod lot;
pub mod overdraft;
pub mod setting;
pub mod top_up;
pub mod withdrawal;

pub use self::core::{Closing, Core, Figures, Plan, ReplacedPlan, Snapshot, Totals};
