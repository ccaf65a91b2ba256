//! Parked payments: what a person has to decide, and the decision.

use axum::Json;
use axum::extract::State;
use ledger_core::event::field_error::FieldError;
use ledger_core::request::Body;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, AttemptId, Currency, PaymentId, Text};
use ledger_core::value::schema::{MinorUnits, Reply};
use ledger_core::value::time::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use web::auth::{Action, Principal};
use web::http::{Path, Problem, Query};
use web::openapi::{Route, Sent, get, post};

use super::manual_resolution::{self as payments, ParkedEffect, ResolveError, Signed};
use super::top_up_resolution::{self as top_ups, DecideError, ParkedTopUp};
use crate::app::App;
use crate::request_context::RequestContext;

/// The query of the list.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// Only what waits of this account.
    account_id: Option<AccountId>,
}

/// What waits for a person: the oldest 500 of each, so that what follows comes up as these are decided.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ParkedPayments")]
struct Parked {
    payments: Vec<PaymentView>,
    top_ups: Vec<TopUpView>,
}

/// A payment that was made, or given back, and came to nothing in the journal.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ParkedPayment")]
struct PaymentView {
    account_id: AccountId,
    payment_id: PaymentId,
    /// `paid`, or what else was to follow, such as `refunded`.
    kind: String,
    /// In the account's unit.
    amount: Credits,
    /// What the provider reported, in the currency's smallest unit.
    #[schemars(with = "Option<MinorUnits>")]
    charged: Option<i64>,
    #[schemars(with = "Option<Currency>")]
    currency: Option<String>,
    /// Why it waits.
    reason: String,
    since: Time,
}

/// A top-up whose outcome nobody knows.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ParkedTopUp")]
struct TopUpView {
    account_id: AccountId,
    attempt_id: AttemptId,
    /// In the account's unit.
    amount: Credits,
    payment_method: String,
    /// The payment that the provider named, if its credit was refused: then the top-up can only have failed.
    payment_id: Option<PaymentId>,
    /// What the provider said last.
    #[schemars(with = "Option<Reply>")]
    reason: Option<String>,
    /// When it was started.
    since: Option<Time>,
}

impl From<ParkedEffect> for PaymentView {
    fn from(effect: ParkedEffect) -> PaymentView {
        let ParkedEffect { payment_id, account, kind, amount, charged, currency, reason, since } = effect;
        PaymentView { account_id: account, payment_id, kind, amount, charged, currency, reason, since }
    }
}

impl From<ParkedTopUp> for TopUpView {
    fn from(parked: ParkedTopUp) -> TopUpView {
        let ParkedTopUp { account, attempt, amount, payment_method, payment, reason, since } = parked;
        TopUpView {
            account_id: account,
            attempt_id: attempt,
            amount,
            payment_method,
            payment_id: payment,
            reason,
            since,
        }
    }
}

/// What becomes of a parked payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PaymentVerdict")]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// Credit `amount` for it.
    Credit,
    /// The money was given back at the provider: nothing is credited.
    Refunded,
    /// Nothing is to be done, or it was done by hand.
    Dismissed,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "PaymentDecision")]
#[serde(deny_unknown_fields)]
struct NewDecision {
    decision: Verdict,
    /// What is credited, in the account's unit; with `credit`.
    #[serde(default)]
    amount: Option<Credits>,
    /// The id that the payment has in the journal, where its own is taken; with `credit`.
    #[serde(default)]
    credit_as: Option<PaymentId>,
    /// Why; kept with the decision.
    reason: Text,
}

impl Body for NewDecision {
    const GOOD: &'static str = r#"{"decision":"credit","amount":"1","credit_as":"pi_1","reason":"r"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        check_reason(errors, &self.reason);
        match (self.decision, self.amount) {
            (Verdict::Credit, None) => {
                errors.push(FieldError::new("amount", "required", "is required to credit"));
            }
            (Verdict::Credit, Some(amount)) if !amount.is_positive() => {
                errors.push(FieldError::new("amount", "not_positive", "must be above 0"));
            }
            (Verdict::Credit, Some(_)) => {}
            (Verdict::Refunded | Verdict::Dismissed, amount) => {
                for (field, is_there) in
                    [("amount", amount.is_some()), ("credit_as", self.credit_as.is_some())]
                {
                    if is_there {
                        errors.push(FieldError::new(field, "not_allowed", "goes with credit alone"));
                    }
                }
            }
        }
    }
}

fn check_reason(errors: &mut Vec<FieldError>, reason: &Text) {
    if reason.as_str().trim().is_empty() {
        errors.push(FieldError::new("reason", "empty", "must not be empty"));
    }
}

/// What has become of a top-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "TopUpOutcome")]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// By the payment that `payment_id` names.
    Paid,
    /// For the `reason`.
    Failed,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "TopUpDecision")]
#[serde(deny_unknown_fields)]
struct NewOutcome {
    outcome: Outcome,
    /// The provider's payment; with `paid`.
    #[serde(default)]
    payment_id: Option<PaymentId>,
    /// Why it was not paid; with `failed`.
    #[serde(default)]
    reason: Option<Text>,
}

impl Body for NewOutcome {
    const GOOD: &'static str = r#"{"outcome":"paid","payment_id":"pi_1"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        match self.outcome {
            Outcome::Paid if self.payment_id.is_none() => {
                errors.push(FieldError::new("payment_id", "required", "is required where it was paid"));
            }
            Outcome::Failed if self.reason.is_none() => {
                errors.push(FieldError::new("reason", "required", "is required where it failed"));
            }
            Outcome::Paid | Outcome::Failed => {}
        }
        if let Some(reason) = &self.reason {
            check_reason(errors, reason);
        }
    }
}

/// A decision as it stands now; what follows from it goes to the journal.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DecidedPayment")]
struct DecidedPayment {
    account_id: AccountId,
    payment_id: PaymentId,
    decision: Verdict,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DecidedTopUp")]
struct DecidedTopUp {
    account_id: AccountId,
    attempt_id: AttemptId,
    outcome: Outcome,
}

pub fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/parked-payments", list)
            .named("listParkedPayments", "Lists payments and top-ups that wait for a person's decision.")
            .says("By the operator. The oldest 500 of each."),
        post("/v1/parked-payments/{payment}/decision", decide_payment)
            .named("decideParkedPayment", "Decides what becomes of a payment that came to nothing in the journal.")
            .says(
                "By the operator, after a look at the provider. Everything of the payment that waits is decided, once. A \
                 credit goes to the journal.",
            )
            .refuses(&["nothing_parked", "nothing_to_credit", "grant_exists"]),
        post("/v1/accounts/{account}/top-ups/{attempt}/decision", decide_top_up)
            .named("decideParkedTopUp", "Says what has become of a top-up whose outcome nobody knows.")
            .says("By the operator, after a look at the provider. The outcome goes to the journal, and the next top-up may start.")
            .refuses(&["nothing_parked", "payment_exists", "credit_refused"]),
    ]
}

/// `GET /v1/parked-payments`
async fn list(
    State(app): State<App>,
    principal: Principal,
    Query(query): Query<ListQuery>,
) -> Result<Json<Parked>, Problem> {
    principal.require_role(Action::Money)?;
    let account = query.account_id.as_ref();
    let payments = payments::parked_effects(&app.pool, account).await?;
    let top_ups = top_ups::parked_top_ups(&app.pool, account).await?;
    Ok(Json(Parked {
        payments: payments.into_iter().map(PaymentView::from).collect(),
        top_ups: top_ups.into_iter().map(TopUpView::from).collect(),
    }))
}

/// `POST /v1/parked-payments/{payment}/decision`
async fn decide_payment(
    State(app): State<App>,
    context: RequestContext,
    Path(payment): Path<PaymentId>,
    sent: Sent<NewDecision>,
) -> Result<Json<DecidedPayment>, Problem> {
    context.principal.require_role(Action::Money)?;
    let NewDecision { decision: verdict, amount, credit_as, reason } = sent.read().await?;
    let decision = match (verdict, amount) {
        (Verdict::Credit, Some(amount)) => payments::Decision::Credit { amount, journal_id: credit_as },
        (Verdict::Credit, None) => {
            return Err(Problem::bad_field("amount", "required", "is required to credit"));
        }
        (Verdict::Refunded, _) => payments::Decision::Refunded,
        (Verdict::Dismissed, _) => payments::Decision::Dismissed,
    };
    let actor = context.actor()?;
    let by = Text::new(actor.as_str()).map_err(Problem::internal)?;
    let account_id =
        payments::resolve(&app.pool, &payment, decision, Signed { by, note: reason, actor: Some(actor) })
            .await
            .map_err(unresolved)?;
    Ok(Json(DecidedPayment { account_id, payment_id: payment, decision: verdict }))
}

fn unresolved(error: ResolveError) -> Problem {
    let detail = error.to_string();
    match error {
        ResolveError::NoneParked(_) => Problem::not_found("nothing_parked", detail),
        ResolveError::NothingToCredit(_) => Problem::unprocessable("nothing_to_credit", detail),
        ResolveError::Taken(_) => Problem::unprocessable("grant_exists", detail),
        ResolveError::NoAccount(account) => Problem::account_not_found(account.as_str()),
        ResolveError::Name(error) => Problem::internal(error),
        ResolveError::Postgres(error) => error.into(),
    }
}

/// `POST /v1/accounts/{account}/top-ups/{attempt}/decision`
async fn decide_top_up(
    State(app): State<App>,
    context: RequestContext,
    Path((account, attempt)): Path<(AccountId, AttemptId)>,
    sent: Sent<NewOutcome>,
) -> Result<Json<DecidedTopUp>, Problem> {
    context.require(Action::Money, &account)?;
    let NewOutcome { outcome, payment_id, reason } = sent.read().await?;
    let decision = match (outcome, payment_id, reason) {
        (Outcome::Paid, Some(payment), _) => top_ups::Decision::Paid(payment),
        (Outcome::Failed, _, Some(reason)) => top_ups::Decision::Failed(reason),
        (Outcome::Paid | Outcome::Failed, ..) => {
            return Err(Problem::bad_field("outcome", "required", "names a payment or a reason"));
        }
    };
    app.account(&account, None, context.deadline).await?;
    let attempt_id = top_ups::decide(&app.pool, &account, Some(&attempt), decision, Some(context.actor()?))
        .await
        .map_err(undecided)?;
    Ok(Json(DecidedTopUp { account_id: account, attempt_id, outcome }))
}

fn undecided(error: DecideError) -> Problem {
    let detail = error.to_string();
    match error {
        DecideError::NoneParked(_) => Problem::not_found("nothing_parked", detail),
        DecideError::Credited(_) => Problem::unprocessable("payment_exists", detail),
        DecideError::Refused(_) => Problem::unprocessable("credit_refused", detail),
        DecideError::Name(error) => Problem::internal(error),
        DecideError::Postgres(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use ledger_core::request;

    use super::*;

    fn errors_of<T: Body>(body: &str) -> String {
        match request::read::<T>(serde_json::from_str(body).expect("JSON")) {
            Ok(_) => "fine".to_owned(),
            Err(errors) => {
                let all: Vec<String> = errors.iter().map(|e| format!("{} {}", e.field, e.code)).collect();
                all.join(", ")
            }
        }
    }

    #[test]
    fn an_amount_goes_with_a_credit_alone() {
        let check =
            |body: &str, expected: &str| assert_eq!(errors_of::<NewDecision>(body), expected, "{body}");
        check(r#"{"decision":"credit","amount":"5","reason":"r"}"#, "fine");
        check(r#"{"decision":"dismissed","reason":"r"}"#, "fine");
        check(r#"{"decision":"credit","reason":"r"}"#, "amount required");
        check(r#"{"decision":"credit","amount":"0","reason":"r"}"#, "amount not_positive");
        check(r#"{"decision":"refunded","amount":"5","reason":" "}"#, "reason empty, amount not_allowed");
        check(r#"{"decision":"refunded","credit_as":"p","reason":"r"}"#, "credit_as not_allowed");
    }

    #[test]
    fn an_outcome_names_its_payment_or_its_reason() {
        let check =
            |body: &str, expected: &str| assert_eq!(errors_of::<NewOutcome>(body), expected, "{body}");
        check(r#"{"outcome":"paid","payment_id":"pi_1"}"#, "fine");
        check(r#"{"outcome":"failed","reason":"declined"}"#, "fine");
        check(r#"{"outcome":"paid","reason":"r"}"#, "payment_id required");
        check(r#"{"outcome":"failed"}"#, "reason required");
    }
}
