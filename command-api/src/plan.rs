//! Plan: changing it now or at the next period.

use axum::extract::{Request, State};
use axum::response::Response;
use ledger_core::event::{ChangePlan, Data};
use ledger_core::id::Id;
use runtime::auth::Action;
use runtime::http::{Path, Problem};

use crate::App;
use crate::asked::{self, Asked};
use crate::submit::{self, Draft};

/// `PUT /v1/accounts/{account}/plan`
pub async fn put(
    State(app): State<App>,
    asked: Asked,
    Path(account): Path<Id>,
    request: Request,
) -> Result<Response, Problem> {
    asked.require(Action::Settings, &account)?;
    let change: ChangePlan = asked::body(request).await?;
    let draft = Draft::setting(&account, "plan", Data::PlanChanged(change), asked.now);
    submit::setting(&app, &asked, draft, submit::time_for(&app, &asked, &account)).await
}
