//! Plan: changes it now or at the next period.

use axum::extract::{Request, State};
use axum::response::Response;
use ledger_core::event::{ChangePlan, Data};
use ledger_core::value::id::AccountId;
use web::auth::Action;
use web::http::{Path, Problem, read_body};

use crate::admission::rate_cards::require_published;
use crate::app::App;
use crate::request_context::RequestContext;
use crate::write::{self, Draft};

/// `PUT /v1/accounts/{account}/plan`
pub async fn put(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::Terms, &account)?;
    let change: ChangePlan = read_body(request).await?;
    let card = change.plan.rate_card.clone();
    let draft = Draft::setting(&account, "plan", Data::PlanChanged(change), context.now);
    let admission = async {
        let recorded_at = write::time_while_open(&app, &context, &account).await?;
        require_published(&app.pool, card.as_ref()).await?;
        Ok(recorded_at)
    };
    write::setting(&app, &context, draft, admission).await
}
