//! The credit ledger's rules: pure, deterministic, without clock, randomness or I/O.
//!
//! Six layers, each of which sees only those before it: `value`, `event`, `account`, `fold`, `policy`, `request`.

pub mod account;
pub mod event;
pub mod fold;
pub mod policy;
pub mod request;
pub mod value;
