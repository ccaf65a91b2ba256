//! The sandbox is a provider for trials and demos whose outcomes are scripted by the payment method's name. No money moves.
//!
//! It keeps its keys in the database, as a real provider does, so that two workers, a crash or a repeated call
//! charge once. `pm_timeout` charges and does not answer; a second call with the same key returns the payment.

use async_trait::async_trait;
use ledger_core::value::id::PaymentId;
use sqlx::PgPool;
use uuid::Uuid;

use crate::config::ProviderName;
use crate::provider::{Charge, Checkout, CheckoutError, Found, Order, Provider, Refused, Reply};

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
        let payment = declined.is_none().then(|| format!("{PREFIX}pi_{}", charge.key));
        let entered = sqlx::query!(
            "insert into control.sandbox_charge (idempotency_key, account_id, payment_id, reason, charged_at)
             values ($1, $2, $3, $4, clock_timestamp())
             on conflict (idempotency_key) do nothing",
            charge.key.as_str(),
            charge.account.as_str(),
            payment,
            declined,
        )
        .execute(&self.pool)
        .await?;
        let entry = self.entry(charge).await?.ok_or(sqlx::Error::RowNotFound)?;
        Ok((entry, entered.rows_affected() > 0))
    }

    async fn entry(&self, charge: &Charge) -> Result<Option<Entry>, sqlx::Error> {
        sqlx::query_as!(
            Entry,
            "select payment_id, reason from control.sandbox_charge where idempotency_key = $1",
            charge.key.as_str()
        )
        .fetch_optional(&self.pool)
        .await
    }

    async fn try_charge(&self, charge: &Charge) -> Result<Reply, sqlx::Error> {
        let declined = match charge.payment_method.as_str() {
            "pm_ok" | "pm_timeout" => None,
            "pm_fail" => Some("card_declined (sandbox)"),
            "pm_down" => return Ok(Reply::unknown("the sandbox does not answer for pm_down")),
            _ => Some("payment method unknown (sandbox)"),
        };
        let (entry, is_new) = self.enter(charge, declined).await?;
        if is_new && charge.payment_method.as_str() == "pm_timeout" {
            return Ok(Reply::unknown("the sandbox charged and does not answer for pm_timeout"));
        }
        Ok(reply(&entry))
    }
}

fn reply(entry: &Entry) -> Reply {
    match entry.payment_id.as_deref().map(PaymentId::new) {
        Some(Ok(payment_id)) => Reply::Paid { payment_id },
        Some(Err(error)) => Reply::unknown(error),
        None => Reply::declined(entry.reason.as_deref().unwrap_or_default()),
    }
}

#[async_trait]
impl Provider for Sandbox {
    fn name(&self) -> ProviderName {
        ProviderName::Sandbox
    }

    async fn charge(&self, charge: &Charge) -> Result<Reply, Refused> {
        Ok(self.try_charge(charge).await.unwrap_or_else(Reply::unknown))
    }

    async fn look_up(&self, charge: &Charge) -> Found {
        match self.entry(charge).await {
            Ok(Some(entry)) => Found::Known(reply(&entry)),
            Ok(None) => Found::Nothing,
            Err(error) => Found::Known(Reply::unknown(error)),
        }
    }

    async fn checkout(&self, _: &Order) -> Result<Checkout, CheckoutError> {
        let checkout_id = format!("{PREFIX}cs_{}", Uuid::now_v7());
        Ok(Checkout {
            // This URL can't be paid, and the sandbox sends no webhook: to test it, sign and send one.
            url: Some(format!("sandbox://checkout/{checkout_id}")),
            client_secret: Some(format!("{checkout_id}_secret")),
            checkout_id,
        })
    }
}
