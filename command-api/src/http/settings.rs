//! Settings of limits, alerts and auto top-up: each `PUT` replaces one whole, in force for the events folded after it.

use axum::extract::{Request, State};
use axum::response::Response;
use ledger_core::event::field_error::FieldError;
use ledger_core::event::{Data, Limit, RemoveOrgAlert, SetAutoTopUp, SetLimits, SetUserLimit};
use ledger_core::request::{self, Body};
use ledger_core::value::id::{AccountId, AlertId, UserId};
use platform::pg;
use serde::Deserialize;
use web::auth::Action;
use web::http::{Path, Problem, RECORD_BYTES_MAX, read_body, read_json};

use crate::app::App;
use crate::billing::orders;
use crate::request_context::RequestContext;
use crate::write::{self, Draft, idempotency};

const LIMITS: &str = "limits";
const USER_LIMIT: &str = "user_limit";

/// `PUT /v1/accounts/{account}/limits`
///
/// With `custom` it replaces all users' own limits; without, it leaves them as they are.
pub async fn put_limits(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::Settings, &account)?;
    let limits: SetLimits = read_body(request).await?;
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

#[derive(Debug, Clone, Deserialize)]
pub struct UserPath {
    account: AccountId,
    user: UserId,
}

/// One user's own limit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserLimit {
    limit: Limit,
}

impl Body for UserLimit {
    const GOOD: &'static str = r#"{"limit":"1"}"#;

    fn check(&self, _: &mut Vec<FieldError>) {}
}

/// `PUT /v1/accounts/{account}/limits/users/{user}`
pub async fn put_user_limit(
    State(app): State<App>,
    context: RequestContext,
    Path(path): Path<UserPath>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::Settings, &path.account)?;
    let UserLimit { limit } = read_body(request).await?;
    user_limit(&app, &context, path, Some(limit)).await
}

/// `DELETE /v1/accounts/{account}/limits/users/{user}`
pub async fn remove_user_limit(
    State(app): State<App>,
    context: RequestContext,
    Path(path): Path<UserPath>,
) -> Result<Response, Problem> {
    context.require(Action::Settings, &path.account)?;
    user_limit(&app, &context, path, None).await
}

/// Setting and removing a user's limit are states of one setting: the last one is in force.
async fn user_limit(
    app: &App,
    context: &RequestContext,
    UserPath { account, user: user_id }: UserPath,
    limit: Option<Limit>,
) -> Result<Response, Problem> {
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
pub async fn put_user_alert(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::Settings, &account)?;
    write::whole_setting(&app, &context, &account, request, "user_alert", Data::UserAlertSet).await
}

/// `PUT /v1/accounts/{account}/auto-top-up`
///
/// Always recorded, also without a change: it clears failures and lets brakes report again. The payment method has to be
/// the account's customer's; the charge checks it again.
pub async fn put_auto_top_up(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::Settings, &account)?;
    let settings: SetAutoTopUp = read_body(request).await?;
    let recorded_at = write::time_while_open(&app, &context, &account).await?;
    orders::require_orderable(&app, &account, &settings).await?;
    let draft = Draft::setting(&account, "auto_top_up", Data::AutoTopUpSet(settings), context.now);
    write::setting_each_time(&app, &context, draft, recorded_at).await
}

#[derive(Debug, Clone, Deserialize)]
pub struct AlertPath {
    account: AccountId,
    alert: AlertId,
}

/// `PUT /v1/accounts/{account}/alerts/{alert}`
pub async fn put_org_alert(
    State(app): State<App>,
    context: RequestContext,
    Path(path): Path<AlertPath>,
    request: Request,
) -> Result<Response, Problem> {
    context.require(Action::Settings, &path.account)?;
    let body = read_json(request, RECORD_BYTES_MAX).await?;
    let alert = request::read_org_alert(&path.alert, body).map_err(Problem::invalid)?;
    let draft = org_alert(&path, Data::OrgAlertSet(alert), &context);
    write::setting(&app, &context, draft, write::time_while_open(&app, &context, &path.account)).await
}

/// `DELETE /v1/accounts/{account}/alerts/{alert}`
///
/// A repeated removal gets the first answer.
pub async fn remove_org_alert(
    State(app): State<App>,
    context: RequestContext,
    Path(path): Path<AlertPath>,
) -> Result<Response, Problem> {
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
