//! Clock: advances a test account's ledger time.

use axum::extract::State;
use ledger_core::event::{AdvanceClock, Clock, Data};
use ledger_core::value::id::AccountId;
use ledger_core::value::time::Time;
use web::auth::Action;
use web::http::{Path, Problem};
use web::openapi::{Route, Sent, Tagged, post};

use crate::admission::ledger_time::clock_is_live;
use crate::app::App;
use crate::request_context::RequestContext;
use crate::write::answer::Wrote;
use crate::write::{self, Draft};

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/accounts/{account}/clock", advance)
            .named("advanceClock", "Moves the test clock of an account forward.")
            .says("By the operator. Going back is ignored.")
            .refuses(&["clock_is_live", "clock_jump"]),
    ]
}

/// `POST /v1/accounts/{account}/clock`
async fn advance(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<AdvanceClock>,
) -> Result<Tagged<Wrote>, Problem> {
    context.require(Action::Terms, &account)?;
    let advance: AdvanceClock = sent.read().await?;
    let to = advance.advance_to;
    let draft = Draft::setting(&account, "clock", Data::ClockAdvanced(advance), context.now);
    write::setting(&app, &context, draft, moves_at(&app, &context, &account, to)).await
}

/// The event is recorded at the target time; the fold ignores a move backwards.
async fn moves_at(
    app: &App,
    context: &RequestContext,
    account: &AccountId,
    to: Time,
) -> Result<Time, Problem> {
    let known = app.account(account, Some(to), context.deadline).await?;
    match known.clock {
        Clock::Live => Err(clock_is_live()),
        Clock::Test => Ok(to),
    }
}
