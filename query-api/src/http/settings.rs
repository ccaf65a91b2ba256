//! Settings of an account one by one, each with the ETag that its `PUT` takes as `If-Match`.

use axum::extract::State;
use axum::response::Response;
use ledger_core::account::Core;
use ledger_core::account::alert::{OrgAlert, UserAlert};
use ledger_core::account::setting::Setting;
use ledger_core::account::top_up::{AutoTopUp, MAX_PER_PERIOD};
use ledger_core::event::{Recipients, TopUpBasis};
use ledger_core::value::id::{AccountId, AlertId};
use platform::position::AtLeast;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use web::http::{ETag, Path, Problem, Query};

use crate::access::Whole;
use crate::answer::{self, Reflects};
use crate::app::App;
use crate::reading;

#[derive(Deserialize)]
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
) -> Result<Response, Problem> {
    let read = reading::of(app, account, at_least, |_, account| {
        let core = account.core.clone();
        Box::pin(async move { Ok(core) })
    });
    let (reflects, core) = read.await?;
    shown(&reflects, view(&core)?, &setting.content(&core, None))
}

/// Answers with a view of a setting and the ETag of its content.
pub(crate) fn shown(reflects: &Reflects, view: impl Serialize, content: &Value) -> Result<Response, Problem> {
    let mut response = answer::object(reflects, view)?;
    ETag::of(content)?.mark(&mut response)?;
    Ok(response)
}

/// `GET /v1/accounts/{account}/user-alert`
pub(crate) async fn user_alert(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<SettingQuery>,
) -> Result<Response, Problem> {
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
pub(crate) async fn auto_top_up(
    State(app): State<App>,
    Whole(account): Whole,
    Query(query): Query<SettingQuery>,
) -> Result<Response, Problem> {
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

#[derive(Deserialize)]
pub(crate) struct AlertPath {
    alert: AlertId,
}

#[derive(Serialize)]
struct AlertView {
    alert_id: AlertId,
    #[serde(flatten)]
    alert: OrgAlert,
}

/// `GET /v1/accounts/{account}/alerts/{alert}`
pub(crate) async fn org_alert(
    State(app): State<App>,
    Whole(account): Whole,
    Path(AlertPath { alert }): Path<AlertPath>,
    Query(query): Query<SettingQuery>,
) -> Result<Response, Problem> {
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
