//! Adjustments: manual signed corrections.

use axum::extract::State;
use ledger_core::event::{Adjust, Data, derive};
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
        post("/v1/accounts/{account}/adjustments", adjust)
            .named("adjustCredits", "Corrects the balance by hand: a signed amount, with its reason.")
            .says("By the operator.")
            .with(timed)
            .with(keyed),
    ]
}

/// `POST /v1/accounts/{account}/adjustments`
async fn adjust(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<Adjust>,
) -> Result<Wrote, Problem> {
    context.require(Action::Money, &account)?;
    let key = context.idempotency_key()?;
    let adjustment: Adjust = sent.read().await?;
    let event_id = derive::keyed_id("adjustment", &account, key.as_str());
    let draft = Draft::derived(&account, "adjustment", event_id, Data::CreditsAdjusted(adjustment));
    write::once(&app, &context, draft, write::time_for(&app, &context, &account)).await
}
