//! Settings of an account one by one, each with the ETag that its `PUT` takes as `If-Match`.

use axum::extract::State;
use ledger_core::account::Core;
use ledger_core::account::alert::{OrgAlert, UserAlert};
use ledger_core::account::setting::Setting;
use ledger_core::account::top_up::{AutoTopUp, MAX_PER_PERIOD};
use ledger_core::event::{Recipients, TopUpBasis};
use ledger_core::value::id::{AccountId, AlertId};
use platform::position::AtLeast;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use web::http::{ETag, Path, Problem, Query};
use web::openapi::{Route, get};

use crate::access::Whole;
use crate::answer::{self, Now, Reflects, Tagged};
use crate::app::App;
use crate::reading;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettingQuery {
    at_least: Option<AtLeast>,
}

/// Answers with a setting as it stands; `view` shows it, or says why there is none.
pub(crate) async fn one<T: Serialize>(
    app: &App,
    account: AccountId,
    at_least: Option<AtLeast>,
    setting: Setting<'_>,
    view: impl FnOnce(&Core) -> Result<T, Problem>,
) -> Result<Tagged<Now<T>>, Problem> {
    let read = reading::of(app, account, at_least, |_, account| {
        let core = account.core.clone();
        Box::pin(async move { Ok(core) })
    });
    let (reflects, core) = read.await?;
    shown(&reflects, view(&core)?, &setting.content(&core, None))
}

/// Answers with a view of a setting and the ETag of its content.
pub(crate) fn shown<T: Serialize>(
    reflects: &Reflects,
    view: T,
    content: &Value,
) -> Result<Tagged<Now<T>>, Problem> {
    answer::tagged(reflects, view, ETag::of(content)?)
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/accounts/{account}/alerts/{alert}", org_alert)
            .named("getAlert", "Returns one alert on the account's figures.")
            .refuses(&["alert_unknown"]),
        get("/v1/accounts/{account}/user-alert", user_alert)
            .named("getUserAlert", "Returns the alert on each user's usage."),
        get("/v1/accounts/{account}/auto-top-up", auto_top_up)
            .named("getAutoTopUp", "Returns when credits are bought automatically."),
    ]
}

/// `GET /v1/accounts/{account}/user-alert`
async fn user_alert(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<SettingQuery>,
) -> Result<Tagged<Now<UserAlert>>, Problem> {
    let never_set = || UserAlert {
        enabled: false,
        threshold: None,
        notify_user: false,
        recipients: Recipients::default(),
    };
    let view = |core: &Core| Ok(core.user_alert.clone().unwrap_or_else(never_set));
    one(&app, account, query.at_least, Setting::UserAlert, view).await
}

/// `GET /v1/accounts/{account}/auto-top-up`
async fn auto_top_up(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<SettingQuery>,
) -> Result<Tagged<Now<AutoTopUp>>, Problem> {
    let never_set = || AutoTopUp {
        enabled: false,
        basis: TopUpBasis::default(),
        threshold: None,
        amount: None,
        payment_method: None,
        max_per_period: MAX_PER_PERIOD,
        max_amount_per_period: None,
    };
    let view = |core: &Core| Ok(core.top_ups.settings.clone().unwrap_or_else(never_set));
    one(&app, account, query.at_least, Setting::AutoTopUp, view).await
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct AlertPath {
    alert: AlertId,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OrgAlert")]
struct AlertView {
    alert_id: AlertId,
    #[serde(flatten)]
    alert: OrgAlert,
}

/// `GET /v1/accounts/{account}/alerts/{alert}`
async fn org_alert(
    State(app): State<App>,
    Whole(account): Whole,
    Path(AlertPath { alert }): Path<AlertPath>,
    Query(query): Query<SettingQuery>,
) -> Result<Tagged<Now<AlertView>>, Problem> {
    let view = |core: &Core| {
        let unknown = || {
            let detail = format!("account {} has no alert {alert}", core.account);
            Problem::not_found("alert_unknown", detail)
        };
        let found = core.org_alerts.get(&alert).cloned().ok_or_else(unknown)?;
        Ok(AlertView { alert_id: alert.clone(), alert: found })
    };
    one(&app, account, query.at_least, Setting::OrgAlert(&alert), view).await
}
