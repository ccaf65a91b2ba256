//! HTTP: one resource per file; a handler checks access, reads one snapshot and answers.

pub(crate) mod accounts;
pub(crate) mod alerts;
pub(crate) mod audit;
pub(crate) mod backtest;
pub(crate) mod balance;
pub(crate) mod decisions;
pub(crate) mod diff;
pub(crate) mod entries;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod grants;
pub(crate) mod journal;
pub(crate) mod key;
pub(crate) mod limits;
pub(crate) mod messages;
pub(crate) mod notifications;
pub(crate) mod periods;
pub(crate) mod plan;
mod ranking;
pub(crate) mod referrals;
pub(crate) mod reservations;
pub(crate) mod settings;
pub(crate) mod usage;
pub(crate) mod users;
