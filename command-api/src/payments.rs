//! Payments: purchases made elsewhere and recorded by an operator, and their refunds.

use axum::extract::{Request, State};
use axum::response::Response;
use ledger_core::derive;
use ledger_core::event::{Data, Purchase, Refund};
use ledger_core::id::Id;
use runtime::auth::Action;
use runtime::http::{Path, Problem};

use crate::app::App;
use crate::asked::{self, Asked};
use crate::grants::lot_draft;
use crate::submit::{self, Draft};

/// `POST /v1/accounts/{account}/purchases`
pub async fn purchase(
    State(app): State<App>,
    asked: Asked,
    Path(account): Path<Id>,
    request: Request,
) -> Result<Response, Problem> {
    asked.require(Action::Money, &account)?;
    let purchase: Purchase = asked::body(request).await?;
    let draft = lot_draft(&account, &purchase.payment_id.clone(), Data::CreditsPurchased(purchase));
    submit::once(&app, &asked, draft, submit::time_for(&app, &asked, &account)).await
}

/// `POST /v1/accounts/{account}/refunds`
pub async fn refund(
    State(app): State<App>,
    asked: Asked,
    Path(account): Path<Id>,
    request: Request,
) -> Result<Response, Problem> {
    asked.require(Action::Money, &account)?;
    let key = asked.idempotency_key()?;
    let refund: Refund = asked::body(request).await?;
    let event_id = derive::keyed_id("refund", &account, key.as_str());
    let draft = Draft::derived(&account, "refund", event_id, Data::CreditsRefunded(refund));
    submit::once(&app, &asked, draft, submit::time_for(&app, &asked, &account)).await
}
