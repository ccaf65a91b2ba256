//! Settings of limits, alerts and auto top-up: each `PUT` replaces one whole, in force for the events folded after it.

use axum::extract::State;
use ledger_core::event::field_error::FieldError;
use ledger_core::event::{
    Data, Limit, RemoveOrgAlert, SetAutoTopUp, SetLimits, SetOrgAlert, SetUserAlert, SetUserLimit,
};
use ledger_core::request::{self, Body};
use ledger_core::value::id::{AccountId, AlertId, UserId};
use platform::pg;
use schemars::JsonSchema;
use serde::Deserialize;
use web::auth::Action;
use web::http::{Path, Problem};
use web::openapi::{Route, Sent, Tagged, delete, put};

use crate::app::App;
use crate::billing::orders;
use crate::request_context::{RequestContext, conditional, timed};
use crate::write::answer::Wrote;
use crate::write::{self, Draft, idempotency};

const LIMITS: &str = "limits";
const USER_LIMIT: &str = "user_limit";

pub fn routes() -> Vec<Route<App>> {
    let settings = vec![
        put("/v1/accounts/{account}/limits", put_limits)
            .named("setLimits", "Sets what each user may use in a period.")
            .says(
                "By admins. The whole of the settings: an absent field takes its default. With `custom` it replaces all \
                 users' own limits, without it leaves them as they are.",
            ),
        put("/v1/accounts/{account}/limits/users/{user}", put_user_limit)
            .named("setUserLimit", "Sets one user's own limit, which wins over the default.")
            .says("By admins."),
        delete("/v1/accounts/{account}/limits/users/{user}", remove_user_limit)
            .named("removeUserLimit", "Removes one user's own limit: the default holds again.")
            .says("By admins."),
        put("/v1/accounts/{account}/user-alert", put_user_alert)
            .named("setUserAlert", "Sets the alert on each user's usage.")
            .says("By admins. The whole of it: an absent field takes its default."),
        put("/v1/accounts/{account}/auto-top-up", put_auto_top_up)
            .named("setAutoTopUp", "Sets when credits are bought automatically.")
            .says(
                "By admins. The whole of it: an absent field takes its default. It always counts as saved: failures \
                 before it are forgotten. The threshold may not be above the amount. Where it is on, the price must be \
                 one that can be paid, and the payment method must be one of the account's payment customer; each \
                 charge checks it again.",
            )
            .refuses(&["no_price"]),
        put("/v1/accounts/{account}/alerts/{alert}", put_org_alert)
            .named("setAlert", "Sets an alert on the account's figures.")
            .says("By admins. The whole of it: an absent field takes its default.")
            .refuses(&["too_many_alerts"]),
        delete("/v1/accounts/{account}/alerts/{alert}", remove_org_alert)
            .named("removeAlert", "Removes an alert.")
            .says("By admins. A repeat gets the first answer.")
            .refuses(&["alert_unknown"]),
    ];
    settings.into_iter().map(|route| route.with(timed).with(conditional)).collect()
}

/// `PUT /v1/accounts/{account}/limits`
///
/// With `custom` it replaces all users' own limits; without, it leaves them as they are.
async fn put_limits(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<SetLimits>,
) -> Result<Tagged<Wrote>, Problem> {
    context.require(Action::Settings, &account)?;
    let limits: SetLimits = sent.read().await?;
    let replaces_own = limits.custom.is_some();
    let draft = Draft::setting(&account, LIMITS, Data::LimitsSet(limits), context.now);
    let admission = async {
        let recorded_at = write::time_while_open(&app, &context, &account).await?;
        if replaces_own {
            idempotency::forget_settings(&app.pool, &account, USER_LIMIT).await?;
        }
        Ok(recorded_at)
    };
    write::setting(&app, &context, draft, admission).await
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct UserPath {
    account: AccountId,
    user: UserId,
}

/// One user's own limit.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[schemars(rename = "NewUserLimit")]
#[serde(deny_unknown_fields)]
pub struct UserLimit {
    limit: Limit,
}

impl Body for UserLimit {
    const GOOD: &'static str = r#"{"limit":"1"}"#;

    fn check(&self, _: &mut Vec<FieldError>) {}
}

/// `PUT /v1/accounts/{account}/limits/users/{user}`
async fn put_user_limit(
    State(app): State<App>,
    context: RequestContext,
    Path(path): Path<UserPath>,
    sent: Sent<UserLimit>,
) -> Result<Tagged<Wrote>, Problem> {
    context.require(Action::Settings, &path.account)?;
    let UserLimit { limit } = sent.read().await?;
    user_limit(&app, &context, path, Some(limit)).await
}

/// `DELETE /v1/accounts/{account}/limits/users/{user}`
async fn remove_user_limit(
    State(app): State<App>,
    context: RequestContext,
    Path(path): Path<UserPath>,
) -> Result<Tagged<Wrote>, Problem> {
    context.require(Action::Settings, &path.account)?;
    user_limit(&app, &context, path, None).await
}

/// Setting and removing a user's limit are states of one setting: the last one is in force.
async fn user_limit(
    app: &App,
    context: &RequestContext,
    UserPath { account, user: user_id }: UserPath,
    limit: Option<Limit>,
) -> Result<Tagged<Wrote>, Problem> {
    let key = user_id.to_string();
    let data = Data::UserLimitSet(SetUserLimit { user_id, limit });
    let draft = Draft { key, ..Draft::setting(&account, USER_LIMIT, data, context.now) };
    let admission = async {
        let recorded_at = write::time_while_open(app, context, &account).await?;
        // Limits as last sent, with this user's, are no longer those in force.
        idempotency::forget_settings(&app.pool, &account, LIMITS).await?;
        Ok(recorded_at)
    };
    write::setting(app, context, draft, admission).await
}

/// `PUT /v1/accounts/{account}/user-alert`
async fn put_user_alert(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<SetUserAlert>,
) -> Result<Tagged<Wrote>, Problem> {
    context.require(Action::Settings, &account)?;
    write::whole_setting(&app, &context, &account, sent, "user_alert", Data::UserAlertSet).await
}

/// `PUT /v1/accounts/{account}/auto-top-up`
///
/// Always recorded, also without a change: it clears failures and lets brakes report again. The payment method has to be
/// the account's customer's; the charge checks it again.
async fn put_auto_top_up(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    sent: Sent<SetAutoTopUp>,
) -> Result<Tagged<Wrote>, Problem> {
    context.require(Action::Settings, &account)?;
    let settings: SetAutoTopUp = sent.read().await?;
    let recorded_at = write::time_while_open(&app, &context, &account).await?;
    orders::require_orderable(&app, &account, &settings).await?;
    let draft = Draft::setting(&account, "auto_top_up", Data::AutoTopUpSet(settings), context.now);
    write::setting_each_time(&app, &context, draft, recorded_at).await
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct AlertPath {
    account: AccountId,
    alert: AlertId,
}

/// `PUT /v1/accounts/{account}/alerts/{alert}`
async fn put_org_alert(
    State(app): State<App>,
    context: RequestContext,
    Path(path): Path<AlertPath>,
    sent: Sent<SetOrgAlert>,
) -> Result<Tagged<Wrote>, Problem> {
    context.require(Action::Settings, &path.account)?;
    let body = sent.value().await?;
    let alert = request::read_org_alert(&path.alert, body).map_err(Problem::invalid)?;
    let draft = org_alert(&path, Data::OrgAlertSet(alert), &context);
    write::setting(&app, &context, draft, write::time_while_open(&app, &context, &path.account)).await
}

/// `DELETE /v1/accounts/{account}/alerts/{alert}`
///
/// A repeated removal gets the first answer.
async fn remove_org_alert(
    State(app): State<App>,
    context: RequestContext,
    Path(path): Path<AlertPath>,
) -> Result<Tagged<Wrote>, Problem> {
    context.require(Action::Settings, &path.account)?;
    let removal = Data::OrgAlertRemoved(RemoveOrgAlert { alert_id: path.alert.clone() });
    let draft = org_alert(&path, removal, &context);
    let admission = async {
        let recorded_at = write::time_while_open(&app, &context, &path.account).await?;
        app.require_caught_up(&path.account, context.deadline).await?;
        require_alert(&app, &path).await?;
        Ok(recorded_at)
    };
    write::setting(&app, &context, draft, admission).await
}

/// Setting and removing an alert are states of one setting: the last one is in force.
fn org_alert(path: &AlertPath, data: Data, context: &RequestContext) -> Draft {
    Draft { key: path.alert.to_string(), ..Draft::setting(&path.account, "org_alert", data, context.now) }
}

const HAS_ALERT: &str = "
    select coalesce(core -> 'org_alerts' ? $2, false)
    from account
    where account_id = $1
";

/// Returns 404 unless the account has the alert.
async fn require_alert(app: &App, path: &AlertPath) -> Result<(), Problem> {
    let (account, alert) = (path.account.to_string(), path.alert.to_string());
    let found: Option<bool> = pg::read(&app.pool, app.waiter.schema(), |connection| {
        Box::pin(async move {
            sqlx::query_scalar(HAS_ALERT).bind(account).bind(alert).fetch_optional(connection).await
        })
    })
    .await?;
    if found == Some(true) {
        return Ok(());
    }
    let detail = format!("account {} has no alert {}", path.account, path.alert);
    Err(Problem::not_found("alert_unknown", detail))
}
