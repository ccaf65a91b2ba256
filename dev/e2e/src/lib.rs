//! The whole ledger for tests: every service in this process ([`Whole`]), or the program itself ([`program`]).

mod caller;
mod described;
mod program;
mod whole;

pub use caller::{Answer, Caller};
pub use program::program;
pub use whole::Whole;
