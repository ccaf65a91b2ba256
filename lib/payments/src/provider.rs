//! The trait of payment providers, with its requests and answers.
//!
//! A charge has a key, and the provider charges each key once, however often the call is repeated. A missing answer
//! means *unknown*, never *failed*: the same key is sent again.

use std::time::Duration;

use async_trait::async_trait;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, AttemptId, PaymentId, PaymentMethodId, Text};
use ledger_core::value::money::Usd;
use ledger_core::value::time::Time;

use crate::config::ProviderName;

/// Time for one call to a provider, from DNS to the end of its answer.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub struct Charge {
    /// The attempt, and the idempotency key of the charge.
    pub key: AttemptId,
    pub account: AccountId,
    /// In the account's unit.
    pub amount: Credits,
    /// The price; `None` if the account's unit has no price.
    pub usd: Option<Usd>,
    /// The provider's id of the payment method.
    pub payment_method: PaymentMethodId,
}

/// The provider's answer to a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Paid {
        /// The provider's payment; refunds and disputes refer to it.
        payment_id: PaymentId,
    },
    /// It was not paid, and never will be with this key.
    Declined { reason: Text },
    /// The outcome is not known yet.
    Unknown { detail: String },
}

impl Reply {
    pub(crate) fn unknown(detail: impl std::fmt::Display) -> Reply {
        Reply::Unknown { detail: detail.to_string() }
    }

    pub(crate) fn declined(reason: &str) -> Reply {
        Reply::Declined { reason: why(reason) }
    }
}

/// Converts a provider's message to the journal's text type.
pub(crate) fn why(reason: &str) -> Text {
    let fits: String = reason.chars().filter(|c| !c.is_control()).take(200).collect();
    let fits = if fits.is_empty() { "declined" } else { &fits };
    Text::new(fits).expect("a short text without control characters")
}

/// The provider refused the request and charged nothing. An earlier request with the same key may have charged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the payment provider refused the request: {reason}")]
pub struct Refused {
    pub reason: Text,
}

/// The provider's knowledge of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Known(Reply),
    /// The provider never received a charge with it.
    Nothing,
}

/// A one-time purchase.
#[derive(Debug, Clone)]
pub struct Order {
    pub account: AccountId,
    /// In the account's unit.
    pub amount: Credits,
    /// The price; `None` if the account's unit has no price.
    pub usd: Option<Usd>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Checkout {
    pub checkout_id: String,
    pub url: Option<String>,
    pub client_secret: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    #[error("the account's unit has no price: set usd_per_unit when it is opened")]
    NoPrice,
    /// The provider refuses.
    #[error("the payment provider refuses: {0}")]
    Refused(String),
    /// The provider is unreachable or answers unexpectedly.
    #[error("the payment provider can't be reached: {0}")]
    Unavailable(String),
}

/// A payment service.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    fn name(&self) -> ProviderName;

    /// Charges without the payer's presence; each key at most once.
    ///
    /// Errors: the provider refused the request.
    async fn charge(&self, charge: &Charge) -> Result<Reply, Refused>;

    /// Returns the state of a charge, without charging.
    async fn look_up(&self, charge: &Charge) -> Found;

    /// Opens a checkout; its webhook reports when it is paid.
    async fn checkout(&self, order: &Order) -> Result<Checkout, CheckoutError>;
}

/// How long the same key is sent again; after that, an operator decides.
pub const SAME_KEY_SECONDS: i64 = 20 * 3_600;

/// Returns whether a key is too old to be charged again: providers forget keys after a day.
pub fn is_too_old(since: Time, now: Time) -> bool {
    now > since.plus_seconds(SAME_KEY_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_asked_again_for_twenty_hours() {
        let since: Time = "2026-01-01T00:00:00Z".parse().expect("a time");
        assert!(!is_too_old(since, since.plus_seconds(20 * 3_600)));
        assert!(is_too_old(since, since.plus_seconds(20 * 3_600 + 1)));
    }
}
