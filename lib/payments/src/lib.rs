//! Payment providers: a small trait, Stripe, and a sandbox that only pretends.

mod client;
mod config;
mod provider;
mod sandbox;
mod stripe;

use std::sync::Arc;

use sqlx::PgPool;

pub use config::{PaymentConfig, ProviderName, SettingError};
pub use provider::{
    CALL_TIME_MAX, Charge, Checkout, CheckoutError, Found, Order, Provider, Refused, Reply, SAME_KEY_SECONDS,
    is_too_old,
};
pub use sandbox::Sandbox;
pub use stripe::Stripe;

pub fn provider(config: &PaymentConfig, pool: &PgPool) -> Result<Arc<dyn Provider>, SettingError> {
    Ok(match config.payment_provider {
        ProviderName::Sandbox => Arc::new(Sandbox::new(pool.clone())),
        ProviderName::Stripe => Arc::new(Stripe::new(config)?),
    })
}
