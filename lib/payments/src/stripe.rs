//! Charges by Stripe: off-session payment intents for top-ups, checkout sessions for one-time purchases.

use async_trait::async_trait;
use ledger_core::value::id::PaymentId;
use ledger_core::value::money::Usd;
use serde_json::Value;

use crate::client::{Answer, Client};
use crate::config::{PaymentConfig, ProviderName, SettingError};
use crate::provider::{Charge, Checkout, CheckoutError, Found, Order, Provider, Refused, Reply, why};

#[derive(Clone)]
pub struct Stripe {
    client: Client,
    return_url: String,
}

impl Stripe {
    /// Errors: no key, or an invalid address.
    pub fn new(config: &PaymentConfig) -> Result<Self, SettingError> {
        if config.stripe_api_key.is_empty() {
            return Err(SettingError::NoKey);
        }
        let client = Client::new(&config.stripe_url, &config.stripe_api_key)?;
        Ok(Self { client, return_url: config.checkout_return_url.clone() })
    }

    /// Returns the payment method's customer: Stripe accepts a saved method only together with it.
    async fn customer(&self, charge: &Charge) -> Result<Option<String>, NoCustomer> {
        let path = format!("/v1/payment_methods/{}", charge.payment_method);
        let answer = self.client.get(&path, &[]).await.map_err(NoCustomer::Unknown)?;
        match answer.status {
            200 => Ok(text(&answer.body, "/customer").map(str::to_owned)),
            400 | 404 => Err(NoCustomer::Refused(refused(&answer))),
            status => Err(NoCustomer::Unknown(format!("status {status}: {}", refusal(&answer.body)))),
        }
    }
}

/// Why a payment method's customer is unknown.
enum NoCustomer {
    Refused(Refused),
    Unknown(String),
}

#[async_trait]
impl Provider for Stripe {
    fn name(&self) -> ProviderName {
        ProviderName::Stripe
    }

    async fn charge(&self, charge: &Charge) -> Result<Reply, Refused> {
        let Some(cents) = charge.usd.and_then(Usd::minor_units) else {
            return Ok(Reply::declined("the account's unit has no price"));
        };
        let customer = match self.customer(charge).await {
            Ok(customer) => customer,
            Err(NoCustomer::Refused(refused)) => return Err(refused),
            Err(NoCustomer::Unknown(detail)) => return Ok(Reply::unknown(detail)),
        };
        let mut form = vec![
            ("amount", cents.to_string()),
            ("currency", "usd".to_owned()),
            ("payment_method", charge.payment_method.to_string()),
            ("off_session", "true".to_owned()),
            ("confirm", "true".to_owned()),
            ("metadata[account_id]", charge.account.to_string()),
            ("metadata[attempt_id]", charge.key.to_string()),
            ("metadata[amount]", charge.amount.to_string()),
        ];
        form.extend(customer.map(|customer| ("customer", customer)));
        match self.client.post("/v1/payment_intents", Some(charge.key.as_str()), &form).await {
            Ok(answer) => judge(&answer),
            Err(detail) => Ok(Reply::unknown(detail)),
        }
    }

    async fn look_up(&self, charge: &Charge) -> Found {
        let query = format!("metadata['attempt_id']:'{}'", charge.key);
        let answer = match self.client.get("/v1/payment_intents/search", &[("query", query)]).await {
            Ok(answer) if answer.status == 200 => answer,
            Ok(answer) => return Found::Known(Reply::unknown(refusal(&answer.body))),
            Err(detail) => return Found::Known(Reply::unknown(detail)),
        };
        let key = Some(charge.key.as_str());
        let intents = answer.body["data"].as_array().into_iter().flatten();
        let mut known =
            intents.filter(|intent| text(intent, "/metadata/attempt_id") == key).map(judge_intent);
        known.next().map_or(Found::Nothing, Found::Known)
    }

    async fn checkout(&self, order: &Order) -> Result<Checkout, CheckoutError> {
        let cents = order.usd.and_then(Usd::minor_units).ok_or(CheckoutError::NoPrice)?;
        let (account, amount) = (order.account.to_string(), order.amount.to_string());
        let form = [
            ("mode", "payment".to_owned()),
            ("line_items[0][quantity]", "1".to_owned()),
            ("line_items[0][price_data][currency]", "usd".to_owned()),
            ("line_items[0][price_data][unit_amount]", cents.to_string()),
            ("line_items[0][price_data][product_data][name]", format!("{amount} credits")),
            ("metadata[account_id]", account.clone()),
            ("metadata[amount]", amount.clone()),
            ("payment_intent_data[metadata][account_id]", account),
            ("payment_intent_data[metadata][amount]", amount),
            ("success_url", self.return_url.clone()),
            ("cancel_url", self.return_url.clone()),
        ];
        let answer = self.client.post("/v1/checkout/sessions", None, &form).await;
        let answer = answer.map_err(CheckoutError::Unavailable)?;
        match answer.status {
            200 => Ok(Checkout {
                checkout_id: text(&answer.body, "/id").unwrap_or_default().to_owned(),
                url: text(&answer.body, "/url").map(str::to_owned),
                client_secret: text(&answer.body, "/client_secret").map(str::to_owned),
            }),
            400..=404 => Err(CheckoutError::Refused(refusal(&answer.body))),
            status => Err(CheckoutError::Unavailable(format!("status {status}"))),
        }
    }
}

/// 402: the card was declined. 400 and 404: no such payment method, or the key was used for another request. Other
/// answers mean that the outcome is unknown.
fn judge(answer: &Answer) -> Result<Reply, Refused> {
    Ok(match answer.status {
        200 => judge_intent(&answer.body),
        402 => Reply::declined(&refusal(&answer.body)),
        400 | 404 => return Err(refused(answer)),
        status => Reply::unknown(format!("status {status}: {}", refusal(&answer.body))),
    })
}

fn refused(answer: &Answer) -> Refused {
    Refused { reason: why(&refusal(&answer.body)) }
}

fn judge_intent(intent: &Value) -> Reply {
    match text(intent, "/status") {
        Some("succeeded") => match text(intent, "/id").map(PaymentId::new) {
            Some(Ok(payment_id)) => Reply::Paid { payment_id },
            _ => Reply::unknown("a payment without an id"),
        },
        // The payer is not present to act on it.
        Some("requires_payment_method" | "requires_action" | "requires_confirmation" | "canceled") => {
            let error = intent.get("last_payment_error");
            Reply::declined(&error.map(code_of).unwrap_or_else(|| "declined".to_owned()))
        }
        status => Reply::unknown(format!("the payment is {}", status.unwrap_or("in no state"))),
    }
}

fn refusal(body: &Value) -> String {
    body.get("error").map_or_else(|| "no reason given".to_owned(), code_of)
}

fn code_of(error: &Value) -> String {
    let said = ["/decline_code", "/code", "/message", "/type"];
    said.iter().find_map(|path| text(error, path)).unwrap_or("declined").to_owned()
}

fn text<'a>(value: &'a Value, path: &str) -> Option<&'a str> {
    value.pointer(path)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(status: u16, body: Value, expected: &str) {
        let said = match judge(&Answer { status, body }) {
            Ok(Reply::Paid { payment_id }) => format!("paid {payment_id}"),
            Ok(Reply::Declined { reason }) => format!("declined {reason}"),
            Ok(Reply::Unknown { .. }) => "unknown".to_owned(),
            Err(Refused { reason }) => format!("refused {reason}"),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn only_what_the_provider_is_sure_of_is_an_outcome() {
        check(200, json!({"id": "pi_1", "status": "succeeded"}), "paid pi_1");
        check(200, json!({"id": "pi_1", "status": "processing"}), "unknown");
        let wants_the_payer =
            json!({"status": "requires_action", "last_payment_error": {"code": "authentication_required"}});
        check(200, wants_the_payer, "declined authentication_required");
        let declined = json!({"error": {"code": "card_declined", "decline_code": "insufficient_funds"}});
        check(402, declined.clone(), "declined insufficient_funds");
        check(404, json!({"error": {"code": "resource_missing"}}), "refused resource_missing");
        check(400, json!({"error": {"type": "idempotency_error"}}), "refused idempotency_error");
        for status in [401, 409, 429, 500, 503] {
            check(status, declined.clone(), "unknown");
        }
    }
}
