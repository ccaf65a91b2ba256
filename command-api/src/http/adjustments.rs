//! Adjustments: manual signed corrections.

use axum::extract::{Request, State};
use axum::response::Response;
use ledger_core::event::{Adjust, Data, derive};
use ledger_core::value::id::AccountId;
use web::auth::Action;
use web::http::{Path, Problem, read_body};

use crate::app::App;
use crate::request_context::RequestContext;
use crate::write::{self, Draft};

/// `POST /v1/accounts/{account}/adjustments`
pub async fn adjust(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::Money, &account)?;
    let key = context.idempotency_key()?;
    let adjustment: Adjust = read_body(request).await?;
    let event_id = derive::keyed_id("adjustment", &account, key.as_str());
    let draft = Draft::derived(&account, "adjustment", event_id, Data::CreditsAdjusted(adjustment));
    write::once(&app, &context, draft, write::time_for(&app, &context, &account)).await
}
