//! The one program: everything the ledger does, behind subcommands.

pub mod bench;
pub mod doctor;
pub mod openapi;
pub mod serve;
pub mod stack;
pub mod up;
