//! The one program: everything the ledger does, behind subcommands.

pub mod bench;
pub mod connection;
pub mod decide_top_up;
pub mod demo;
pub mod doctor;
pub mod key;
pub mod openapi;
pub mod rebuild;
pub mod redeliver;
pub mod replay;
pub mod serve;
pub mod up;
