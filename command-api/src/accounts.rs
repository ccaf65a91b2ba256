//! Accounts: opening and changing them.

use axum::extract::{Request, State};
use axum::response::Response;
use ledger_core::event::{Clock, Data, OpenAccount};
use ledger_core::time::Time;
use ledger_core::{derive, door, id::Id};
use runtime::auth::Action;
use runtime::http::{Path, Problem};

use crate::App;
use crate::asked::{self, Asked};
use crate::submit::{self, Draft};

/// `POST /v1/accounts`
pub async fn open(State(app): State<App>, asked: Asked, request: Request) -> Result<Response, Problem> {
    asked.principal.require_role(Action::OpenAccount)?;
    let (account, opening) = door::read_opening(asked::json(request).await?).map_err(Problem::invalid)?;
    refuse_promo_code(&opening)?;
    let clock = opening.clock.unwrap_or_default();
    let event_id = derive::opening_id(&account);
    let draft = Draft::derived(&account, "account.open", event_id, Data::AccountOpened(opening));
    submit::once(&app, &asked, draft, async { opens_at(clock, &asked) }).await
}

/// An account on a test clock begins at the time given, else now.
fn opens_at(clock: Clock, asked: &Asked) -> Result<Time, Problem> {
    match (clock, asked.ledger_time) {
        (Clock::Live, Some(_)) => Err(submit::clock_is_live()),
        (_, given) => Ok(given.unwrap_or(asked.now)),
    }
}

/// No promo code exists yet, so none is known.
fn refuse_promo_code(opening: &OpenAccount) -> Result<(), Problem> {
    match &opening.promo_code {
        Some(code) => Err(Problem::not_found("promo_code_unknown", format!("there is no promo code {code}"))),
        None => Ok(()),
    }
}

/// `PATCH /v1/accounts/{account}`
pub async fn change(
    State(app): State<App>,
    asked: Asked,
    Path(account): Path<Id>,
    request: Request,
) -> Result<Response, Problem> {
    submit::whole_setting(&app, &asked, &account, request, "account.change", Data::AccountChanged).await
}
