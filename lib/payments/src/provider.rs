//! The trait of payment providers, with its requests and answers.
//!
//! A charge has a key, and the provider charges each key once, however often the call is repeated. A missing answer
//! means *unknown*, never *failed*: the same key is sent again.

use std::time::Duration;

use async_trait::async_trait;
use ledger_core::event;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, AttemptId, PaymentId, PaymentMethodId, Text};
use ledger_core::value::money::Usd;
use ledger_core::value::schema;
use ledger_core::value::time::Time;
use uuid::Uuid;

use crate::config::ProviderName;
use crate::customer::{CustomerId, Owner};
use crate::price::Price;

/// Time for one call to a provider, from DNS to the end of its answer.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub struct Charge {
    /// The provider charges it once; see [`idempotency_key`].
    pub key: String,
    pub attempt: AttemptId,
    pub account: AccountId,
    /// In the account's unit.
    pub amount: Credits,
    /// The price; `None` if the account's unit has no price.
    pub usd: Option<Usd>,
    /// The provider's id of the payment method.
    pub payment_method: PaymentMethodId,
    /// The account's customer, whose methods alone may be charged.
    pub customer: Option<CustomerId>,
    /// When the attempt started: no charge of it is older.
    pub since: Time,
}

impl Charge {
    /// Returns the price in cents, rounded up; none if the account's unit has no price.
    pub(crate) fn minor_units(&self) -> Option<i64> {
        self.usd.and_then(Usd::minor_units)
    }
}

/// Returns the key under which the provider does something once.
///
/// Two ledgers on one provider account give the same names to different things: the journal's id keeps them apart.
pub fn idempotency_key(log_id: Uuid, name: &str) -> String {
    format!("{log_id}:{name}")
}

/// The provider's answer to a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Paid {
        /// The provider's payment; refunds and disputes refer to it.
        payment_id: PaymentId,
        /// The money, where the provider tells it.
        price: Option<event::Price>,
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

/// Why the owner of a payment method is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoOwner {
    /// The provider has no such method.
    Refused(Refused),
    /// The provider is unreachable or answers unexpectedly.
    Unavailable(String),
}

/// A one-time purchase.
#[derive(Debug, Clone)]
pub struct Order {
    /// The provider opens it once; see [`idempotency_key`].
    pub key: String,
    /// The name of the checkout in this ledger, which its webhook tells again.
    pub reference: String,
    pub account: AccountId,
    /// In the account's unit.
    pub amount: Credits,
    pub price: Price,
    /// The account's customer; without one the provider makes one.
    pub customer: Option<CustomerId>,
}

/// A session at the payment provider, where somebody can pay.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Checkout {
    pub checkout_id: String,
    #[schemars(with = "Option<schema::WebAddress>")]
    pub url: Option<String>,
    #[schemars(with = "Option<schema::Secret>")]
    pub client_secret: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
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

    /// Returns who has a payment method.
    async fn owner(&self, method: &PaymentMethodId) -> Result<Owner, NoOwner>;

    /// Charges without the payer's presence; each key at most once, and only a method of the account's customer.
    ///
    /// Errors: the provider refused the request, or the method is not theirs.
    async fn charge(&self, charge: &Charge) -> Result<Reply, Refused>;

    /// Returns the state of a charge, without charging.
    async fn look_up(&self, charge: &Charge) -> Found;

    /// Opens a checkout, each key at most one; its webhook reports when it is paid.
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
