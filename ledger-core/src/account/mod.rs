//! Account: the state that the fold keeps of one account.

pub mod alert;
mod core;
pub mod limit;
pub mod lot;
pub mod overdraft;
pub mod top_up;
pub mod withdrawal;

pub use self::core::{Core, Figures, Plan, Snapshot, Totals};
