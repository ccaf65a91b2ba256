//! Reads one event of the payment provider.

use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, AttemptId, DisputeId, PaymentId, RefundId};
use payments::CustomerId;
use serde_json::Value;
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookEvent {
    pub payment_id: PaymentId,
    /// The account, if the webhook names it.
    pub account: Option<AccountId>,
    pub attempt: Option<AttemptId>,
    /// The bought amount, in the account's unit.
    pub amount: Option<Credits>,
    /// This ledger's name of the checkout.
    pub reference: Option<String>,
    /// The checkout's session and its payer, if this is about one.
    pub session: Option<Session>,
    /// The journal of the ledger that ordered it; older orders name none.
    pub log_id: Option<String>,
    pub what: What,
}

/// A checkout session as the provider tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub checkout_id: String,
    pub customer: Option<CustomerId>,
}

/// What happened to the payment; amounts are in the provider's smallest unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Paid {
        charged: Option<i64>,
        /// In lower case.
        currency: Option<String>,
    },
    Failed {
        reason: String,
    },
    /// The total refunded so far, and the refunds that it names.
    Refunded {
        total: i64,
        charged: Option<i64>,
        refunds: Vec<ReportedRefund>,
    },
    /// One refund, as it stands.
    Refund(ReportedRefund),
    Opened {
        dispute: DisputeId,
        amount: i64,
    },
    /// The dispute ended against the payer.
    Won {
        dispute: DisputeId,
        amount: i64,
    },
}

/// A refund as the provider tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedRefund {
    pub refund_id: RefundId,
    pub amount: i64,
    /// The money came back: it failed, or was canceled before it went out.
    pub failed: bool,
}

impl WebhookEvent {
    /// Reads an event; none if it does not concern credits.
    pub fn read(event: &Value) -> Option<WebhookEvent> {
        let object = event.pointer("/data/object")?;
        let kind = event.get("type")?.as_str()?;
        let what = what(kind, object)?;
        // A refund or dispute of a charge without a payment intent names the charge, whose own id it is.
        let payment =
            ["payment_intent", "charge", "id"].into_iter().find_map(|name| named(object.get(name)?))?;
        let said = |name: &str| object.pointer(&format!("/metadata/{name}")).and_then(Value::as_str);
        let webhook = WebhookEvent {
            payment_id: payment,
            account: said("account_id").and_then(|account| AccountId::new(account).ok()),
            attempt: said("attempt_id").and_then(|attempt| AttemptId::new(attempt).ok()),
            amount: said("amount")
                .and_then(|amount| amount.parse().ok())
                .filter(|amount: &Credits| amount.is_positive()),
            reference: said("checkout").map(str::to_owned),
            session: if kind.starts_with(SESSIONS) { session(object) } else { None },
            log_id: said("log_id").map(str::to_owned),
            what,
        };
        // The same provider account may take payments that are not ours.
        let is_ours = match &webhook.what {
            What::Paid { .. } => {
                webhook.reference.is_some() || (webhook.account.is_some() && webhook.amount.is_some())
            }
            What::Failed { .. } => webhook.account.is_some() && webhook.attempt.is_some(),
            What::Refunded { .. } | What::Refund(_) | What::Opened { .. } | What::Won { .. } => true,
        };
        is_ours.then_some(webhook)
    }

    /// Returns whether it is about something of the ledger with this journal; another on the same provider account names
    /// its own.
    pub fn is_of(&self, log_id: Uuid) -> bool {
        self.log_id.as_ref().is_none_or(|said| *said == log_id.to_string())
    }
}

/// Prefix of the kinds of events about checkout sessions.
const SESSIONS: &str = "checkout.session.";

fn session(object: &Value) -> Option<Session> {
    let checkout_id = object.get("id")?.as_str()?.to_owned();
    let customer = object
        .get("customer")
        .and_then(|customer| customer.as_str().or_else(|| customer.get("id")?.as_str()));
    Some(Session { checkout_id, customer: customer.and_then(|id| CustomerId::new(id).ok()) })
}

fn what(kind: &str, object: &Value) -> Option<What> {
    let number = |name: &str| object.get(name).and_then(Value::as_i64);
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let dispute =
        || Some((DisputeId::new(text("/id")?).ok()?, number("amount").filter(|amount| *amount > 0)?));
    Some(match kind {
        "checkout.session.completed" | "checkout.session.async_payment_succeeded" => {
            // Checkout is complete but paid later: another webhook reports the payment.
            if text("/payment_status").is_some_and(|status| status == "unpaid") {
                return None;
            }
            What::Paid { charged: number("amount_total"), currency: currency(object) }
        }
        "payment_intent.succeeded" => {
            let charged = number("amount_received").or_else(|| number("amount"));
            What::Paid { charged, currency: currency(object) }
        }
        "payment_intent.payment_failed" | "payment_intent.canceled" => {
            let said = ["/last_payment_error/decline_code", "/last_payment_error/code"];
            let reason = said.into_iter().find_map(text).unwrap_or("declined");
            What::Failed { reason: reason.chars().filter(|c| !c.is_control()).take(200).collect() }
        }
        "charge.refunded" => What::Refunded {
            total: number("amount_refunded").filter(|total| *total > 0)?,
            charged: number("amount").filter(|charged| *charged > 0),
            refunds: listed(object),
        },
        "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => {
            let reported = refund(object)?;
            What::Refund(ReportedRefund { failed: reported.failed || kind == "refund.failed", ..reported })
        }
        // An inquiry takes no money; if it becomes a dispute later, only the withdrawal reports that.
        "charge.dispute.created" | "charge.dispute.funds_withdrawn"
            if !text("/status").unwrap_or_default().starts_with("warning_") =>
        {
            let (dispute, amount) = dispute()?;
            What::Opened { dispute, amount }
        }
        "charge.dispute.closed" if text("/status") == Some("won") => {
            let (dispute, amount) = dispute()?;
            What::Won { dispute, amount }
        }
        _ => return None,
    })
}

/// Reads the refunds that a charge lists; newer versions of the provider's API list none.
fn listed(charge: &Value) -> Vec<ReportedRefund> {
    let refunds = charge.pointer("/refunds/data").and_then(Value::as_array);
    refunds.into_iter().flatten().filter_map(refund).collect()
}

fn refund(object: &Value) -> Option<ReportedRefund> {
    let status = object.get("status").and_then(Value::as_str);
    Some(ReportedRefund {
        refund_id: RefundId::new(object.get("id")?.as_str()?).ok()?,
        amount: object.get("amount")?.as_i64().filter(|amount| *amount > 0)?,
        failed: matches!(status, Some("failed" | "canceled")),
    })
}

fn currency(object: &Value) -> Option<String> {
    Some(object.get("currency")?.as_str()?.to_ascii_lowercase())
}

/// Returns the id from a string or from an object that has one.
fn named(value: &Value) -> Option<PaymentId> {
    let text = value.as_str().or_else(|| value.get("id")?.as_str())?;
    PaymentId::new(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(kind: &str, object: Value, expected: &str) {
        let webhook = WebhookEvent::read(&json!({"type": kind, "data": {"object": object}}));
        let said = webhook
            .map_or("nothing".to_owned(), |webhook| format!("{} {:?}", webhook.payment_id, webhook.what));
        assert_eq!(said, expected, "{kind}");
    }

    #[test]
    fn what_is_about_credits_is_heard_and_nothing_else() {
        let ours = json!({"account_id": "acme", "amount": "100"});
        let session = |status: &str| json!({"id": "cs_1", "payment_intent": "pi_1", "payment_status": status, "amount_total": 500, "currency": "USD", "metadata": ours});
        check(
            "checkout.session.completed",
            session("paid"),
            r#"pi_1 Paid { charged: Some(500), currency: Some("usd") }"#,
        );
        check("checkout.session.completed", session("unpaid"), "nothing");
        check("checkout.session.completed", json!({"id": "cs_1", "payment_intent": "pi_1"}), "nothing");
        check(
            "payment_intent.succeeded",
            json!({"id": "pi_1", "metadata": ours}),
            "pi_1 Paid { charged: None, currency: None }",
        );
        let refund =
            json!({"id": "ch_1", "payment_intent": {"id": "pi_1"}, "amount": 500, "amount_refunded": 200});
        check(
            "charge.refunded",
            refund.clone(),
            "pi_1 Refunded { total: 200, charged: Some(500), refunds: [] }",
        );
        let mut listing = refund;
        listing["refunds"] =
            json!({"data": [{"id": "re_1", "amount": 200, "status": "pending"}, {"id": "re_0"}]});
        let reported =
            |failed: bool| format!("ReportedRefund {{ refund_id: \"re_1\", amount: 200, failed: {failed} }}");
        let listed =
            format!("pi_1 Refunded {{ total: 200, charged: Some(500), refunds: [{}] }}", reported(false));
        check("charge.refunded", listing, &listed);
        let one = |status: &str| json!({"id": "re_1", "charge": "ch_1", "payment_intent": "pi_1", "amount": 200, "status": status});
        let (stands, failed) =
            (format!("pi_1 Refund({})", reported(false)), format!("pi_1 Refund({})", reported(true)));
        check("refund.created", one("pending"), &stands);
        check("refund.updated", one("succeeded"), &stands);
        check("refund.updated", one("failed"), &failed);
        check("refund.updated", one("canceled"), &failed);
        check("charge.refund.updated", one("failed"), &failed);
        check("refund.failed", one("succeeded"), &failed);
        let of_a_charge = json!({"id": "re_1", "charge": "ch_1", "payment_intent": null, "amount": 200});
        check("refund.created", of_a_charge, &stands.replace("pi_1", "ch_1"));
        check("refund.created", json!({"id": "re_1", "charge": "ch_1"}), "nothing");
        let dispute =
            |status: &str| json!({"id": "dp_1", "payment_intent": "pi_1", "amount": 500, "status": status});
        check(
            "charge.dispute.created",
            dispute("needs_response"),
            "pi_1 Opened { dispute: \"dp_1\", amount: 500 }",
        );
        check("charge.dispute.created", dispute("warning_needs_response"), "nothing");
        check(
            "charge.dispute.funds_withdrawn",
            dispute("needs_response"),
            "pi_1 Opened { dispute: \"dp_1\", amount: 500 }",
        );
        check("charge.dispute.closed", dispute("won"), "pi_1 Won { dispute: \"dp_1\", amount: 500 }");
        check("charge.dispute.closed", dispute("lost"), "nothing");
        check("customer.created", json!({"id": "cus_1"}), "nothing");
    }

    #[test]
    fn the_payer_of_a_session_is_an_id_or_an_object_with_one() {
        let payer = |customer: Value| {
            session(&json!({"id": "cs_1", "customer": customer})).and_then(|one| one.customer)
        };
        let mine = CustomerId::new("cus_1").ok();
        assert_eq!(payer(json!("cus_1")), mine);
        assert_eq!(payer(json!({"id": "cus_1"})), mine);
        assert_eq!(payer(Value::Null), None);
    }
}
