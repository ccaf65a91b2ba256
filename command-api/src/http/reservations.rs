//! Reservations: credits held for work in progress; they can be extended, settled by usage, or released.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ledger_core::policy::hold::{Extend, Reserve};
use ledger_core::request;
use ledger_core::value::id::{AccountId, ReservationId};
use platform::position::Position;
use web::auth::Action;
use web::http::{Path, Problem, RECORD_BYTES_MAX, read_body, read_json};

use super::hold_requests::{DecideQuery, on_hold, require_projected};
use crate::admission::{self, Admitted, Form, NamedHold, Refusal, Stamp};
use crate::app::App;
use crate::holds::request::{Ask, Fault, HoldView, SettledHold};
use crate::request_context::RequestContext;
use crate::write::answer::Written;
use crate::write::first::earlier;
use crate::write::outcome::{self, Identity, Outcome, Progress};
use crate::write::usage::{append_and_answer, append_one};
use crate::write::wait::{once_projected, reopen_hold};

/// `POST /v1/accounts/{account}/reservations`
pub async fn reserve(
    State(app): State<App>,
    context: RequestContext<DecideQuery>,
    Path(account): Path<AccountId>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::CheckAndHold, &account)?;
    let reserve: Reserve = read_body(request).await?;
    require_projected(&app, &context).await?;
    let view = on_hold(&app, &context, &account, Ask::Reserve(reserve)).await?;
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// `PATCH /v1/accounts/{account}/reservations/{reservation}`
pub async fn extend(
    State(app): State<App>,
    context: RequestContext<DecideQuery>,
    Path((account, reservation)): Path<(AccountId, ReservationId)>,
    request: Request,
) -> Result<Json<HoldView>, Problem> {
    context.require(Action::CheckAndHold, &account)?;
    let extend: Extend = read_body(request).await?;
    require_projected(&app, &context).await?;
    on_hold(&app, &context, &account, Ask::Extend(reservation, extend)).await.map(Json)
}

/// `POST /v1/accounts/{account}/reservations/{reservation}/release`
pub async fn release(
    State(app): State<App>,
    context: RequestContext,
    Path((account, reservation)): Path<(AccountId, ReservationId)>,
) -> Result<Json<HoldView>, Problem> {
    context.require(Action::CheckAndHold, &account)?;
    on_hold(&app, &context, &account, Ask::Release(reservation)).await.map(Json)
}

/// `POST /v1/accounts/{account}/reservations/{reservation}/settle`
pub async fn settle(
    State(app): State<App>,
    context: RequestContext,
    Path((account, reservation)): Path<(AccountId, ReservationId)>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::CheckAndHold, &account)?;
    let value = read_json(request, RECORD_BYTES_MAX).await?;
    let mut offer = request::read_plain_usage(&account, value).map_err(Problem::invalid)?;
    match &offer.usage.reservation_id {
        Some(named) if *named != reservation => {
            let detail = "must be that of the path, or left out";
            return Err(Problem::bad_field("reservation_id", "mismatch", detail));
        }
        _ => offer.usage.reservation_id = Some(reservation.clone()),
    }
    let stamp = Stamp {
        actor: context.actor()?,
        now: context.now,
        ledger_time: context.ledger_time,
        form: Form::Plain,
    };
    let mut verdicts = admission::admit(&app, vec![Ok(offer)], stamp, context.deadline).await?;
    let verdict = verdicts.pop().ok_or_else(|| Problem::internal("usage without a verdict"))?;
    let admitted = verdict.map_err(Refusal::problem)?;
    let settled = match &admitted.hold {
        NamedHold::Settles(settled) => settled,
        // The journal has this id already, and the hold is deleted: it ended long ago.
        NamedHold::Absent => return Err(Fault::HoldAbsent(reservation).problem(&account)),
        NamedHold::None | NamedHold::Other => {
            return append_and_answer(&app, admitted, Form::Plain, context.waits()).await;
        }
    };
    let position = match settled.position {
        Some(position) => position,
        None => append_one(&app, &admitted).await?,
    };
    let progress = come_to(&app, &context, &admitted, settled, position).await?;
    let records = [(admitted.bytes.as_slice(), &progress)];
    let earlier = earlier(&app.pool, app.waiter.schema(), &records, Form::Plain).await;
    let earlier = earlier.into_iter().next().unwrap_or_default();
    let (account, id) = (account.as_str(), admitted.id.as_str());
    Ok(Written::answer_usage(account, id, position, &progress, Some(settled), earlier))
}

/// Waits for the outcome of the usage, unless the query says not to.
async fn come_to(
    app: &App,
    context: &RequestContext,
    admitted: &Admitted,
    settled: &SettledHold,
    position: Position,
) -> Result<Progress, Problem> {
    let identity = Identity {
        account: &admitted.account,
        id: admitted.id.as_str(),
        source: settled.source.as_str(),
        content: &settled.content.0,
    };
    // Looked up by identity: the record itself may be the second copy of one that counts.
    let outcome = async { outcome::first(&app.pool, app.waiter.schema(), &identity).await };
    let progress = match once_projected(app, context.waits(), &[position], outcome).await?.flatten() {
        Some(first) if first.same_content => Progress::Folded(first.outcome),
        Some(_) => Progress::Folded(Outcome::Conflict),
        None => Progress::Waiting,
    };
    // The first record of its own id is a duplicate only where other usage had charged the call.
    let charged_before = progress == Progress::Folded(Outcome::Duplicate);
    reopen_hold(app, admitted, &progress, charged_before).await;
    Ok(progress)
}
