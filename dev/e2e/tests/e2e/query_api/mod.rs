//! The read side over real HTTP, on real Kafka and Postgres, fed through the write side and the projector.

mod as_of;
mod audit;
mod audit_log;
mod balance;
mod big;
mod commands;
mod described;
mod diff;
mod door;
mod entries;
mod events;
mod explain;
mod holds;
mod interop;
mod journal;
mod lists;
mod refold;
pub(crate) mod story;
mod usage;
mod users;
