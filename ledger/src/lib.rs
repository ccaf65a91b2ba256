//! The program: every part of the ledger, as subcommands.

#[cfg(feature = "bench")]
pub mod bench;
pub mod connection;
#[cfg(feature = "demo")]
pub mod demo;
pub mod doctor;
pub mod explain;
pub mod help;
pub mod key;
pub mod migrate;
pub mod openapi;
mod progress;
pub mod rebuild;
pub mod redeliver;
pub mod replay;
pub mod resolve_payment;
pub mod resolve_top_up;
pub mod resume;
pub mod serve;
mod starting;
pub mod up;
pub mod verify;
