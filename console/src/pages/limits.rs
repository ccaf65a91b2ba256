//! Limits & alerts: limits of users, alerts, and when they would have fired.

use std::collections::BTreeSet;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use ledger_core::value::time::Time;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::account::{Account, path_of};
use crate::api::{self, Failure, FieldError, List};
use crate::format::{self, Amount, Sum, Unit, When};
use crate::layout::{self, Frame, Tab};
use crate::visit::{Fields, Form, Visit, segment};

/// Own limits on a page.
const OWN_ROWS: usize = 25;
/// Firings of a preview that are listed, the latest.
const HITS: usize = 10;
/// Most people that a form offers to tick; more are typed by id.
const PEOPLE_MAX: usize = 24;
const ALL_ADMINS: &str = "all_admins";

/// What an alert can watch: its name, how the choice reads, and the words after its threshold.
const BASES: [(&str, &str, &str); 4] = [
    ("percent_used", "Percent used, at or above", "used"),
    ("absolute_used", "Amount used, at or above", "used"),
    ("percent_remaining", "Percent left, at or below", "left"),
    ("absolute_remaining", "Amount left, at or below", "left"),
];
const CHANNELS: [(&str, &str); 3] = [("email", "E-mail"), ("in_app", "In the app"), ("webhook", "Webhook")];

#[derive(Deserialize)]
struct Alert {
    alert_id: String,
    basis: String,
    threshold: Sum,
    recipients: Value,
    channels: Vec<String>,
    #[serde(default)]
    state: String,
    #[serde(default)]
    fired_at: Option<Time>,
}

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

#[derive(Default, Deserialize)]
struct Contacts {
    admins: Vec<Person>,
    users: Vec<Person>,
}

#[derive(Deserialize)]
struct Person {
    id: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Backtest {
    total: u64,
    items: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    fired_at: Time,
    period_index: i64,
    subject: String,
    figure: Sum,
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

struct AlertRow {
    id: String,
    edit: String,
    condition: String,
    notified: String,
    channels: String,
    fired: Option<When>,
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

/// Who is notified: everybody, some, or nobody.
struct Notified {
    to: String,
    people: Vec<Ticked>,
    others: String,
}

struct Ticked {
    value: String,
    label: String,
    is_on: bool,
}

/// What a rule would have notified of.
struct Tried {
    total: String,
    is_none: bool,
    periods: usize,
    hits: Vec<HitRow>,
    has_more: bool,
}

struct HitRow {
    /// The user it is about; none for the account.
    subject: Option<String>,
    day: When,
    at: When,
    figure: String,
}

#[derive(Template)]
#[template(path = "alert.html")]
struct AlertPage {
    frame: Frame,
    here: String,
    is_new: bool,
    id: String,
    basis: String,
    bases: Vec<(String, String)>,
    threshold: String,
    unit: &'static str,
    notified: Notified,
    channels: Vec<Ticked>,
    tag: String,
    failure: Option<Failure>,
    tried: Option<Tried>,
}

impl AlertPage {
    fn wrong(&self, field: &str) -> &str {
        api::wrong(self.failure.as_ref(), field)
    }
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

fn page_of(id: &str) -> String {
    format!("/accounts/{}/limits", segment(id))
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

/// Reads who can be notified. Auditors may not, and the forms work without.
async fn contacts(visit: &Visit, id: &str) -> Contacts {
    if !visit.who.may_set() {
        return Contacts::default();
    }
    visit.api.get(&format!("{}/contacts", path_of(id))).await.unwrap_or_default()
}

/// Returns a threshold as people say it: `75 % used`.
fn condition(unit: Unit, basis: &str, threshold: Sum) -> String {
    let word = BASES.iter().find(|(name, _, _)| *name == basis).map_or(basis, |(_, _, word)| *word);
    format!("{} {word}", figure(unit, basis, threshold))
}

/// Returns a figure in the unit of what is watched.
fn figure(unit: Unit, basis: &str, figure: Sum) -> String {
    if basis.starts_with("percent") {
        return format::percent_of_api(figure);
    }
    let amount = unit.show(figure).text();
    if unit == Unit::Credits { format!("{amount} {}", unit.word()) } else { amount }
}

fn alert_row(here: &str, unit: Unit, alert: Alert) -> AlertRow {
    let edit: Fields = [("id", alert.alert_id.as_str())].into_iter().collect();
    let channels = alert.channels.iter().map(|channel| {
        let known = CHANNELS.iter().find(|(name, _)| name == channel);
        known.map_or_else(|| format::words(channel), |(_, label)| (*label).to_owned())
    });
    AlertRow {
        edit: format!("{here}/alert{}", edit.link()),
        condition: condition(unit, &alert.basis, alert.threshold),
        notified: notified_in_words(&alert.recipients),
        channels: channels.collect::<Vec<_>>().join(", "),
        fired: alert.fired_at.filter(|_| alert.state == "fired").map(|at| format::when(&at)),
        id: alert.alert_id,
    }
}

fn notified_in_words(recipients: &Value) -> String {
    match ids_of(recipients).as_slice() {
        _ if recipients == ALL_ADMINS => "all admins".to_owned(),
        [] => "nobody".to_owned(),
        ids => ids.join(", "),
    }
}

fn ids_of(recipients: &Value) -> Vec<&str> {
    recipients.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn own_row(people: &str, unit: Unit, own: OwnLimit) -> OwnRow {
    let limit: Option<Sum> = serde_json::from_value(own.limit.into()).ok();
    OwnRow {
        href: format!("{people}/{}", segment(&own.user_id)),
        limit: limit.map(|limit| unit.show(limit)),
        user: own.user_id,
    }
}

fn exact(sum: Option<Sum>) -> String {
    sum.map_or_else(String::new, |Sum(sum)| sum.to_string())
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

/// Offers those who can be notified, and ticks those who are.
fn notified(contacts: &Contacts, recipients: &Value) -> Notified {
    let mut ids: BTreeSet<&str> = ids_of(recipients).into_iter().collect();
    let to = match ids.is_empty() {
        _ if *recipients == ALL_ADMINS => "all",
        true => "nobody",
        false => "some",
    };
    let people = contacts.admins.iter().chain(&contacts.users).take(PEOPLE_MAX);
    let people = people.map(|person| Ticked {
        is_on: ids.remove(person.id.as_str()),
        label: person.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| person.id.clone()),
        value: person.id.clone(),
    });
    let people: Vec<Ticked> = people.collect();
    let others = ids.into_iter().collect::<Vec<_>>().join(", ");
    Notified { to: to.to_owned(), people, others }
}

/// Returns names that are typed behind each other, separated by commas, spaces or lines.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ', '\n', '\r', '\t']).filter(|name| !name.is_empty())
}

/// Returns who is notified, as the API takes it.
fn recipients(form: &Fields) -> Value {
    match form.get("to") {
        "all" => ALL_ADMINS.into(),
        "some" => {
            let ticked = form.all("person").filter(|id| !id.is_empty());
            let mut ids: Vec<&str> = Vec::new();
            for id in ticked.chain(listed(form.get("others"))) {
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
            json!(ids)
        }
        _ => json!([]),
    }
}

/// Returns an amount that was typed; null where none was.
fn typed_amount(form: &Fields, name: &str) -> Value {
    form.filled(name).map_or(Value::Null, Value::from)
}

/// Asks the API when a rule would have fired.
async fn try_out(visit: &Visit, id: &str, basis: &str, rule: &Value) -> Result<Tried, Failure> {
    let path = format!("{}/alerts/backtest", path_of(id));
    let (account, answer) = tokio::join!(visit.account(id), visit.api.post(&path).json(rule).send());
    let (account, answer) = (account?, answer?);
    let answer = serde_json::from_value::<Backtest>(answer);
    let answer = answer.map_err(|_| {
        Failure::new(StatusCode::BAD_GATEWAY, "unreadable", "the ledger's answer can't be read")
    })?;
    Ok(tried(&account, basis, answer))
}

fn tried(account: &Account, basis: &str, answer: Backtest) -> Tried {
    let periods: BTreeSet<i64> = answer.items.iter().map(|hit| hit.period_index).collect();
    let row = |hit: &Hit| HitRow {
        subject: Some(hit.subject.clone()).filter(|subject| *subject != account.account_id),
        day: format::day(&hit.fired_at),
        at: format::when(&hit.fired_at),
        figure: figure(account.unit, basis, hit.figure),
    };
    Tried {
        total: format::count(answer.total),
        is_none: answer.total == 0,
        periods: periods.len(),
        hits: answer.items.iter().rev().take(HITS).map(row).collect(),
        has_more: answer.items.len() > HITS,
    }
}

async fn ask_alert(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let alert = match visit.query.filled("id") {
        Some(alert) => {
            let path = format!("{}/alerts/{}", path_of(&id), segment(alert));
            Some(visit.api.get_tagged::<Alert>(&path).await?)
        }
        None => None,
    };
    let form = match alert {
        Some((alert, tag)) => form_of(&alert, &tag),
        None => {
            let fields = [("new", "yes"), ("basis", "percent_used"), ("to", "all"), ("channel", "email")];
            fields.into_iter().chain([("channel", "in_app")]).collect()
        }
    };
    alert_page(&visit, &id, StatusCode::OK, &form, None, None).await
}

/// Returns the form of an alert as it stands.
fn form_of(alert: &Alert, tag: &str) -> Fields {
    let to = if alert.recipients == ALL_ADMINS { "all" } else { "some" };
    let threshold = exact(Some(alert.threshold));
    let mut fields = vec![
        ("alert_id", alert.alert_id.as_str()),
        ("basis", &alert.basis),
        ("threshold", &threshold),
        ("to", to),
        ("tag", tag),
    ];
    fields.extend(alert.channels.iter().map(|channel| ("channel", channel.as_str())));
    fields.extend(ids_of(&alert.recipients).into_iter().map(|person| ("person", person)));
    fields.into_iter().collect()
}

async fn alert_page(
    visit: &Visit,
    id: &str,
    status: StatusCode,
    form: &Fields,
    failure: Option<Failure>,
    tried: Option<Tried>,
) -> Result<Response, Failure> {
    if !visit.who.may_set() {
        return Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", "only admins set alerts"));
    }
    let (account, contacts) = tokio::join!(visit.account(id), contacts(visit, id));
    let account = account?;
    let is_new = form.is_on("new");
    let title = if is_new { "Add an alert" } else { "Edit the alert" };
    let channel = |(value, label): (&str, &str)| Ticked {
        value: value.to_owned(),
        label: label.to_owned(),
        is_on: form.all("channel").any(|on| on == value),
    };
    let page = AlertPage {
        frame: Frame::account(visit, &account, Tab::Limits, title),
        here: page_of(id),
        is_new,
        id: form.get("alert_id").to_owned(),
        basis: form.get("basis").to_owned(),
        bases: BASES.into_iter().map(|(name, label, _)| (name.to_owned(), label.to_owned())).collect(),
        threshold: form.get("threshold").to_owned(),
        unit: account.unit.word(),
        notified: notified(&contacts, &recipients(form)),
        channels: CHANNELS.into_iter().map(channel).collect(),
        tag: form.get("tag").to_owned(),
        failure,
        tried,
    };
    layout::page_with(status, &page)
}

fn alert_of(form: &Fields) -> Value {
    let channels: Vec<&str> = form.all("channel").filter(|channel| !channel.is_empty()).collect();
    json!({
        "basis": form.get("basis"),
        "threshold": form.get("threshold"),
        "recipients": recipients(form),
        "channels": channels,
    })
}

async fn set_alert(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let body = alert_of(&form);
    if form.get("do") == "preview" {
        return match try_out(&visit, &id, form.get("basis"), &body).await {
            Ok(tried) => alert_page(&visit, &id, StatusCode::OK, &form, None, Some(tried)).await,
            Err(failure) => alert_again(&visit, &id, &form, failure).await,
        };
    }
    if let Err(failure) = require_free(&visit, &id, &form).await {
        return alert_again(&visit, &id, &form, failure).await;
    }
    let path = format!("{}/alerts/{}", path_of(&id), segment(form.get("alert_id")));
    match visit.api.put(&path).json(&body).if_match(form.get("tag")).send().await {
        Ok(answer) => Ok(layout::done(&page_of(&id), layout::word_of(&answer, "saved"))),
        Err(failure) => alert_again(&visit, &id, &form, failure).await,
    }
}

async fn alert_again(visit: &Visit, id: &str, form: &Form, failure: Failure) -> Result<Response, Failure> {
    if failure.is_about_form() {
        alert_page(visit, id, StatusCode::UNPROCESSABLE_ENTITY, form, Some(failure), None).await
    } else {
        Err(failure)
    }
}

/// Refuses a new alert under a name that is missing or taken: the API would replace the one that has it.
async fn require_free(visit: &Visit, id: &str, form: &Fields) -> Result<(), Failure> {
    let wrong = |detail: &str| {
        let failure = Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "a field is wrong");
        let errors = vec![FieldError { field: "alert_id".to_owned(), detail: detail.to_owned() }];
        Failure { errors, ..failure }
    };
    let Some(alert) = form.filled("alert_id") else { return Err(wrong("is required")) };
    let path = format!("{}/alerts/{}", path_of(id), segment(alert));
    if form.is_on("new") && visit.api.get::<Alert>(&path).await.is_ok() {
        return Err(wrong("is the name of another alert"));
    }
    Ok(())
}

async fn remove_alert(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let path = format!("{}/alerts/{}", path_of(&id), segment(form.get("alert_id")));
    let answer = visit.api.delete(&path).send().await?;
    Ok(layout::done(&page_of(&id), layout::word_of(&answer, "removed")))
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
    fn those_who_are_notified_are_all_some_or_nobody() {
        for (typed, expected) in [
            ("to=all&person=ana", json!("all_admins")),
            ("to=some&person=ana&others=bob%2C+ana", json!(["ana", "bob"])),
            ("to=nobody&person=ana", json!([])),
        ] {
            assert_eq!(recipients(&form(typed)), expected, "{typed}");
        }
        let contacts = Contacts { admins: vec![Person { id: "ana".into(), name: None }], users: Vec::new() };
        let shown = notified(&contacts, &json!(["ana", "bob"]));
        assert_eq!((shown.to.as_str(), shown.others.as_str()), ("some", "bob"));
        assert!(shown.people[0].is_on);
        assert_eq!(notified(&contacts, &json!([])).to, "nobody");
    }

    #[test]
    fn a_form_is_the_whole_setting() {
        let typed = "enabled=on&default_limit=&excluded_features=chat%2C+deep+search%0D%0A&to=all";
        let expected = json!({"enabled": true, "default_limit": null,
            "excluded_features": ["chat", "deep search"], "notify": "all_admins"});
        assert_eq!(limits_of(&form(typed)), expected);
        let expected = json!({"enabled": false, "threshold": "5", "notify_user": true, "recipients": []});
        assert_eq!(user_alert_of(&form("threshold=+5&notify_user=on&to=nobody")), expected);
        let expected = json!({"basis": "percent_used", "threshold": "75",
            "recipients": "all_admins", "channels": ["email", "webhook"]});
        let typed = "basis=percent_used&threshold=75&to=all&channel=email&channel=webhook";
        assert_eq!(alert_of(&form(typed)), expected);
    }

    #[test]
    fn a_condition_reads_as_people_say_it() {
        let sum = |text: &str| -> Sum { serde_json::from_value(text.into()).expect("an amount") };
        for (unit, basis, threshold, expected) in [
            (Unit::Credits, "percent_used", "75", "75 % used"),
            (Unit::Credits, "absolute_remaining", "5000", "5,000 credits left"),
            (Unit::Usd, "absolute_used", "12.5", "$12.50 used"),
        ] {
            assert_eq!(condition(unit, basis, sum(threshold)), expected);
        }
        assert_eq!(notified_in_words(&json!(["ana", "bob"])), "ana, bob");
    }
}
