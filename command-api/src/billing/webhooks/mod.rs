//! Webhooks of the payment provider: signed, in any order, any number of times.

mod event;
pub mod outcomes;
pub mod payment;
pub mod receive;
pub mod records;
mod refunds;
mod signature;
pub mod store;
