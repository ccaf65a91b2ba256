//! Accounts: opening and changing them.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ledger_core::account::setting::Setting;
use ledger_core::event::{ChangeAccount, Clock, CloseAccount, Data, OpenAccount, derive};
use ledger_core::request::{self, Opening};
use ledger_core::value::id::{AccountId, ReferrerId};
use ledger_core::value::schema::PaymentCustomer;
use ledger_core::value::time::Time;
use payments::{CustomerId, customer};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use web::auth::Action;
use web::http::{Path, Problem};
use web::openapi::{Answers, Operation, Route, Sent, Tagged, patch, post};

use crate::admission::ledger_time::{clock_is_live, recorded_at};
use crate::admission::rate_cards::require_published;
use crate::app::App;
use crate::promotions::bonus::welcome;
use crate::promotions::promo_codes;
use crate::promotions::redemptions::redeem;
use crate::promotions::referrals::{Referrer, Rewards, inviter, referred};
use crate::request_context::{RequestContext, conditional, timed};
use crate::write::answer::{Written, Wrote};
use crate::write::effects;
use crate::write::idempotency;
use crate::write::{self, Draft};

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/accounts", open)
            .named("openAccount", "Opens an account.")
            .says("By the operator. The same opening again gets the first answer.")
            .refuses(&["account_exists", "promo_code_unknown", "promo_code_used_up", "promo_code_expired"])
            .with(timed),
        patch("/v1/accounts/{account}", change)
            .named("changeAccount", "Changes the name, the overdraft policy or the low-balance line.")
            .says(
                "By admins; `overdraft` and `payment_customer` by the operator alone. Absent fields stay as they are. A \
                 change equal to the last accepted one gets its answer. `payment_customer` takes effect at once, and is \
                 answered by itself where nothing else changes.",
            )
            .refuses(&["changed_meanwhile"])
            .with(timed)
            .with(conditional),
        post("/v1/accounts/{account}/close", close)
            .named("closeAccount", "Closes an account for good.")
            .says(
                "By the operator. From then on usage, holds, grants, purchases, settings and top-ups are refused with \
                 `account_closed`; nothing resets, fires or is charged. What was on its way still applies; refunds, \
                 disputes and reads go on. Closing again gets the first answer.",
            )
            .with(timed),
    ]
}

/// `POST /v1/accounts`
///
/// One decision covers the opening and the grants to the new account and its referrer; they are consecutive in the
/// journal.
async fn open(
    State(app): State<App>,
    context: RequestContext,
    sent: Sent<Opening>,
) -> Result<Wrote, Problem> {
    context.principal.require_role(Action::OpenAccount)?;
    let (account, opening) = request::read_opening(sent.value().await?).map_err(Problem::invalid)?;
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
    let lock = account.to_string();
    let code_turn = match &opening.promo_code {
        Some(code) => Some(app.turns.take(&promo_codes::lock_name(code)).await?),
        None => None,
    };
    let put = app.write(&lock, move |connection| {
        Box::pin(async move {
            let _code_turn = code_turn;
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
    });
    let put = put.await?;
    let positions = effects::append(app, &put).await?;
    if let (Some(opening), Some(position)) = (put.first(), positions.first()) {
        idempotency::acknowledge(app, &draft.name(), opening.event.id.as_str(), *position).await?;
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
async fn close(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<CloseAccount>,
) -> Result<Wrote, Problem> {
    context.require(Action::OpenAccount, &account)?;
    let closing: CloseAccount = sent.read().await?;
    let data = Data::AccountClosed(closing);
    let draft = Draft::derived(&account, "account.close", derive::closing_id(&account), data);
    write::once(&app, &context, draft, write::time_for(&app, &context, &account)).await
}

/// The field of `PATCH` that stands beside the contacts and never enters the journal.
const PAYMENT_CUSTOMER: &str = "payment_customer";

/// The answer to a change of the payment customer alone, which is no event.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChangedCustomer {
    account_id: AccountId,
    #[schemars(with = "Option<PaymentCustomer>")]
    payment_customer: Option<CustomerId>,
}

/// The answer to a change of an account.
pub enum Changed {
    Setting(Wrote),
    Customer(ChangedCustomer),
}

impl IntoResponse for Changed {
    fn into_response(self) -> Response {
        match self {
            Changed::Setting(wrote) => wrote.into_response(),
            Changed::Customer(changed) => axum::Json(changed).into_response(),
        }
    }
}

impl Answers for Changed {
    fn describe(operation: &mut Operation<'_>) {
        Wrote::describe(operation);
        operation.answers_json::<ChangedBody>(200, "Projected, or changed at once.");
    }
}

/// What an answer to a change says.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "AccountChanged")]
#[allow(dead_code, reason = "stands for its schema")]
enum ChangedBody {
    Setting(Box<Written>),
    Customer(ChangedCustomer),
}

/// What to change of an account; at least one field.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code, reason = "stands for its schema")]
pub struct AccountChange {
    #[serde(flatten)]
    change: ChangeAccount,
    /// The payment provider's customer whose methods may be charged; null removes it. Stored beside the contacts, not in
    /// the journal. The first checkout that is paid sets it where it is none.
    #[schemars(with = "Option<PaymentCustomer>", extend("nullable" = true))]
    payment_customer: Option<CustomerId>,
}

/// `PATCH /v1/accounts/{account}`
///
/// An admin may change everything but what the account may spend: the overdraft and the payment customer are the operator's.
async fn change(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<AccountChange>,
) -> Result<Tagged<Changed>, Problem> {
    context.require(Action::Settings, &account)?;
    let mut body = sent.value().await?;
    let customer = body.as_object_mut().and_then(|fields| fields.remove(PAYMENT_CUSTOMER));
    let Some(customer) = customer else {
        let change = read_change(&context, &account, body)?;
        let Tagged(answer, etag) = change_settings(&app, &context, &account, change).await?;
        return Ok(Tagged(Changed::Setting(answer), etag));
    };
    // The operator decides whose methods are charged, not the caller who may name methods.
    context.require(Action::Money, &account)?;
    let customer = read_customer(&customer)?;
    let is_all = body.as_object().is_some_and(Map::is_empty);
    let change = if is_all { None } else { Some(read_change(&context, &account, body)?) };
    write::admit(&app, &context, &account).await?;
    let Some(change) = change else {
        write::require_unchanged(&app, &context, &account, Setting::Account).await?;
        set_customer(&app, &context, &account, customer.clone()).await?;
        let changed = ChangedCustomer { account_id: account, payment_customer: customer };
        return Ok(Tagged(Changed::Customer(changed), None));
    };
    // First what may be refused because it has changed meanwhile.
    let Tagged(answer, etag) = change_settings(&app, &context, &account, change).await?;
    if answer.is_success() {
        set_customer(&app, &context, &account, customer).await?;
    }
    Ok(Tagged(Changed::Setting(answer), etag))
}

fn read_change(context: &RequestContext, account: &AccountId, body: Value) -> Result<ChangeAccount, Problem> {
    let change: ChangeAccount = request::read(body).map_err(Problem::invalid)?;
    if change.overdraft.is_some() {
        context.require(Action::Terms, account)?;
    }
    Ok(change)
}

async fn change_settings(
    app: &App,
    context: &RequestContext,
    account: &AccountId,
    change: ChangeAccount,
) -> Result<Tagged<Wrote>, Problem> {
    let draft = Draft::setting(account, "account.change", Data::AccountChanged(change), context.now);
    write::setting(app, context, draft, write::time_while_open(app, context, account)).await
}

fn read_customer(said: &Value) -> Result<Option<CustomerId>, Problem> {
    let text = match said {
        Value::Null => return Ok(None),
        Value::String(text) => text,
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            return Err(Problem::bad_field(PAYMENT_CUSTOMER, "wrong_type", "must be a string or null"));
        }
    };
    let customer = CustomerId::new(text);
    customer.map(Some).map_err(|error| Problem::bad_field(PAYMENT_CUSTOMER, "bad_id", error.to_string()))
}

async fn set_customer(
    app: &App,
    context: &RequestContext,
    account: &AccountId,
    customer: Option<CustomerId>,
) -> Result<(), Problem> {
    let (account, by) = (account.clone(), context.actor()?);
    let lock = account.to_string();
    let set = app.write(&lock, move |connection| {
        Box::pin(async move { customer::set(connection, &account, customer.as_ref(), by.as_str()).await })
    });
    Ok(set.await?)
}
