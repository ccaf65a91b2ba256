//! The whole ledger for tests: every service in this process ([`Whole`]), or the program itself ([`program`]).

mod answer;
mod caller;
mod described;
pub mod logins;
mod program;
mod services;
mod whole;

pub use answer::Answer;
pub use caller::Caller;
pub use program::program;
pub use services::Form;
pub use whole::Whole;
