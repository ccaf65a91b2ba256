//! Alerts that admins set, and balance notices that need no setting.
//!
//! Informational: they never block. The settings are part of the account's core; what has fired is in [`Watch`], which only
//! the evaluator keeps. Pure as the fold: the same events give the same firings with the same ids, whichever process evaluates them
//! and however often.

pub mod backtest;
mod figure;
pub mod firing;
mod notice;
pub mod users;
mod version;
pub mod watch;

pub use backtest::{Backtest, Hit, Rule};
pub use firing::{Audience, Firing, Kind};
pub use users::{MissingUsers, NextUser, Past, UserPage, Users, user_of};
pub use version::{ENDED_MAX, LimitPage};
pub use watch::{AlertView, REMOVED_MAX, State, Watch, Watcher};
