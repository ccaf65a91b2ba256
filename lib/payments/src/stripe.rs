//! Charges by Stripe: off-session payment intents for top-ups, checkout sessions for one-time purchases.

use async_trait::async_trait;
use ledger_core::event;
use ledger_core::value::id::{PaymentId, PaymentMethodId};
use serde_json::Value;
use uuid::Uuid;

use crate::client::{Answer, Client};
use crate::config::{PaymentConfig, ProviderName, SettingError};
use crate::customer::{CustomerId, Owner, authorize};
use crate::price::{CURRENCY, paid_price};
use crate::provider::{
    Charge, Checkout, CheckoutError, Found, NoOwner, Order, Provider, Refused, Reply, why,
};

/// Most payments that a look-up reads; an attempt has one for each ledger that shares the provider account.
const SEARCH_MAX: u32 = 100;
/// How far the provider's clock may be behind the journal's, in seconds.
const CLOCKS_APART_SECONDS_MAX: i64 = 60;

#[derive(Clone)]
pub struct Stripe {
    client: Client,
    return_url: String,
    /// Tells this ledger's payments from those of others on the same provider account.
    log_id: Uuid,
}

impl Stripe {
    /// Errors: no key, or an invalid address.
    pub fn new(config: &PaymentConfig, log_id: Uuid) -> Result<Self, SettingError> {
        if config.stripe_api_key.is_empty() {
            return Err(SettingError::NoKey);
        }
        let client = Client::new(&config.stripe_url, &config.stripe_api_key)?;
        Ok(Self { client, return_url: config.checkout_return_url.clone(), log_id })
    }

    fn checkout_form(&self, order: &Order) -> Vec<(&'static str, String)> {
        let (account, amount) = (order.account.to_string(), order.amount.to_string());
        let (reference, log_id) = (order.reference.clone(), self.log_id.to_string());
        let mut form = vec![
            ("mode", "payment".to_owned()),
            ("line_items[0][quantity]", "1".to_owned()),
            ("line_items[0][price_data][currency]", CURRENCY.to_owned()),
            ("line_items[0][price_data][unit_amount]", order.price.minor_units.to_string()),
            ("line_items[0][price_data][product_data][name]", format!("{amount} credits")),
            ("metadata[account_id]", account.clone()),
            ("metadata[amount]", amount.clone()),
            ("metadata[checkout]", reference.clone()),
            ("metadata[log_id]", log_id.clone()),
            // Refunds and the payment's own events carry these.
            ("payment_intent_data[metadata][account_id]", account),
            ("payment_intent_data[metadata][amount]", amount),
            ("payment_intent_data[metadata][checkout]", reference),
            ("payment_intent_data[metadata][log_id]", log_id),
            ("success_url", self.return_url.clone()),
            ("cancel_url", self.return_url.clone()),
        ];
        form.push(match &order.customer {
            Some(customer) => ("customer", customer.to_string()),
            None => ("customer_creation", "always".to_owned()),
        });
        form
    }

    /// Returns whether a payment is that of a charge.
    ///
    /// Payments have not always named their journal. One that does not is taken for ours only if it is the account's and
    /// no older than the attempt: another ledger's attempt of this name is another time's.
    fn is_of(&self, charge: &Charge, intent: &Value) -> bool {
        let said = |name: &str| text(intent, &format!("/metadata/{name}"));
        if said("attempt_id") != Some(charge.attempt.as_str()) {
            return false;
        }
        if let Some(log_id) = said("log_id") {
            return log_id == self.log_id.to_string();
        }
        let earliest = charge.since.micros().div_euclid(1_000_000) - CLOCKS_APART_SECONDS_MAX;
        let created = intent.get("created").and_then(Value::as_i64);
        said("account_id").is_none_or(|account| account == charge.account.as_str())
            && created.is_none_or(|created| created >= earliest)
    }
}

#[async_trait]
impl Provider for Stripe {
    fn name(&self) -> ProviderName {
        ProviderName::Stripe
    }

    async fn owner(&self, method: &PaymentMethodId) -> Result<Owner, NoOwner> {
        let path = format!("/v1/payment_methods/{}", path_segment(method.as_str()));
        let answer = self.client.get(&path, &[]).await.map_err(NoOwner::Unavailable)?;
        match answer.status {
            200 => match text(&answer.body, "/customer").map(CustomerId::new) {
                Some(Ok(customer)) => Ok(Owner::Customer(customer)),
                Some(Err(error)) => Err(NoOwner::Unavailable(error.to_string())),
                None => Ok(Owner::Nobody),
            },
            400 | 404 => Err(NoOwner::Refused(refused(&answer))),
            status => Err(NoOwner::Unavailable(format!("status {status}: {}", refusal(&answer.body)))),
        }
    }

    async fn charge(&self, charge: &Charge) -> Result<Reply, Refused> {
        let Some(cents) = charge.minor_units() else {
            return Ok(Reply::declined("the account's unit has no price"));
        };
        let owner = match self.owner(&charge.payment_method).await {
            Ok(owner) => owner,
            Err(NoOwner::Refused(refused)) => return Err(refused),
            Err(NoOwner::Unavailable(detail)) => return Ok(Reply::unknown(detail)),
        };
        // Also if it was theirs when the settings were saved.
        authorize(&owner, charge.customer.as_ref())
            .map_err(|not_theirs| Refused { reason: why(&not_theirs.to_string()) })?;
        let mut form = vec![
            ("amount", cents.to_string()),
            ("currency", CURRENCY.to_owned()),
            ("payment_method", charge.payment_method.to_string()),
            ("off_session", "true".to_owned()),
            ("confirm", "true".to_owned()),
            ("metadata[account_id]", charge.account.to_string()),
            ("metadata[attempt_id]", charge.attempt.to_string()),
            ("metadata[amount]", charge.amount.to_string()),
            ("metadata[log_id]", self.log_id.to_string()),
        ];
        form.extend(charge.customer.as_ref().map(|customer| ("customer", customer.to_string())));
        match self.client.post("/v1/payment_intents", Some(&charge.key), &form).await {
            Ok(answer) => judge(&answer),
            Err(detail) => Ok(Reply::unknown(detail)),
        }
    }

    async fn look_up(&self, charge: &Charge) -> Found {
        let query = format!("metadata['attempt_id']:'{}'", charge.attempt);
        let query = [("query", query), ("limit", SEARCH_MAX.to_string())];
        let answer = match self.client.get("/v1/payment_intents/search", &query).await {
            Ok(answer) if answer.status == 200 => answer,
            Ok(answer) => return Found::Known(Reply::unknown(refusal(&answer.body))),
            Err(detail) => return Found::Known(Reply::unknown(detail)),
        };
        let intents = answer.body["data"].as_array().into_iter().flatten();
        let mut known = intents.filter(|intent| self.is_of(charge, intent)).map(judge_intent);
        known.next().map_or(Found::Nothing, Found::Known)
    }

    async fn checkout(&self, order: &Order) -> Result<Checkout, CheckoutError> {
        let form = self.checkout_form(order);
        let answer = self.client.post("/v1/checkout/sessions", Some(&order.key), &form).await;
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
            Some(Ok(payment_id)) => Reply::Paid { payment_id, price: price_of_intent(intent) },
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

fn price_of_intent(intent: &Value) -> Option<event::Price> {
    let number = |name: &str| intent.get(name).and_then(Value::as_i64);
    let paid = number("amount_received").or_else(|| number("amount"))?;
    paid_price(paid, &text(intent, "/currency")?.to_ascii_lowercase())
}

fn refusal(body: &Value) -> String {
    body.get("error").map_or_else(|| "no reason given".to_owned(), code_of)
}

fn code_of(error: &Value) -> String {
    let said = ["/decline_code", "/code", "/message", "/type"];
    said.iter().find_map(|path| text(error, path)).unwrap_or("declined").to_owned()
}

/// Percent-encodes an id, so that it stays one segment of a path.
fn path_segment(id: &str) -> String {
    url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>().replace('+', "%20")
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
            Ok(Reply::Paid { payment_id, price }) => {
                let price = price.map(|price| format!(" {} {}", price.amount, price.currency));
                format!("paid {payment_id}{}", price.unwrap_or_default())
            }
            Ok(Reply::Declined { reason }) => format!("declined {reason}"),
            Ok(Reply::Unknown { .. }) => "unknown".to_owned(),
            Err(Refused { reason }) => format!("refused {reason}"),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn only_what_the_provider_is_sure_of_is_an_outcome() {
        check(200, json!({"id": "pi_1", "status": "succeeded"}), "paid pi_1");
        let paid = json!({"id": "pi_1", "status": "succeeded", "amount": 50, "amount_received": 51, "currency": "usd"});
        check(200, paid, "paid pi_1 0.51 usd");
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
