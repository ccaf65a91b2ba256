//! Plan: changes it now or at the next period.

use axum::extract::{Request, State};
use axum::response::Response;
use ledger_core::event::Data;
use ledger_core::value::id::AccountId;
use web::auth::Action;
use web::http::{Path, Problem};

use crate::app::App;
use crate::request_context::RequestContext;
use crate::write;

/// `PUT /v1/accounts/{account}/plan`
pub async fn put(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::Terms, &account)?;
    write::whole_setting(&app, &context, &account, request, "plan", Data::PlanChanged).await
}
