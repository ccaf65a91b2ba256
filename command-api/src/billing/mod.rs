//! Billing: purchases recorded by an operator or made at the payment provider, and the provider's webhooks.

pub mod checkout;
pub mod manual_resolution;
pub mod orders;
pub mod parked;
pub mod payments;
pub mod top_up_resolution;
pub mod webhooks;
