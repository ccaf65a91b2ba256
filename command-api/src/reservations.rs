//! Reservations: credits held for work in progress, extended as it goes on, and ended by its usage or given back.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ledger_core::door;
use ledger_core::hold::{Extend, Reserve};
use ledger_core::id::Id;
use runtime::auth::Action;
use runtime::http::{Path, Problem};
use runtime::position::{AtLeast, Position};
use serde::Deserialize;

use crate::answer::Written;
use crate::app::App;
use crate::asked::{self, Asked, Waits};
use crate::holds::{self, Answer, Ask, Fault, HoldView};
use crate::intake::{self, Admitted, Form, Named, Refusal, Settles, Stamp};
use crate::outcome::{self, Identity, Outcome, Progress};
use crate::usage::{self, append_one};

/// The query of a decision, which is made at this position or a later one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecideQuery {
    /// Where it must be projected to.
    pub at_least: Option<AtLeast>,
    /// Taken as with every write. A decision is not in the journal, and there is nothing to wait for.
    pub wait: Option<bool>,
}

impl Waits for DecideQuery {
    fn wait(&self) -> Option<bool> {
        self.wait
    }
}

/// `POST /v1/accounts/{account}/reservations`
pub async fn reserve(
    State(app): State<App>,
    asked: Asked<DecideQuery>,
    Path(account): Path<Id>,
    request: Request,
) -> Result<Response, Problem> {
    asked.require(Action::CheckAndHold, &account)?;
    let reserve: Reserve = asked::body(request).await?;
    require_projected(&app, &asked).await?;
    let view = on_hold(&app, &asked, &account, Ask::Reserve(reserve)).await?;
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// 503 unless the projection reaches the position asked for in time.
pub async fn require_projected(app: &App, asked: &Asked<DecideQuery>) -> Result<(), Problem> {
    let Some(AtLeast(position)) = asked.query.at_least else { return Ok(()) };
    let partitions = app.journal.partitions();
    if !(0..partitions).contains(&position.partition) {
        let detail = format!("the journal has {partitions} partitions");
        return Err(Problem::bad_field("at_least", "no_such_partition", detail));
    }
    if app.waiter.wait_for(position, asked.deadline).await {
        return Ok(());
    }
    Err(Problem::behind(format!("position {position} is not projected yet")))
}

/// `PATCH /v1/accounts/{account}/reservations/{reservation}`
pub async fn extend(
    State(app): State<App>,
    asked: Asked<DecideQuery>,
    Path((account, reservation)): Path<(Id, Id)>,
    request: Request,
) -> Result<Json<HoldView>, Problem> {
    asked.require(Action::CheckAndHold, &account)?;
    let extend: Extend = asked::body(request).await?;
    require_projected(&app, &asked).await?;
    on_hold(&app, &asked, &account, Ask::Extend(reservation, extend)).await.map(Json)
}

/// `POST /v1/accounts/{account}/reservations/{reservation}/release`
pub async fn release(
    State(app): State<App>,
    asked: Asked,
    Path((account, reservation)): Path<(Id, Id)>,
) -> Result<Json<HoldView>, Problem> {
    asked.require(Action::CheckAndHold, &account)?;
    on_hold(&app, &asked, &account, Ask::Release(reservation)).await.map(Json)
}

/// `POST /v1/accounts/{account}/reservations/{reservation}/settle`
pub async fn settle(
    State(app): State<App>,
    asked: Asked,
    Path((account, reservation)): Path<(Id, Id)>,
    request: Request,
) -> Result<Response, Problem> {
    asked.require(Action::CheckAndHold, &account)?;
    let value = asked::json(request).await?;
    let mut offer = door::read_plain_usage(&account, value).map_err(Problem::invalid)?;
    match &offer.usage.reservation_id {
        Some(named) if *named != reservation => {
            let detail = "must be that of the path, or left out";
            return Err(Problem::bad_field("reservation_id", "mismatch", detail));
        }
        _ => offer.usage.reservation_id = Some(reservation.clone()),
    }
    let stamp =
        Stamp { actor: asked.actor()?, now: asked.now, ledger_time: asked.ledger_time, form: Form::Plain };
    let mut verdicts = intake::admit(&app, vec![Ok(offer)], stamp, asked.deadline).await?;
    let verdict = verdicts.pop().ok_or_else(|| Problem::internal("usage without a verdict"))?;
    let admitted = verdict.map_err(Refusal::problem)?;
    let settles = match &admitted.hold {
        Named::Settles(settles) => settles,
        // Its id stands in the journal already, and the hold does not: it ended long ago.
        Named::Absent => return Err(Fault::HoldAbsent(reservation).problem(&account)),
        Named::None | Named::Other => return usage::append_and_answer(&app, admitted, asked.waits()).await,
    };
    let position = match settles.position {
        Some(position) => position,
        None => append_one(&app, &admitted).await?,
    };
    let progress = come_to(&app, &asked, &admitted, settles, position).await?;
    let (account, id) = (account.as_str(), admitted.id.as_str());
    Ok(Written::answer_settling(account, id, position, &progress, Some(settles)))
}

/// Waits for what the usage comes to, unless told not to.
async fn come_to(
    app: &App,
    asked: &Asked,
    admitted: &Admitted,
    settles: &Settles,
    position: Position,
) -> Result<Progress, Problem> {
    if !asked.waits() || !app.waiter.wait_for(position, app.waiter.deadline()).await {
        return Ok(Progress::Waiting);
    }
    let identity = Identity {
        account: &admitted.account,
        id: admitted.id.as_str(),
        source: settles.source.as_str(),
        content: &settles.content.0,
    };
    // By its identity: the record itself may be the second copy of one that counts.
    let progress = match outcome::first(&app.pool, app.waiter.schema(), &identity).await? {
        Some(first) if first.same_content => Progress::Folded(first.outcome),
        Some(_) => Progress::Folded(Outcome::Conflict),
        None => Progress::Waiting,
    };
    if progress.came_to_nothing() {
        // The hold is open again at once, and not at the next round of upkeep.
        app.holds.tell(&admitted.account, Ask::Sweep).await;
    }
    Ok(progress)
}

async fn on_hold<Q: Waits>(
    app: &App,
    asked: &Asked<Q>,
    account: &Id,
    request: Ask,
) -> Result<HoldView, Problem> {
    match ask(app, asked, account, request).await? {
        Answer::Hold(view) => Ok(*view),
        _ => Err(Problem::internal("a request on a hold was answered otherwise")),
    }
}

/// Asks of an account, again where it was not there and the projection lagged.
pub async fn ask<Q: Waits>(app: &App, asked: &Asked<Q>, account: &Id, ask: Ask) -> Result<Answer, Problem> {
    let request = || -> Result<holds::Request, Problem> {
        Ok(holds::Request {
            account: account.clone(),
            at: asked.ledger_time,
            actor: asked.actor()?,
            ask: ask.clone(),
        })
    };
    let first = app.holds.ask(request()?).await;
    if first.as_ref().is_err_and(|fault| *fault == Fault::AccountAbsent) {
        // Waits for a projection that does not know the account yet; 404 where there is none.
        app.account(account, None, asked.deadline).await?;
        return app.holds.ask(request()?).await.map_err(|fault| fault.problem(account));
    }
    first.map_err(|fault| fault.problem(account))
}
