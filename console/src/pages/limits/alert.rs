//! Alert: one alert of the account, as a row and as a form.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use ledger_core::value::time::Time;
use serde::Deserialize;
use serde_json::{Value, json};

use super::notified::{
    ALL_ADMINS, Notified, Ticked, contacts, ids_of, notified, notified_in_words, recipients,
};
use super::tried::{Tried, figure, try_out};
use crate::account::path_of;
use crate::api::{self, Failure, FieldError};
use crate::format::{self, Sum, Unit, When};
use crate::layout::{self, Frame, Tab};
use crate::visit::{Fields, Form, Visit, segment};

/// What an alert can watch: its name, how the choice reads, and the words after its threshold.
pub(super) const BASES: [(&str, &str, &str); 4] = [
    ("percent_used", "Percent used, at or above", "used"),
    ("absolute_used", "Amount used, at or above", "used"),
    ("percent_remaining", "Percent left, at or below", "left"),
    ("absolute_remaining", "Amount left, at or below", "left"),
];
pub(super) const CHANNELS: [(&str, &str); 3] =
    [("email", "E-mail"), ("in_app", "In the app"), ("webhook", "Webhook")];

#[derive(Deserialize)]
pub(super) struct Alert {
    pub(super) alert_id: String,
    pub(super) basis: String,
    pub(super) threshold: Sum,
    pub(super) recipients: Value,
    pub(super) channels: Vec<String>,
    #[serde(default)]
    pub(super) state: String,
    #[serde(default)]
    pub(super) fired_at: Option<Time>,
}

pub(super) struct AlertRow {
    pub(super) id: String,
    pub(super) edit: String,
    pub(super) condition: String,
    pub(super) notified: String,
    pub(super) channels: String,
    pub(super) fired: Option<When>,
}

#[derive(Template)]
#[template(path = "alert.html")]
pub(super) struct AlertPage {
    pub(super) frame: Frame,
    pub(super) here: String,
    pub(super) is_new: bool,
    pub(super) id: String,
    pub(super) basis: String,
    pub(super) bases: Vec<(String, String)>,
    pub(super) threshold: String,
    pub(super) unit: &'static str,
    pub(super) notified: Notified,
    pub(super) channels: Vec<Ticked>,
    pub(super) tag: String,
    pub(super) failure: Option<Failure>,
    pub(super) tried: Option<Tried>,
}

impl AlertPage {
    pub(super) fn wrong(&self, field: &str) -> &str {
        api::wrong(self.failure.as_ref(), field)
    }
}

pub(super) fn page_of(id: &str) -> String {
    format!("/accounts/{}/limits", segment(id))
}

/// Returns a threshold as people say it: `75 % used`.
pub(super) fn condition(unit: Unit, basis: &str, threshold: Sum) -> String {
    let word = BASES.iter().find(|(name, _, _)| *name == basis).map_or(basis, |(_, _, word)| *word);
    format!("{} {word}", figure(unit, basis, threshold))
}

pub(super) fn alert_row(here: &str, unit: Unit, alert: Alert) -> AlertRow {
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

pub(super) fn exact(sum: Option<Sum>) -> String {
    sum.map_or_else(String::new, |Sum(sum)| sum.to_string())
}

pub(super) async fn ask_alert(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
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
pub(super) fn form_of(alert: &Alert, tag: &str) -> Fields {
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

pub(super) async fn alert_page(
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

pub(super) fn alert_of(form: &Fields) -> Value {
    let channels: Vec<&str> = form.all("channel").filter(|channel| !channel.is_empty()).collect();
    json!({
        "basis": form.get("basis"),
        "threshold": form.get("threshold"),
        "recipients": recipients(form),
        "channels": channels,
    })
}

pub(super) async fn set_alert(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
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

pub(super) async fn alert_again(
    visit: &Visit,
    id: &str,
    form: &Form,
    failure: Failure,
) -> Result<Response, Failure> {
    if failure.is_about_form() {
        alert_page(visit, id, StatusCode::UNPROCESSABLE_ENTITY, form, Some(failure), None).await
    } else {
        Err(failure)
    }
}

/// Refuses a new alert under a name that is missing or taken: the API would replace the one that has it.
pub(super) async fn require_free(visit: &Visit, id: &str, form: &Fields) -> Result<(), Failure> {
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

pub(super) async fn remove_alert(
    visit: Visit,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let path = format!("{}/alerts/{}", path_of(&id), segment(form.get("alert_id")));
    let answer = visit.api.delete(&path).send().await?;
    Ok(layout::done(&page_of(&id), layout::word_of(&answer, "removed")))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }

    #[test]
    fn a_form_is_the_whole_alert() {
        let expected = json!({"basis": "percent_used", "threshold": "75",
            "recipients": "all_admins", "channels": ["email", "webhook"]});
        let typed = "basis=percent_used&threshold=75&to=all&channel=email&channel=webhook";
        assert_eq!(alert_of(&Fields::read(typed.as_bytes())), expected);
    }
}
