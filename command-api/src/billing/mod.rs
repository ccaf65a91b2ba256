//! Billing: purchases, by hand or at the payment provider, and what the provider's webhooks say of them.

pub mod checkout;
pub mod payments;
pub mod webhooks;
