//! Alerts: what an account's admins asked to be told of, and what is told without being asked for.
//!
//! Informational: they never block. Rules stand in the account's core; what has fired stands in `Watch`, which only
//! those keep who evaluate. Pure like the fold: the same events give the same firings, with the same ids, whoever
//! evaluates them and however often.

pub mod backtest;
mod figure;
pub mod firing;
mod notice;
pub mod users;
mod version;
pub mod watch;

pub use backtest::{Backtest, Hit, Rule};
pub use firing::{Audience, Firing, Kind};
pub use users::{MissingUsers, UserPage, Users, user_of};
pub use version::FORMER_MAX;
pub use watch::{AlertView, REMOVED_MAX, State, Watch, Watcher};
