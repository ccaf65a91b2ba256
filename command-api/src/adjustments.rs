//! Adjustments: signed corrections by hand.

use axum::extract::{Request, State};
use axum::response::Response;
use ledger_core::derive;
use ledger_core::event::{Adjust, Data};
use ledger_core::id::Id;
use runtime::auth::Action;
use runtime::http::{Path, Problem};

use crate::app::App;
use crate::asked::{self, Asked};
use crate::submit::{self, Draft};

/// `POST /v1/accounts/{account}/adjustments`
pub async fn adjust(
    State(app): State<App>,
    asked: Asked,
    Path(account): Path<Id>,
    request: Request,
) -> Result<Response, Problem> {
    asked.require(Action::Money, &account)?;
    let key = asked.idempotency_key()?;
    let adjustment: Adjust = asked::body(request).await?;
    let event_id = derive::keyed_id("adjustment", &account, key.as_str());
    let draft = Draft::derived(&account, "adjustment", event_id, Data::CreditsAdjusted(adjustment));
    submit::once(&app, &asked, draft, submit::time_for(&app, &asked, &account)).await
}
