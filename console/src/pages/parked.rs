//! Parked payments and top-ups of an account: what waits for an operator's decision, as the billing page shows it.

use ledger_core::value::time::Time;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Client, Failure};
use crate::format::{self, Amount, Sum, Unit, When};
use crate::typed::{Typed, filled};
use crate::visit::{Fields, segment};

#[derive(Deserialize)]
pub struct Parked {
    payments: Vec<Payment>,
    top_ups: Vec<TopUp>,
}

#[derive(Deserialize)]
struct Payment {
    payment_id: String,
    kind: String,
    amount: Sum,
    charged: Option<i64>,
    currency: Option<String>,
    reason: String,
    since: Time,
}

#[derive(Deserialize)]
struct TopUp {
    attempt_id: String,
    amount: Sum,
    payment_method: String,
    payment_id: Option<String>,
    reason: Option<String>,
    since: Option<Time>,
}

/// What waits, and the form that was refused, with what was typed.
pub struct Waiting {
    pub rows: Vec<Row>,
    pub typed: Typed,
}

/// A payment or a top-up that waits.
pub struct Row {
    pub id: String,
    pub what: String,
    pub amount: Amount,
    /// The amount without marks, as a field has it.
    pub plain: String,
    /// What the provider reports, or whom it charges.
    pub told: String,
    pub reason: String,
    pub since: Option<When>,
    pub acts: Vec<Act>,
    /// Where its forms go.
    pub action: String,
}

/// A decision that may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Credit,
    Refunded,
    Dismissed,
    Paid,
    Failed,
}

impl Act {
    /// Returns its word in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Act::Credit => "credit",
            Act::Refunded => "refunded",
            Act::Dismissed => "dismissed",
            Act::Paid => "paid",
            Act::Failed => "failed",
        }
    }

    pub const fn label(self) -> &'static str {
        match self {
            Act::Credit => "Credit",
            Act::Refunded => "Given back",
            Act::Dismissed => "Dismiss",
            Act::Paid => "Was paid",
            Act::Failed => "Failed",
        }
    }
}

impl Waiting {
    /// Returns what a field shows: what was typed into a form that was refused, otherwise what is proposed.
    pub fn value<'a>(&'a self, row: &Row, act: &Act, name: &str, proposed: &'a str) -> &'a str {
        if self.is_open(row, act) { self.typed.get(name) } else { proposed }
    }

    pub fn wrong(&self, row: &Row, act: &Act, field: &str) -> &str {
        if self.is_open(row, act) { self.typed.wrong(field) } else { "" }
    }

    /// Returns whether this form was refused.
    pub fn is_open(&self, row: &Row, act: &Act) -> bool {
        self.typed.get("id") == row.id && self.typed.get("act") == act.word()
    }
}

/// Reads what waits of an account.
pub async fn waiting(api: &Client, id: &str) -> Result<Parked, Failure> {
    let asked = Fields::from_iter([("account_id", id)]).link();
    api.get(&format!("/v1/parked-payments{asked}")).await
}

pub fn rows(place: &str, unit: Unit, parked: Parked) -> Vec<Row> {
    let payments = parked.payments.into_iter().map(|payment| payment_row(place, unit, payment));
    let top_ups = parked.top_ups.into_iter().map(|top_up| top_up_row(place, unit, top_up));
    payments.chain(top_ups).collect()
}

fn payment_row(place: &str, unit: Unit, payment: Payment) -> Row {
    let is_paid = payment.kind == "paid";
    let all = [Act::Credit, Act::Refunded, Act::Dismissed];
    Row {
        action: format!("{place}/parked/payments/{}", segment(&payment.payment_id)),
        what: if is_paid { "Payment".to_owned() } else { format::words(&payment.kind) },
        amount: unit.show(payment.amount),
        plain: payment.amount.0.to_string(),
        told: match (payment.charged, payment.currency.as_deref()) {
            (Some(cents), Some("usd")) => format!("the provider reports {}", dollars(cents)),
            (Some(units), Some(currency)) => {
                format!("the provider reports {units} {}, in the smallest unit", currency.to_uppercase())
            }
            (Some(units), None) => format!("the provider reports {units}, in the smallest unit"),
            (None, _) => "the provider reports no money".to_owned(),
        },
        reason: format::words(&payment.reason),
        since: Some(format::when(&payment.since)),
        // What is credited already can't be credited again.
        acts: all.into_iter().filter(|act| is_paid || *act != Act::Credit).collect(),
        id: payment.payment_id,
    }
}

fn top_up_row(place: &str, unit: Unit, top_up: TopUp) -> Row {
    let is_refused = top_up.payment_id.is_some();
    let told = match &top_up.payment_id {
        Some(payment) => format!("the provider charged {payment}, and the credit was refused"),
        None => format!("charged to {}", top_up.payment_method),
    };
    Row {
        action: format!("{place}/parked/top-ups/{}", segment(&top_up.attempt_id)),
        what: "Auto top-up".to_owned(),
        amount: unit.show(top_up.amount),
        plain: top_up.amount.0.to_string(),
        told,
        reason: top_up.reason.unwrap_or_default(),
        since: top_up.since.as_ref().map(format::when),
        // No other payment can be credited to it.
        acts: if is_refused { vec![Act::Failed] } else { vec![Act::Paid, Act::Failed] },
        id: top_up.attempt_id,
    }
}

fn dollars(cents: i64) -> String {
    let (sign, cents) = (if cents < 0 { "-" } else { "" }, cents.unsigned_abs());
    format!("{sign}${}.{:02}", cents / 100, cents % 100)
}

/// Returns the decision on a payment as the form has it.
pub fn payment_body(form: &Fields) -> Value {
    let mut body = filled(form, &["reason"]);
    body.insert("decision".into(), form.get("act").into());
    if form.get("act") == Act::Credit.word() {
        body.extend(filled(form, &["amount", "credit_as"]));
    }
    body.into()
}

/// Returns what has become of a top-up as the form has it.
pub fn top_up_body(form: &Fields) -> Value {
    match form.get("act") {
        "paid" => json!({"outcome": "paid", "payment_id": form.filled("payment_id")}),
        act => json!({"outcome": act, "reason": form.filled("reason")}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payment(kind: &str, charged: Option<i64>, currency: &str) -> Row {
        let payment = json!({"payment_id": "pi/1", "kind": kind, "amount": "100", "charged": charged, "currency": currency,
                             "reason": "grant_exists", "since": "2026-03-10T00:00:00Z"});
        payment_row("/b", Unit::Credits, serde_json::from_value(payment).expect("a payment"))
    }

    #[test]
    fn only_what_is_paid_can_be_credited() {
        assert_eq!(payment("paid", None, "").acts, [Act::Credit, Act::Refunded, Act::Dismissed]);
        assert_eq!(payment("refunded", None, "").acts, [Act::Refunded, Act::Dismissed]);
        assert_eq!(payment("paid", None, "").action, "/b/parked/payments/pi%2F1");
    }

    #[test]
    fn money_is_told_as_the_provider_reports_it() {
        assert_eq!(payment("paid", Some(9_005), "usd").told, "the provider reports $90.05");
        let told = payment("paid", Some(9_005), "jpy").told;
        assert_eq!(told, "the provider reports 9005 JPY, in the smallest unit");
    }

    #[test]
    fn a_decision_is_sent_with_its_own_fields_alone() {
        let form = Fields::read(b"act=credit&amount=5&credit_as=&reason=agreed&id=pi_1");
        assert_eq!(payment_body(&form), json!({"decision": "credit", "amount": "5", "reason": "agreed"}));
        let form = Fields::read(b"act=refunded&amount=5&reason=agreed");
        assert_eq!(payment_body(&form), json!({"decision": "refunded", "reason": "agreed"}));
        let form = Fields::read(b"act=paid&payment_id=pi_1&reason=x");
        assert_eq!(top_up_body(&form), json!({"outcome": "paid", "payment_id": "pi_1"}));
    }
}
