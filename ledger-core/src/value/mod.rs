//! Amounts, times, periods and names, each checked once, when it is read.

pub mod credits;
pub mod id;
pub mod money;
pub mod period;
pub(crate) mod scalar;
pub mod schema;
pub mod time;
