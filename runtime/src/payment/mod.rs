//! Payment: who moves the money. One small trait, and whoever is behind it.
//!
//! A charge carries a key, and the provider charges a key once, however often it is asked. An answer that does not come is
//! *unknown* and never *failed*: the same key is asked again.

mod client;
mod sandbox;
mod stripe;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::{Args, ValueEnum};
use ledger_core::account::Core;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{Id, Text};
use ledger_core::value::time::Time;
use sqlx::PgPool;

pub use sandbox::Sandbox;
pub use stripe::Stripe;

/// Time for one call to a provider, from looking up its name to the end of its answer.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(20);
/// Credits per unit of an amount in cents.
const CENTS: Credits = Credits::whole(100);

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
    /// it out signs and sends one himself
    #[arg(
        long,
        env = "LEDGER_STRIPE_WEBHOOK_SECRET",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub stripe_webhook_secret: String,
    /// Where Stripe is; another place only for trials
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
    /// Returns its name as in the settings and in actors.
    pub fn as_str(self) -> &'static str {
        match self {
            ProviderName::Sandbox => "sandbox",
            ProviderName::Stripe => "stripe",
        }
    }
}

/// What is to be charged.
#[derive(Debug, Clone)]
pub struct Charge {
    /// The attempt: charged once, however often it is asked.
    pub key: Id,
    /// Who pays.
    pub account: Id,
    /// What is bought, in the account's unit.
    pub amount: Credits,
    /// What it costs; none where the account's unit has no price.
    pub usd: Option<Credits>,
    /// What pays, as the provider names it.
    pub payment_method: Id,
}

/// What the provider says of a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It was paid.
    Paid {
        /// The provider's payment, which refunds and disputes name.
        payment_id: Id,
    },
    /// It was not paid, and never will be under this key.
    Declined {
        /// Why.
        reason: Text,
    },
    /// Nobody knows yet.
    Unknown {
        /// Why not.
        detail: String,
    },
}

impl Reply {
    pub(crate) fn unknown(detail: impl std::fmt::Display) -> Reply {
        Reply::Unknown { detail: detail.to_string() }
    }

    pub(crate) fn declined(reason: &str) -> Reply {
        Reply::Declined { reason: why(reason) }
    }
}

/// Returns a provider's words as the journal takes them.
fn why(reason: &str) -> Text {
    let fits: String = reason.chars().filter(|c| !c.is_control()).take(200).collect();
    let fits = if fits.is_empty() { "declined" } else { &fits };
    Text::new(fits).expect("a short text without control characters")
}

/// The request was not taken, and charged nothing. An earlier one under the same key may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the payment provider refused the request: {reason}")]
pub struct Refused {
    /// Why.
    pub reason: Text,
}

/// What the provider knows of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This became of it.
    Known(Reply),
    /// It was never asked to charge it.
    Nothing,
}

/// What a payer wants to buy once.
#[derive(Debug, Clone)]
pub struct Order {
    /// Who gets it.
    pub account: Id,
    /// What is bought, in the account's unit.
    pub amount: Credits,
    /// What it costs; none where the account's unit has no price.
    pub usd: Option<Credits>,
}

/// Where a payer pays.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs, reason = "named as in the contract")]
pub struct Checkout {
    pub checkout_id: String,
    pub url: Option<String>,
    pub client_secret: Option<String>,
}

/// Why there is no checkout.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// The account's unit has no price.
    #[error("the account's unit has no price: set usd_per_unit when it is opened")]
    NoPrice,
    /// The provider refuses.
    #[error("the payment provider refuses: {0}")]
    Refused(String),
    /// The provider can't be reached, or does not answer as it should.
    #[error("the payment provider can't be reached: {0}")]
    Unavailable(String),
}

/// Who moves the money.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Returns which one it is.
    fn name(&self) -> ProviderName;

    /// Charges without the payer being there; a key once.
    ///
    /// Errors: the request was not taken.
    async fn charge(&self, charge: &Charge) -> Result<Reply, Refused>;

    /// Says what became of a charge, without charging.
    async fn look_up(&self, charge: &Charge) -> Found;

    /// Opens a checkout; its webhook tells when it is paid.
    async fn checkout(&self, order: &Order) -> Result<Checkout, CheckoutError>;
}

/// A setting that can't work.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// There is no key.
    #[error("the payment provider stripe needs LEDGER_STRIPE_API_KEY")]
    NoKey,
    /// The provider's address is none.
    #[error("LEDGER_STRIPE_URL is no address: {0}")]
    BadUrl(String),
    /// TLS can't be set up.
    #[error("connections to the payment provider can't be made safe: {0}")]
    Tls(String),
}

/// Makes the provider that the settings name.
pub fn provider(config: &PaymentConfig, pool: &PgPool) -> Result<Arc<dyn Provider>, SettingError> {
    Ok(match config.payment_provider {
        ProviderName::Sandbox => Arc::new(Sandbox::new(pool.clone())),
        ProviderName::Stripe => Arc::new(Stripe::new(config)?),
    })
}

/// Returns what an amount of an account's unit costs.
pub fn price(core: &Core, amount: Credits) -> Option<Credits> {
    amount.mul_div_half_even(core.usd_per_unit?, Credits::whole(1)).ok()
}

/// Returns a price in whole cents, rounded up: what is paid is never less than what is got.
pub fn cents(usd: Credits) -> Option<i64> {
    let cents = usd.mul_div_half_even(CENTS, Credits::whole(1)).ok()?;
    let whole = cents.units().div_euclid(Credits::UNITS_PER_CREDIT);
    let rest = i128::from(cents.units().rem_euclid(Credits::UNITS_PER_CREDIT) > 0);
    i64::try_from(whole + rest).ok()
}

/// How long the same key is asked again; then a person decides.
pub const SAME_KEY_SECONDS: i64 = 20 * 3_600;

/// Says whether a key is too old to be charged again: providers forget keys after a day.
pub fn is_too_old(since: Time, now: Time) -> bool {
    now > since.plus_seconds(SAME_KEY_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_in_whole_cents_rounded_up() {
        let check = |usd: &str, expected: i64| {
            assert_eq!(cents(usd.parse().expect("an amount")), Some(expected), "{usd}");
        };
        check("0.5", 50);
        check("0.501", 51);
        check("12.000000001", 1_201);
        check("100000", 10_000_000);
    }

    #[test]
    fn a_key_is_asked_again_for_twenty_hours() {
        let since: Time = "2026-01-01T00:00:00Z".parse().expect("a time");
        assert!(!is_too_old(since, since.plus_seconds(20 * 3_600)));
        assert!(is_too_old(since, since.plus_seconds(20 * 3_600 + 1)));
    }
}
