//! Webhooks of the payment provider: signed, in any order, any number of times.

mod event;
mod payment;
pub mod receive;
mod signature;
mod store;
