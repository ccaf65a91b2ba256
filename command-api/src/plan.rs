//! Plan: changing it now or at the next period.

use axum::extract::{Request, State};
use axum::response::Response;
use ledger_core::event::Data;
use ledger_core::id::Id;
use runtime::http::{Path, Problem};

use crate::app::App;
use crate::asked::Asked;
use crate::submit;

/// `PUT /v1/accounts/{account}/plan`
pub async fn put(
    State(app): State<App>,
    asked: Asked,
    Path(account): Path<Id>,
    request: Request,
) -> Result<Response, Problem> {
    submit::whole_setting(&app, &asked, &account, request, "plan", Data::PlanChanged).await
}
