//! Clock: moving a test account's ledger time forward.

use axum::extract::{Request, State};
use axum::response::Response;
use ledger_core::event::{AdvanceClock, Clock, Data};
use ledger_core::id::Id;
use ledger_core::time::Time;
use runtime::auth::Action;
use runtime::http::{Path, Problem};

use crate::app::App;
use crate::asked::{self, Asked};
use crate::submit::{self, Draft};

/// `POST /v1/accounts/{account}/clock`
pub async fn advance(
    State(app): State<App>,
    asked: Asked,
    Path(account): Path<Id>,
    request: Request,
) -> Result<Response, Problem> {
    asked.require(Action::Settings, &account)?;
    let advance: AdvanceClock = asked::body(request).await?;
    let to = advance.advance_to;
    let draft = Draft::setting(&account, "clock", Data::ClockAdvanced(advance), asked.now);
    submit::setting(&app, &asked, draft, moves_at(&app, &asked, &account, to)).await
}

/// The move is recorded at the time that it reaches; going back is ignored by the fold.
async fn moves_at(app: &App, asked: &Asked, account: &Id, to: Time) -> Result<Time, Problem> {
    let known = app.account(account, Some(to), asked.deadline).await?;
    match known.clock {
        Clock::Live => Err(submit::clock_is_live()),
        Clock::Test => Ok(to),
    }
}
