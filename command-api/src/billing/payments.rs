//! Payments: purchases made elsewhere and recorded by an operator, and their refunds.

use axum::extract::State;
use ledger_core::event::{Data, Purchase, Refund, derive};
use ledger_core::value::id::AccountId;
use web::auth::Action;
use web::http::{Path, Problem};
use web::openapi::{Route, Sent, post};

use crate::app::App;
use crate::request_context::{RequestContext, keyed, timed};
use crate::write::answer::Wrote;
use crate::write::{self, Draft};

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/accounts/{account}/purchases", purchase)
            .named(
                "recordPurchase",
                "Records a payment that was made elsewhere: its credits arrive as one paid lot.",
            )
            .says("By the operator. The same payment again gets the first answer.")
            .refuses(&["payment_exists", "grant_exists"])
            .with(timed),
        post("/v1/accounts/{account}/refunds", refund)
            .named("recordRefund", "Records that a payment, or part of it, was given back.")
            .says("By the operator. Never more than was paid in total.")
            .refuses(&["payment_unknown", "refund_exceeds_payment"])
            .with(timed)
            .with(keyed),
    ]
}

/// `POST /v1/accounts/{account}/purchases`
async fn purchase(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<Purchase>,
) -> Result<Wrote, Problem> {
    context.require(Action::Money, &account)?;
    let purchase: Purchase = sent.read().await?;
    let draft = Draft::lot(&account, &purchase.payment_id.as_grant(), Data::CreditsPurchased(purchase));
    write::once(&app, &context, draft, write::time_while_open(&app, &context, &account)).await
}

/// `POST /v1/accounts/{account}/refunds`
async fn refund(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<Refund>,
) -> Result<Wrote, Problem> {
    context.require(Action::Money, &account)?;
    let key = context.idempotency_key()?;
    let refund: Refund = sent.read().await?;
    let event_id = derive::keyed_id("refund", &account, key.as_str());
    let draft = Draft::derived(&account, "refund", event_id, Data::CreditsRefunded(refund));
    write::once(&app, &context, draft, write::time_for(&app, &context, &account)).await
}
