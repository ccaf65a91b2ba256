//! Redemptions: a promo code becomes a grant, once per account.

use axum::extract::State;
use engine::outbox;
use ledger_core::event::Event;
use ledger_core::event::field_error::FieldError;
use ledger_core::request::Body;
use ledger_core::value::id::{AccountId, Label, PromoCode};
use ledger_core::value::time::Time;
use platform::pg::{self, PgConnection};
use schemars::JsonSchema;
use serde::Deserialize;
use web::auth::Action;
use web::http::{Path, Problem};
use web::openapi::{Route, Sent, post};

use super::bonus::lock_account;
use super::promo_codes::{self, Locked};
use crate::app::App;
use crate::request_context::{RequestContext, timed};
use crate::write;
use crate::write::answer::Wrote;
use crate::write::effects;
use crate::write::idempotency;

/// Redeems a code for an account for the first time: counts it, stores the grant for repeats, and returns it.
///
/// Locks the code, so that a race can't exceed its number of uses. `at` is the account's time.
pub async fn redeem(
    connection: &mut PgConnection,
    account: &AccountId,
    code: &PromoCode,
    at: Time,
    recorded_at: Time,
    actor: &Label,
) -> Result<Event, Problem> {
    let Some(locked) = promo_codes::lock(connection, code).await? else {
        return Err(promo_codes::unknown(code));
    };
    let Locked { promo, redemptions, is_ended } = locked;
    let refuse = |code: &'static str, detail: String| Err(Problem::unprocessable(code, detail));
    let ended = is_ended
        || promo.valid_until.is_some_and(|until| at >= until)
        || promo.expires_at.is_some_and(|expires| at >= expires);
    if ended {
        return refuse("promo_code_expired", format!("the promo code {code} has ended"));
    }
    if promo.valid_from.is_some_and(|from| at < from) {
        return refuse("promo_code_not_yet_valid", format!("the promo code {code} does not hold yet"));
    }
    if promo.max_redemptions.is_some_and(|most| redemptions >= most) {
        return refuse("promo_code_used_up", format!("the promo code {code} is used up"));
    }
    promo_codes::count_redemption(connection, code).await?;
    sqlx::query!(
        "insert into control.redemption (account_id, code, redeemed_at) values ($1, $2, clock_timestamp())",
        account.as_str(),
        code.as_str()
    )
    .execute(&mut *connection)
    .await?;
    let draft = promo.draft(account)?;
    idempotency::keep_in(connection, &draft.name(), &draft.recorded(recorded_at, actor.clone())?).await?;
    draft.event(recorded_at, actor.clone())
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redemption {
    code: PromoCode,
}

impl Body for Redemption {
    const GOOD: &'static str = r#"{"code":"c"}"#;

    fn check(&self, _: &mut Vec<FieldError>) {}
}

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/accounts/{account}/redemptions", create)
            .named("redeemPromoCode", "Redeems a promo code, once for each account.")
            .says("By admins. A repeat gets the first answer, also after the code has ended.")
            .refuses(&[
                "promo_code_unknown",
                "promo_code_used_up",
                "promo_code_expired",
                "promo_code_not_yet_valid",
            ])
            .with(timed),
    ]
}

/// `POST /v1/accounts/{account}/redemptions`
///
/// A repeat gets the first answer, also after the code has ended.
async fn create(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<Redemption>,
) -> Result<Wrote, Problem> {
    context.require(Action::Settings, &account)?;
    let redemption: Redemption = sent.read().await?;
    app.failed_redemptions.begin(&account)?;
    let answer = redeem_once(&app, &context, &account, redemption).await;
    // Only who guesses or fails waits: not who succeeds, nor who met a fault of ours.
    if answer.as_ref().map_or_else(|problem| problem.status.is_server_error(), |_| true) {
        app.failed_redemptions.give_back(&account);
    }
    answer
}

async fn redeem_once(
    app: &App,
    context: &RequestContext,
    account: &AccountId,
    Redemption { code }: Redemption,
) -> Result<Wrote, Problem> {
    let (known, recorded_at) = write::admit_open(app, context, account).await?;
    let looked_up = code.clone();
    let promo = pg::write(&app.pool, |connection| {
        Box::pin(async move { promo_codes::find(connection, &looked_up).await })
    });
    let Some(promo) = promo.await.map_err(Problem::from)? else { return Err(promo_codes::unknown(&code)) };
    let draft = promo.draft(account)?;
    let at = recorded_at.max(known.ledger_time);
    let (redeeming, actor) = (account.clone(), context.actor()?);
    let code_turn = app.turns.take(&promo_codes::lock_name(&code)).await?;
    let put = app.write(account.as_str(), move |connection| {
        Box::pin(async move {
            let _code_turn = code_turn;
            lock_account(connection, &redeeming).await?;
            if has_redeemed(connection, &redeeming, &code).await? {
                return Ok(Vec::new());
            }
            let event = redeem(connection, &redeeming, &code, at, recorded_at, &actor).await?;
            Ok::<_, Problem>(effects::enqueue(connection, vec![event]).await?)
        })
    });
    let put = put.await?;
    // The grant was stored in the same transaction: this call appends it, or finds it appended.
    let answer = write::once(app, context, draft, async { Ok(recorded_at) }).await?;
    outbox::done(&app.pool, put.iter().map(|put| put.outbox_id).collect()).await?;
    Ok(answer)
}

async fn has_redeemed(
    connection: &mut PgConnection,
    account: &AccountId,
    code: &PromoCode,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from control.redemption where account_id = $1 and code = $2) as "redeemed!""#,
        account.as_str(),
        code.as_str()
    )
    .fetch_one(connection)
    .await
}
