//! Reservations: credits held for work in progress; they can be extended, settled by usage, or released.

use axum::Json;
use axum::extract::State;
use ledger_core::policy::hold::{Extend, Reserve};
use ledger_core::request::{self, PlainUsage};
use ledger_core::value::id::{AccountId, ReservationId};
use platform::position::Position;
use web::auth::Action;
use web::http::{Path, Problem};
use web::openapi::{Created, Route, Sent, patch, post};

use super::hold_requests::{DecideQuery, on_hold, require_projected};
use crate::admission::{self, Admitted, Form, NamedHold, Refusal, Stamp};
use crate::app::App;
use crate::holds::request::{Ask, Fault, HoldView, SettledHold};
use crate::request_context::{RequestContext, timed};
use crate::write::answer::{Written, Wrote};
use crate::write::first::earlier;
use crate::write::outcome::{self, Identity, Outcome, Progress};
use crate::write::usage::{append_and_answer, append_one};
use crate::write::wait::{once_projected, reopen_hold};

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/accounts/{account}/reservations", reserve)
            .named("reserveCredits", "Holds credits for work in progress.")
            .says(
                "By producers. Granted while balance and limit cover all open holds and this one, exactly, from any \
                 number of processes. It does not see usage without a hold that is not projected yet. The same id with \
                 the same body answers with the hold as it stands.",
            )
            .refuses(&["credits_exhausted", "user_limit_reached"])
            .with(timed),
        patch("/v1/accounts/{account}/reservations/{reservation}", extend)
            .named("extendReservation", "Holds more, or for longer.")
            .says(
                "By producers, while the hold is open. The amount is the new total. A refused extension is the sign to \
                 stop; the hold stays as it is.",
            )
            .refuses(&["credits_exhausted", "user_limit_reached", "reservation_not_found", "hold_ended"])
            .with(timed),
        post("/v1/accounts/{account}/reservations/{reservation}/release", release)
            .named("releaseReservation", "Gives back what is held.")
            .says("By producers. A hold that was released or has expired stays as it is.")
            .refuses(&["reservation_not_found", "hold_ended"])
            .with(timed),
        post("/v1/accounts/{account}/reservations/{reservation}/settle", settle)
            .named("settleReservation", "Ends a hold by its usage.")
            .says(
                "By producers. The usage applies in full, whatever was held, also after the hold has ended. Until it is \
                 projected the hold is `settling`. The same usage again gets the first answer.",
            )
            .refuses(&["reservation_not_found", "hold_ended", "too_new", "too_old", "unpriced_usage"])
            .with(timed),
    ]
}

/// `POST /v1/accounts/{account}/reservations`
async fn reserve(
    State(app): State<App>,
    context: RequestContext<DecideQuery>,
    Path(account): Path<AccountId>,
    sent: Sent<Reserve>,
) -> Result<Created<HoldView>, Problem> {
    context.require(Action::CheckAndHold, &account)?;
    let reserve: Reserve = sent.read().await?;
    require_projected(&app, &context).await?;
    let view = on_hold(&app, &context, &account, Ask::Reserve(reserve)).await?;
    Ok(Created(view))
}

/// `PATCH /v1/accounts/{account}/reservations/{reservation}`
async fn extend(
    State(app): State<App>,
    context: RequestContext<DecideQuery>,
    Path((account, reservation)): Path<(AccountId, ReservationId)>,
    sent: Sent<Extend>,
) -> Result<Json<HoldView>, Problem> {
    context.require(Action::CheckAndHold, &account)?;
    let extend: Extend = sent.read().await?;
    require_projected(&app, &context).await?;
    on_hold(&app, &context, &account, Ask::Extend(reservation, extend)).await.map(Json)
}

/// `POST /v1/accounts/{account}/reservations/{reservation}/release`
async fn release(
    State(app): State<App>,
    context: RequestContext,
    Path((account, reservation)): Path<(AccountId, ReservationId)>,
) -> Result<Json<HoldView>, Problem> {
    context.require(Action::CheckAndHold, &account)?;
    on_hold(&app, &context, &account, Ask::Release(reservation)).await.map(Json)
}

/// `POST /v1/accounts/{account}/reservations/{reservation}/settle`
async fn settle(
    State(app): State<App>,
    context: RequestContext,
    Path((account, reservation)): Path<(AccountId, ReservationId)>,
    sent: Sent<PlainUsage>,
) -> Result<Wrote, Problem> {
    context.require(Action::CheckAndHold, &account)?;
    let value = sent.value().await?;
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
