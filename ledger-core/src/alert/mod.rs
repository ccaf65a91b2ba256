//! Alerts: what an account's admins asked to be told of, and what is told without being asked for.
//!
//! Informational: they never block.

pub mod firing;
pub mod rule;

pub use firing::{Audience, Firing, Kind};
pub use rule::{ORG_ALERTS_MAX, OrgAlert, UserAlert};
