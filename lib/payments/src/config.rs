//! The settings of payments.

use clap::{Args, ValueEnum};

/// How payments are made.
#[derive(Debug, Clone, Args)]
pub struct PaymentConfig {
    /// Who moves the money; the sandbox only pretends to
    #[arg(long, env = "LEDGER_PAYMENT_PROVIDER", value_enum, default_value_t = ProviderName::Sandbox)]
    pub payment_provider: ProviderName,
    /// Stripe's secret key
    #[arg(
        long,
        env = "LEDGER_STRIPE_API_KEY",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub stripe_api_key: String,
    /// What webhooks of the payment provider are signed with; without it none is taken. The sandbox sends none: who tries
    /// it out signs and sends one
    #[arg(
        long,
        env = "LEDGER_STRIPE_WEBHOOK_SECRET",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub stripe_webhook_secret: String,
    /// Where Stripe is; another address only for trials
    #[arg(long, env = "LEDGER_STRIPE_URL", default_value = STRIPE_URL)]
    pub stripe_url: String,
    /// Where a payer is sent back to after a checkout
    #[arg(long, env = "LEDGER_CHECKOUT_RETURN_URL", default_value = RETURN_URL)]
    pub checkout_return_url: String,
}

const STRIPE_URL: &str = "https://api.stripe.com";
const RETURN_URL: &str = "http://127.0.0.1:8080/";

impl Default for PaymentConfig {
    fn default() -> Self {
        Self {
            payment_provider: ProviderName::Sandbox,
            stripe_api_key: String::new(),
            stripe_webhook_secret: String::new(),
            stripe_url: STRIPE_URL.to_owned(),
            checkout_return_url: RETURN_URL.to_owned(),
        }
    }
}

/// The providers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProviderName {
    /// Pretends, by the payment method's name.
    Sandbox,
    /// Moves money.
    Stripe,
}

impl ProviderName {
    pub fn as_str(self) -> &'static str {
        match self {
            ProviderName::Sandbox => "sandbox",
            ProviderName::Stripe => "stripe",
        }
    }

    pub fn moves_money(self) -> bool {
        match self {
            ProviderName::Sandbox => false,
            ProviderName::Stripe => true,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    #[error("the payment provider stripe needs LEDGER_STRIPE_API_KEY")]
    NoKey,
    #[error("LEDGER_STRIPE_API_KEY has characters that no key has")]
    BadKey,
    #[error("LEDGER_STRIPE_URL is no address: {0}")]
    BadUrl(String),
    #[error("connections to the payment provider can't be made safe: {0}")]
    Tls(String),
}
