//! Payment providers: a small trait, Stripe, and a sandbox that only pretends.

mod client;
mod config;
pub mod customer;
mod price;
mod provider;
mod sandbox;
mod stripe;

use std::sync::Arc;

use sqlx::PgPool;
use uuid::Uuid;

pub use config::{PaymentConfig, ProviderName, SettingError};
pub use customer::{CustomerId, NotTheirs, Owner, authorize};
pub use price::{CURRENCY, Price, Unpayable, paid_price, usd_of_minor_units};
pub use provider::{
    CALL_TIME_MAX, Charge, Checkout, CheckoutError, Found, NoOwner, Order, Provider, Refused, Reply,
    SAME_KEY_SECONDS, idempotency_key, is_too_old,
};
pub use sandbox::Sandbox;
pub use stripe::Stripe;

/// Makes the configured provider, for the ledger whose journal has this id.
pub fn provider(
    config: &PaymentConfig,
    pool: &PgPool,
    log_id: Uuid,
) -> Result<Arc<dyn Provider>, SettingError> {
    Ok(match config.payment_provider {
        ProviderName::Sandbox => Arc::new(Sandbox::new(pool.clone())),
        ProviderName::Stripe => Arc::new(Stripe::new(config, log_id)?),
    })
}
