//! The credit ledger's rules: pure and deterministic, no clock, chance or I/O.

pub mod credits;
mod scalar;
pub mod time;
