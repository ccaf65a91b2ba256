//! Accounts: opening and changing them.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use ledger_core::event::{ChangeAccount, Clock, CloseAccount, Data, OpenAccount, derive};
use ledger_core::request;
use ledger_core::value::id::{AccountId, ReferrerId};
use ledger_core::value::time::Time;
use platform::pg;
use web::auth::Action;
use web::http::{Path, Problem, RECORD_BYTES_MAX, read_body, read_json};

use crate::admission::ledger_time::{clock_is_live, recorded_at};
use crate::admission::rate_cards::require_published;
use crate::app::App;
use crate::promotions::bonus::welcome;
use crate::promotions::redemptions::redeem;
use crate::promotions::referrals::{Referrer, Rewards, inviter, referred};
use crate::request_context::RequestContext;
use crate::write::effects;
use crate::write::idempotency;
use crate::write::{self, Draft};

/// `POST /v1/accounts`
///
/// One decision covers the opening and the grants to the new account and its referrer; they are consecutive in the
/// journal.
pub async fn open(
    State(app): State<App>,
    context: RequestContext,
    request: Request,
) -> Result<Response, Problem> {
    context.principal.require_role(Action::OpenAccount)?;
    let (account, opening) =
        request::read_opening(read_json(request, RECORD_BYTES_MAX).await?).map_err(Problem::invalid)?;
    let event_id = derive::opening_id(&account);
    let draft = Draft::derived(&account, "account.open", event_id, Data::AccountOpened(opening.clone()));
    if idempotency::find(&app.pool, &draft.name()).await?.is_none() {
        open_first(&app, &context, &account, opening, &draft).await?;
    }
    let missing = || Problem::internal("an opening that is not kept");
    write::once(&app, &context, draft, async { Err(missing()) }).await
}

/// Opens an account that this side does not know as open.
async fn open_first(
    app: &App,
    context: &RequestContext,
    account: &AccountId,
    opening: OpenAccount,
    draft: &Draft,
) -> Result<(), Problem> {
    let opened_at = opens_at(opening.clock.unwrap_or_default(), context)?;
    require_published(&app.pool, opening.plan.rate_card.as_ref()).await?;
    let referrer = match &opening.referred_by {
        Some(said) => Some(referrer(app, context, account, said).await?),
        None => None,
    };
    let (actor, name) = (context.actor()?, draft.name());
    let kept = draft.recorded(opened_at, actor.clone())?;
    let first = draft.event(opened_at, actor.clone())?;
    let (welcome_bonus, bonus, account) =
        (welcome(app, account)?, app.sales.promotions.referral_bonus, account.clone());
    let put = pg::write(&app.pool, move |connection| {
        Box::pin(async move {
            if !idempotency::keep_in(connection, &name, &kept).await? {
                return Ok(Vec::new());
            }
            let mut events = vec![first];
            if let Some(effect) = welcome_bonus {
                events.push(effect.event(opened_at, &actor)?);
            }
            if let Some(code) = &opening.promo_code {
                let redeemed = redeem(connection, &account, code, opened_at, opened_at, &actor);
                events.push(redeemed.await?);
            }
            if let Some(referrer) = &referrer {
                let rewards = referred(connection, bonus, &account, referrer).await?;
                if let Some(Rewards { guests, referrers }) = rewards {
                    events.push(guests.event(opened_at, &actor)?);
                    events.extend(referrers.map(|reward| reward.event(referrer.at, &actor)).transpose()?);
                }
            }
            if events.len() == 1 {
                // There is no effect to append.
                return Ok(Vec::new());
            }
            Ok::<_, Problem>(effects::enqueue(connection, events).await?)
        })
    })
    .await?;
    let positions = effects::append(app, &put).await?;
    if let (Some(opening), Some(position)) = (put.first(), positions.first()) {
        idempotency::acknowledge(&app.pool, &draft.name(), opening.event.id.as_str(), *position).await?;
    }
    if context.waits() {
        for position in positions.iter().skip(1) {
            app.waiter.wait_for(*position, context.deadline).await;
        }
    }
    Ok(())
}

/// Finds the referrer of a new account: the inviter of a code, or an account by its id.
async fn referrer(
    app: &App,
    context: &RequestContext,
    account: &AccountId,
    said: &ReferrerId,
) -> Result<Referrer, Problem> {
    let unknown = || {
        let detail = "is neither an account nor the code of an invitation";
        Problem::bad_field("referred_by", "unknown", detail)
    };
    let referrer = inviter(app, said).await?.unwrap_or_else(|| said.as_account());
    if referrer == *account {
        return Err(unknown());
    }
    let known = match app.account(&referrer, None, context.deadline).await {
        Ok(known) => known,
        Err(problem) if problem.status == StatusCode::NOT_FOUND => return Err(unknown()),
        Err(problem) => return Err(problem),
    };
    let at = recorded_at(&known, None, context.now).unwrap_or(context.now);
    Ok(Referrer { account: referrer, said: said.clone(), at })
}

/// An account on a test clock begins at the given time, otherwise now.
fn opens_at(clock: Clock, context: &RequestContext) -> Result<Time, Problem> {
    match (clock, context.ledger_time) {
        (Clock::Live, Some(_)) => Err(clock_is_live()),
        (_, given) => Ok(given.unwrap_or(context.now)),
    }
}

/// `POST /v1/accounts/{account}/close`
pub async fn close(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::OpenAccount, &account)?;
    let closing: CloseAccount = read_body(request).await?;
    let data = Data::AccountClosed(closing);
    let draft = Draft::derived(&account, "account.close", derive::closing_id(&account), data);
    write::once(&app, &context, draft, write::time_for(&app, &context, &account)).await
}

/// `PATCH /v1/accounts/{account}`
///
/// An admin may change everything but what the account may spend: the overdraft is the operator's.
pub async fn change(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::Settings, &account)?;
    let change: ChangeAccount = read_body(request).await?;
    if change.overdraft.is_some() {
        context.require(Action::Terms, &account)?;
    }
    let draft = Draft::setting(&account, "account.change", Data::AccountChanged(change), context.now);
    write::setting(&app, &context, draft, write::time_while_open(&app, &context, &account)).await
}
