//! Accounts: opening and changing them.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use ledger_core::event::{Clock, Data, OpenAccount};
use ledger_core::time::Time;
use ledger_core::{derive, door, id::Id};
use runtime::auth::Action;
use runtime::http::{Path, Problem};
use runtime::pg;

use crate::app::App;
use crate::asked::{self, Asked};
use crate::promotions::{self, Referrer, Rewards};
use crate::submit::{self, Draft};
use crate::{effects, idempotency, intake};

/// `POST /v1/accounts`
///
/// The opening and what a new account and its referrer get are decided together, and follow each other in the journal.
pub async fn open(State(app): State<App>, asked: Asked, request: Request) -> Result<Response, Problem> {
    asked.principal.require_role(Action::OpenAccount)?;
    let (account, opening) = door::read_opening(asked::json(request).await?).map_err(Problem::invalid)?;
    let event_id = derive::opening_id(&account);
    let draft = Draft::derived(&account, "account.open", event_id, Data::AccountOpened(opening.clone()));
    if idempotency::find(&app.pool, &draft.name()).await?.is_none() {
        open_first(&app, &asked, &account, opening, &draft).await?;
    }
    let missing = || Problem::internal("an opening that is not kept");
    submit::once(&app, &asked, draft, async { Err(missing()) }).await
}

/// Opens an account that nobody opened before, as far as is known here.
async fn open_first(
    app: &App,
    asked: &Asked,
    account: &Id,
    opening: OpenAccount,
    draft: &Draft,
) -> Result<(), Problem> {
    let recorded_at = opens_at(opening.clock.unwrap_or_default(), asked)?;
    let referrer = match &opening.referred_by {
        Some(said) => Some(referrer(app, asked, account, said).await?),
        None => None,
    };
    let (actor, name) = (asked.actor()?, draft.name());
    let kept = draft.recorded(recorded_at, actor.clone())?;
    let first = draft.event(recorded_at, actor.clone())?;
    let (welcome, bonus, account) =
        (promotions::welcome(app, account)?, app.sales.promotions.referral_bonus, account.clone());
    let put = pg::write(&app.pool, move |connection| {
        Box::pin(async move {
            if !idempotency::keep_in(connection, &name, &kept).await? {
                return Ok(Vec::new());
            }
            let mut events = vec![first];
            if let Some(effect) = welcome {
                events.push(effect.event(recorded_at, &actor)?);
            }
            if let Some(code) = &opening.promo_code {
                let redeemed =
                    promotions::redeem(connection, &account, code, recorded_at, recorded_at, &actor);
                events.push(redeemed.await?);
            }
            if let Some(referrer) = &referrer {
                let rewards = promotions::referred(connection, bonus, &account, referrer).await?;
                if let Some(Rewards { guests, referrers }) = rewards {
                    events.push(guests.event(recorded_at, &actor)?);
                    events.extend(referrers.map(|reward| reward.event(referrer.at, &actor)).transpose()?);
                }
            }
            if events.len() == 1 {
                // Nothing to go together with.
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
    if asked.waits() {
        for position in positions.iter().skip(1) {
            app.waiter.wait_for(*position, asked.deadline).await;
        }
    }
    Ok(())
}

/// Finds who has referred a new account: the inviter of a code, or an account by its id.
async fn referrer(app: &App, asked: &Asked, account: &Id, said: &Id) -> Result<Referrer, Problem> {
    let unknown = || {
        let detail = "is neither an account nor the code of an invitation";
        Problem::bad_field("referred_by", "unknown", detail)
    };
    let referrer = promotions::inviter(app, said).await?.unwrap_or_else(|| said.clone());
    if referrer == *account {
        return Err(unknown());
    }
    let known = match app.account(&referrer, None, asked.deadline).await {
        Ok(known) => known,
        Err(problem) if problem.status == StatusCode::NOT_FOUND => return Err(unknown()),
        Err(problem) => return Err(problem),
    };
    let at = intake::recorded_at(&known, None, asked.now).unwrap_or(asked.now);
    Ok(Referrer { account: referrer, said: said.clone(), at })
}

/// An account on a test clock begins at the time given, else now.
fn opens_at(clock: Clock, asked: &Asked) -> Result<Time, Problem> {
    match (clock, asked.ledger_time) {
        (Clock::Live, Some(_)) => Err(submit::clock_is_live()),
        (_, given) => Ok(given.unwrap_or(asked.now)),
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
