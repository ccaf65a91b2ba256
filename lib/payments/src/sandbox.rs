//! The sandbox is a provider for trials and demos whose outcomes are scripted by the payment method's name. No money moves.
//!
//! It keeps its keys in the database, as a real provider does, so that two workers, a crash or a repeated call
//! charge once. `pm_timeout` charges and does not answer; a second call with the same key returns the payment.
//! A plain method is everybody's; `pm_ok@cus_1` belongs to the customer `cus_1`, as all do at a real provider.

use async_trait::async_trait;
use ledger_core::value::id::{PaymentId, PaymentMethodId};
use platform::pg;
use sqlx::PgPool;

use crate::config::ProviderName;
use crate::customer::{CustomerId, Owner, authorize};
use crate::price::{CURRENCY, MINOR_UNITS_MIN, paid_price};
use crate::provider::{
    Charge, Checkout, CheckoutError, Found, NoOwner, Order, Provider, Refused, Reply, why,
};

/// Prefix of all sandbox ids, so that they can't be mistaken for payments.
pub const PREFIX: &str = "sandbox_";

#[derive(Debug, Clone)]
pub struct Sandbox {
    pool: PgPool,
}

/// The outcome of a key: the payment, or the reason of a decline.
struct Entry {
    payment_id: Option<String>,
    reason: Option<String>,
}

impl Sandbox {
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Records the outcome of a key unless it has one; returns the entry and whether it is new.
    async fn enter(&self, charge: &Charge, declined: Option<&str>) -> Result<(Entry, bool), sqlx::Error> {
        let payment = declined.is_none().then(|| format!("{PREFIX}pi_{}", charge.attempt));
        let entered = sqlx::query!(
            "insert into control.sandbox_charge (idempotency_key, account_id, payment_id, reason, charged_at)
             values ($1, $2, $3, $4, clock_timestamp())
             on conflict (idempotency_key) do nothing",
            charge.key,
            charge.account.as_str(),
            payment,
            declined,
        )
        .execute(pg::bounded(&self.pool))
        .await?;
        let entry = self.entry(&charge.key).await?.ok_or(sqlx::Error::RowNotFound)?;
        Ok((entry, entered.rows_affected() > 0))
    }

    async fn entry(&self, key: &str) -> Result<Option<Entry>, sqlx::Error> {
        sqlx::query_as!(
            Entry,
            "select payment_id, reason from control.sandbox_charge where idempotency_key = $1",
            key
        )
        .fetch_optional(pg::bounded(&self.pool))
        .await
    }

    /// Returns the entry of a charge, also of one made under its attempt's id alone, as keys once were.
    async fn entry_of(&self, charge: &Charge) -> Result<Option<Entry>, sqlx::Error> {
        match self.entry(&charge.key).await? {
            Some(entry) => Ok(Some(entry)),
            None => self.entry(charge.attempt.as_str()).await,
        }
    }

    async fn try_charge(&self, charge: &Charge) -> Result<Reply, sqlx::Error> {
        let (method, _) = parts(&charge.payment_method);
        let Some(minor_units) = charge.minor_units() else {
            return Ok(Reply::declined("the account's unit has no price"));
        };
        let declined = match method {
            _ if minor_units < MINOR_UNITS_MIN => Some("amount_too_small (sandbox)"),
            "pm_ok" | "pm_timeout" => None,
            "pm_fail" => Some("card_declined (sandbox)"),
            "pm_down" => return Ok(Reply::unknown("the sandbox does not answer for pm_down")),
            _ => Some("payment method unknown (sandbox)"),
        };
        let (entry, is_new) = self.enter(charge, declined).await?;
        if is_new && method == "pm_timeout" {
            return Ok(Reply::unknown("the sandbox charged and does not answer for pm_timeout"));
        }
        Ok(reply(charge, &entry))
    }
}

/// Returns a method's name, which says what comes of a charge, and its owner.
fn parts(method: &PaymentMethodId) -> (&str, Owner) {
    match method.as_str().split_once('@') {
        Some((name, customer)) => {
            let owner = CustomerId::new(customer).map_or(Owner::Nobody, Owner::Customer);
            (name, owner)
        }
        None => (method.as_str(), Owner::Everybody),
    }
}

fn reply(charge: &Charge, entry: &Entry) -> Reply {
    match entry.payment_id.as_deref().map(PaymentId::new) {
        Some(Ok(payment_id)) => {
            let price = charge.minor_units().and_then(|paid| paid_price(paid, CURRENCY));
            Reply::Paid { payment_id, price }
        }
        Some(Err(error)) => Reply::unknown(error),
        None => Reply::declined(entry.reason.as_deref().unwrap_or_default()),
    }
}

#[async_trait]
impl Provider for Sandbox {
    fn name(&self) -> ProviderName {
        ProviderName::Sandbox
    }

    async fn owner(&self, method: &PaymentMethodId) -> Result<Owner, NoOwner> {
        Ok(parts(method).1)
    }

    async fn charge(&self, charge: &Charge) -> Result<Reply, Refused> {
        let (_, owner) = parts(&charge.payment_method);
        authorize(&owner, charge.customer.as_ref())
            .map_err(|not_theirs| Refused { reason: why(&not_theirs.to_string()) })?;
        Ok(self.try_charge(charge).await.unwrap_or_else(Reply::unknown))
    }

    async fn look_up(&self, charge: &Charge) -> Found {
        match self.entry_of(charge).await {
            Ok(Some(entry)) => Found::Known(reply(charge, &entry)),
            Ok(None) => Found::Nothing,
            Err(error) => Found::Known(Reply::unknown(error)),
        }
    }

    async fn checkout(&self, order: &Order) -> Result<Checkout, CheckoutError> {
        let checkout_id = format!("{PREFIX}cs_{}", order.reference);
        Ok(Checkout {
            // This URL can't be paid, and the sandbox sends no webhook: to test it, sign and send one.
            url: Some(format!("sandbox://checkout/{checkout_id}")),
            client_secret: Some(format!("{checkout_id}_secret")),
            checkout_id,
        })
    }
}
