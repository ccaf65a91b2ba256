//! Limits & alerts: limits of users, alerts, and when they would have fired.

mod alert;
mod notified;
mod tried;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use self::alert::{Alert, AlertRow, alert_row, ask_alert, exact, page_of, remove_alert, set_alert};
use self::notified::{Contacts, Notified, contacts, notified, recipients};
use self::tried::{Tried, try_out};
use crate::account::path_of;
use crate::api::{self, Failure, FieldError, List};
use crate::format::{self, Amount, Sum, Unit};
use crate::layout::{self, Frame, Tab};
use crate::visit::{Fields, Form, Visit, segment};

/// Own limits on a page.
const OWN_ROWS: usize = 25;

#[derive(Deserialize)]
struct UserAlert {
    enabled: bool,
    threshold: Option<Sum>,
    notify_user: bool,
    recipients: Value,
}

#[derive(Deserialize)]
struct Limits {
    enabled: bool,
    default_limit: Option<Sum>,
    excluded_features: Vec<String>,
    notify: Value,
    own_limits: i64,
}

#[derive(Deserialize)]
struct OwnLimit {
    user_id: String,
    limit: String,
}

#[derive(Template)]
#[template(path = "limits.html")]
struct LimitsPage {
    frame: Frame,
    here: String,
    people: String,
    may_set: bool,
    alerts: Result<Vec<AlertRow>, Failure>,
    user_alert: Result<UserAlertForm, Failure>,
    limits: Result<LimitsForm, Failure>,
    own: Result<Vec<OwnRow>, Failure>,
    own_first: Option<String>,
    own_next: Option<String>,
    own_csv: String,
    again: Option<Again>,
}

impl LimitsPage {
    fn below(&self, place: &str) -> String {
        format!("{}/{place}", self.here)
    }

    fn refused(&self, part: &str) -> Option<&Failure> {
        self.again.as_ref().filter(|again| again.part == part)?.failure.as_ref()
    }

    fn tried(&self, part: &str) -> Option<&Tried> {
        self.again.as_ref().filter(|again| again.part == part)?.tried.as_ref()
    }

    fn wrong(&self, part: &str, field: &str) -> &str {
        api::wrong(self.refused(part), field)
    }

    /// Returns what was typed into the form of a part, empty where it was not sent.
    fn typed(&self, part: &str, field: &str) -> &str {
        self.again.as_ref().filter(|again| again.part == part).map_or("", |again| again.form.get(field))
    }
}

/// A part of the page that is shown again: with what was typed, and what is wrong or would have fired.
struct Again {
    part: &'static str,
    form: Fields,
    failure: Option<Failure>,
    tried: Option<Tried>,
}

struct UserAlertForm {
    enabled: bool,
    threshold: String,
    notify_user: bool,
    notified: Notified,
    tag: String,
}

struct LimitsForm {
    enabled: bool,
    default_limit: String,
    excluded: String,
    notified: Notified,
    tag: String,
    own_limits: String,
}

struct OwnRow {
    user: String,
    href: String,
    limit: Option<Amount>,
}

pub fn routes() -> Router {
    Router::new()
        .route("/accounts/{account}/limits", get(show))
        .route("/accounts/{account}/limits/alerts.csv", get(export_alerts))
        .route("/accounts/{account}/limits/own.csv", get(export_own))
        .route("/accounts/{account}/limits/alert", get(ask_alert).post(set_alert))
        .route("/accounts/{account}/limits/alert/remove", post(remove_alert))
        .route("/accounts/{account}/limits/user-alert", post(set_user_alert))
        .route("/accounts/{account}/limits/default", post(set_limits))
        .route("/accounts/{account}/limits/own", post(set_own))
        .route("/accounts/{account}/limits/own/remove", post(remove_own))
}

async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    shown(&visit, &id, StatusCode::OK, None).await
}

async fn shown(
    visit: &Visit,
    id: &str,
    status: StatusCode,
    again: Option<Again>,
) -> Result<Response, Failure> {
    let (api, path, here) = (&visit.api, path_of(id), page_of(id));
    let cursor = visit.query.filled("cursor");
    let own: Fields = [("limit", OWN_ROWS.to_string().as_str())]
        .into_iter()
        .chain(cursor.map(|cursor| ("cursor", cursor)))
        .collect();
    let own = format!("{path}/limits/users{}", own.link());
    let (alerts, user_alert, limits) =
        (format!("{path}/alerts?limit=500"), format!("{path}/user-alert"), format!("{path}/limits"));
    let (account, alerts, user_alert, limits, own, contacts) = tokio::join!(
        visit.account(id),
        api.get::<List<Alert>>(&alerts),
        api.get_tagged::<UserAlert>(&user_alert),
        api.get_tagged::<Limits>(&limits),
        api.get::<List<OwnLimit>>(&own),
        contacts(visit, id),
    );
    let account = account?;
    let unit = account.unit;
    let query = visit.query.without("done").without("cursor");
    let next = own.as_ref().ok().and_then(|own| own.next_cursor.clone());
    let typed = |part: &str| again.as_ref().filter(|again| again.part == part).map(|again| &again.form);
    let people = format!("/accounts/{}/people", segment(id));
    let page = LimitsPage {
        frame: Frame::account(visit, &account, Tab::Limits, "Limits & alerts").live(id),
        may_set: visit.who.may_set() && !account.is_closed(),
        alerts: alerts.map(|list| list.items.into_iter().map(|one| alert_row(&here, unit, one)).collect()),
        user_alert: user_alert
            .map(|(alert, tag)| user_alert_form(alert, tag, typed("user-alert"), &contacts)),
        limits: limits.map(|(limits, tag)| limits_form(limits, tag, typed("default"), &contacts)),
        own: own.map(|list| list.items.into_iter().map(|one| own_row(&people, unit, one)).collect()),
        own_first: cursor.map(|_| format!("{here}{}#own", query.link())),
        own_next: next.map(|cursor| format!("{here}{}#own", query.with("cursor", &cursor).link())),
        own_csv: format!("{here}/own.csv{}", query.with("cursor", cursor.unwrap_or_default()).link()),
        people,
        here,
        again,
    };
    layout::page_with(status, &page)
}

async fn export_alerts(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    visit.api.csv(&format!("{}/alerts.csv?limit=500", path_of(&id)), "alerts.csv").await
}

/// Passes on the own limits from the page on.
async fn export_own(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let asked = Fields::from_iter([("limit", "500")]).with("cursor", visit.query.get("cursor"));
    visit.api.csv(&format!("{}/limits/users.csv{}", path_of(&id), asked.link()), "limits.csv").await
}

fn own_row(people: &str, unit: Unit, own: OwnLimit) -> OwnRow {
    let limit: Option<Sum> = serde_json::from_value(own.limit.into()).ok();
    OwnRow {
        href: format!("{people}/{}", segment(&own.user_id)),
        limit: limit.map(|limit| unit.show(limit)),
        user: own.user_id,
    }
}

fn user_alert_form(
    alert: UserAlert,
    tag: String,
    typed: Option<&Fields>,
    contacts: &Contacts,
) -> UserAlertForm {
    match typed {
        Some(form) => UserAlertForm {
            enabled: form.is_on("enabled"),
            threshold: form.get("threshold").to_owned(),
            notify_user: form.is_on("notify_user"),
            notified: notified(contacts, &recipients(form)),
            tag: form.get("tag").to_owned(),
        },
        None => UserAlertForm {
            enabled: alert.enabled,
            threshold: exact(alert.threshold),
            notify_user: alert.notify_user,
            notified: notified(contacts, &alert.recipients),
            tag,
        },
    }
}

fn limits_form(limits: Limits, tag: String, typed: Option<&Fields>, contacts: &Contacts) -> LimitsForm {
    let own_limits = format::count(u64::try_from(limits.own_limits).unwrap_or_default());
    match typed {
        Some(form) => LimitsForm {
            enabled: form.is_on("enabled"),
            default_limit: form.get("default_limit").to_owned(),
            excluded: form.get("excluded_features").to_owned(),
            notified: notified(contacts, &recipients(form)),
            tag: form.get("tag").to_owned(),
            own_limits,
        },
        None => LimitsForm {
            enabled: limits.enabled,
            default_limit: exact(limits.default_limit),
            excluded: limits.excluded_features.join(", "),
            notified: notified(contacts, &limits.notify),
            tag,
            own_limits,
        },
    }
}

/// Returns an amount that was typed; null where none was.
fn typed_amount(form: &Fields, name: &str) -> Value {
    form.filled(name).map_or(Value::Null, Value::from)
}

/// Shows the page again with one of its parts as it was typed.
async fn again(
    visit: &Visit,
    id: &str,
    part: &'static str,
    form: Form,
    tried: Result<Tried, Failure>,
) -> Result<Response, Failure> {
    let (status, failure, tried) = match tried {
        Ok(tried) => (StatusCode::OK, None, Some(tried)),
        Err(failure) if failure.is_about_form() => (StatusCode::UNPROCESSABLE_ENTITY, Some(failure), None),
        Err(failure) => return Err(failure),
    };
    shown(visit, id, status, Some(Again { part, form: form.0, failure, tried })).await
}

/// A setting that can be tried before it is saved.
struct Setting {
    part: &'static str,
    /// Its place below the account.
    place: &'static str,
    /// The kind of its backtest.
    kind: &'static str,
    body: Value,
}

async fn set(visit: &Visit, id: &str, form: Form, setting: Setting) -> Result<Response, Failure> {
    let Setting { part, place, kind, mut body } = setting;
    if form.get("do") == "preview" {
        body["kind"] = kind.into();
        let tried = try_out(visit, id, kind, &body).await;
        return again(visit, id, part, form, tried).await;
    }
    let path = format!("{}/{place}", path_of(id));
    match visit.api.put(&path).json(&body).if_match(form.get("tag")).send().await {
        Ok(answer) => Ok(layout::done(&page_of(id), layout::word_of(&answer, "saved"))),
        Err(failure) => again(visit, id, part, form, Err(failure)).await,
    }
}

fn user_alert_of(form: &Fields) -> Value {
    json!({
        "enabled": form.is_on("enabled"),
        "threshold": typed_amount(form, "threshold"),
        "notify_user": form.is_on("notify_user"),
        "recipients": recipients(form),
    })
}

async fn set_user_alert(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let body = user_alert_of(&form);
    set(&visit, &id, form, Setting { part: "user-alert", place: "user-alert", kind: "user_alert", body })
        .await
}

fn limits_of(form: &Fields) -> Value {
    let excluded: Vec<&str> = form.get("excluded_features").split([',', '\n', '\r']).collect();
    let excluded = excluded.into_iter().map(str::trim).filter(|name| !name.is_empty());
    json!({
        "enabled": form.is_on("enabled"),
        "default_limit": typed_amount(form, "default_limit"),
        "excluded_features": excluded.collect::<Vec<_>>(),
        "notify": recipients(form),
    })
}

async fn set_limits(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let body = limits_of(&form);
    set(&visit, &id, form, Setting { part: "default", place: "limits", kind: "user_limit_reached", body })
        .await
}

async fn set_own(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let user = form.get("user");
    let limit = if form.is_on("unlimited") { "unlimited" } else { form.get("limit") };
    let path = format!("{}/limits/users/{}", path_of(&id), segment(user));
    let sent = if user.is_empty() {
        let failure = Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "a field is wrong");
        let errors = vec![FieldError { field: "user".to_owned(), detail: "is required".to_owned() }];
        Err(Failure { errors, ..failure })
    } else {
        visit.api.put(&path).json(&json!({"limit": limit})).send().await
    };
    match sent {
        Ok(answer) => Ok(layout::done(&page_of(&id), layout::word_of(&answer, "saved"))),
        Err(failure) => again(&visit, &id, "own", form, Err(failure)).await,
    }
}

async fn remove_own(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let path = format!("{}/limits/users/{}", path_of(&id), segment(form.get("user")));
    let answer = visit.api.delete(&path).send().await?;
    Ok(layout::done(&page_of(&id), layout::word_of(&answer, "removed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Fields {
        Fields::read(text.as_bytes())
    }

    #[test]
    fn a_form_is_the_whole_setting() {
        let typed = "enabled=on&default_limit=&excluded_features=chat%2C+deep+search%0D%0A&to=all";
        let expected = json!({"enabled": true, "default_limit": null,
            "excluded_features": ["chat", "deep search"], "notify": "all_admins"});
        assert_eq!(limits_of(&form(typed)), expected);
        let expected = json!({"enabled": false, "threshold": "5", "notify_user": true, "recipients": []});
        assert_eq!(user_alert_of(&form("threshold=+5&notify_user=on&to=nobody")), expected);
    }
}
