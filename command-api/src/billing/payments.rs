//! Payments: purchases made elsewhere and recorded by an operator, and their refunds.

use axum::extract::{Request, State};
use axum::response::Response;
use ledger_core::event::{Data, Purchase, Refund, derive};
use ledger_core::value::id::AccountId;
use web::auth::Action;
use web::http::{Path, Problem, read_body};

use crate::app::App;
use crate::request_context::RequestContext;
use crate::write::{self, Draft};

/// `POST /v1/accounts/{account}/purchases`
pub async fn purchase(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::Money, &account)?;
    let purchase: Purchase = read_body(request).await?;
    let draft = Draft::lot(&account, &purchase.payment_id.as_grant(), Data::CreditsPurchased(purchase));
    write::once(&app, &context, draft, write::time_while_open(&app, &context, &account)).await
}

/// `POST /v1/accounts/{account}/refunds`
pub async fn refund(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::Money, &account)?;
    let key = context.idempotency_key()?;
    let refund: Refund = read_body(request).await?;
    let event_id = derive::keyed_id("refund", &account, key.as_str());
    let draft = Draft::derived(&account, "refund", event_id, Data::CreditsRefunded(refund));
    write::once(&app, &context, draft, write::time_for(&app, &context, &account)).await
}
