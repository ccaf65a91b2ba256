//! The credit ledger's rules: pure, deterministic, without clock, chance or I/O.
//!
//! The same events in the same order give the same balances on any machine.

pub mod account;
pub mod alert;
pub mod balance;
pub mod credits;
pub mod decide;
pub mod derive;
pub mod door;
pub mod due;
pub mod event;
pub mod fold;
pub mod hold;
pub mod id;
pub mod json;
pub mod key;
pub mod limit;
pub mod lot;
pub mod memory;
pub mod overdraft;
pub mod pages;
pub mod partition;
pub mod period;
pub mod rate_card;
mod scalar;
pub mod shape;
pub mod time;
pub mod top_up;
pub mod wire;
pub mod words;
