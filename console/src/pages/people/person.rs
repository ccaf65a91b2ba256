//! Person: the page of one user, with the own limit to edit in place.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use ledger_core::value::time::Day;
use serde_json::json;

use super::decisions::{Answer, Decision, Explained, answer, explained};
use super::reads::{Firing, OfModel, OnDay, Own, Read, read};
use super::user::against_limit;
use crate::account::{Account, path_of};
use crate::api::{self, Failure, List};
use crate::chart::{self, Column, Part, Svg};
use crate::format::{self, Amount, Sum, Unit, When};
use crate::layout::{self, Frame, Tab};
use crate::visit::{Fields, Form, Visit, segment};

#[derive(Template)]
#[template(path = "person.html")]
struct PersonPage {
    frame: Frame,
    id: String,
    here: String,
    usage: String,
    people: Option<String>,
    used: Amount,
    unit: &'static str,
    counted: Amount,
    held: Amount,
    limit: Option<Amount>,
    left: Option<Amount>,
    share: String,
    bar: Option<Svg>,
    blocked: bool,
    days: Result<Option<Svg>, Failure>,
    day_rows: Vec<DayRow>,
    top: Amount,
    models: Result<Vec<ModelRow>, Failure>,
    decisions: Result<Vec<Explained>, Failure>,
    next: Option<String>,
    first: Option<String>,
    at: String,
    answer: Option<Answer>,
    firings: Result<Vec<Fired>, Failure>,
    /// None: the visitor may not change it.
    edit: Option<Edit>,
    failure: Option<Failure>,
}

impl PersonPage {
    fn wrong(&self, field: &str) -> &str {
        api::wrong(self.failure.as_ref(), field)
    }
}

/// The form of the own limit.
struct Edit {
    mode: String,
    limit: String,
    tag: String,
    default_limit: Option<Amount>,
}

struct DayRow {
    day: String,
    href: String,
    amount: Amount,
    events: String,
}

struct ModelRow {
    label: String,
    href: String,
    amount: Amount,
    share: String,
    bar: Svg,
}

struct Fired {
    what: String,
    at: When,
    class: &'static str,
}

pub(super) async fn one(visit: Visit, Path((id, user)): Path<(String, String)>) -> Result<Response, Failure> {
    show(&visit, &id, &user, StatusCode::OK, None).await
}

/// What was typed into the form of the limit, and why it was refused.
type Refused = (Fields, Failure);

async fn show(
    visit: &Visit,
    id: &str,
    user: &str,
    status: StatusCode,
    refused: Option<Refused>,
) -> Result<Response, Failure> {
    let read = read(visit, id, user).await?;
    let base = format!("/accounts/{}", segment(id));
    let page = person(visit, &base, user, read, refused);
    let page = match page {
        (Some(account), mut page) => {
            page.frame = Frame::account(visit, &account, Tab::People, user).live(id);
            page
        }
        (None, page) => page,
    };
    layout::page_with(status, &page)
}

fn person(
    visit: &Visit,
    base: &str,
    user: &str,
    read: Read,
    refused: Option<Refused>,
) -> (Option<Account>, PersonPage) {
    let Read { unit, figures, .. } = read;
    let here = format!("{base}/people/{}", segment(user));
    let query = visit.query.without("done");
    let next = read.decisions.as_ref().ok().and_then(|list| list.next_cursor.clone());
    let (share, bar) = against_limit(unit, &figures, figures.used);
    let (day_rows, top, days) = by_day(base, unit, user, read.days);
    let id = user.to_owned();
    let may_set = visit.who.may_set() && !read.account.as_ref().is_some_and(Account::is_closed);
    let (form, failure) = refused.unzip();
    let edit = may_set.then(|| edit(unit, &read.own, read.default_limit, form.as_ref()));
    let explain = |list: List<Decision>| list.items.iter().map(|one| explained(unit, one)).collect();
    let page = PersonPage {
        frame: Frame::of_member(
            visit,
            visit.who.accounts.first().map_or("", String::as_str),
            Tab::People,
            user,
        ),
        usage: usage_of(base, user, &[("group_by", "day,model")]),
        people: (!visit.who.is_member()).then(|| format!("{base}/people")),
        used: unit.show(figures.used),
        unit: unit.word(),
        counted: unit.show(figures.counted),
        held: unit.show(figures.held),
        left: figures.limit.map(|limit| unit.show(limit.minus(figures.counted).max(Sum::ZERO))),
        limit: figures.limit.map(|limit| unit.show(limit)),
        share,
        bar: figures.limit.map(|_| bar),
        blocked: figures.blocked,
        days,
        day_rows,
        top: unit.show(top),
        models: read.models.map(|models| by_model(base, unit, user, &models.items, figures.used)),
        decisions: read.decisions.map(explain),
        next: next.map(|cursor| format!("{here}{}#refusals", query.with("cursor", &cursor).link())),
        first: query.filled("cursor").map(|_| format!("{here}{}#refusals", query.without("cursor").link())),
        answer: answer(unit, query.get("at"), read.asked),
        at: query.get("at").trim_end_matches('Z').to_owned(),
        firings: read.firings.map(|list| list.items.iter().map(|one| fired(unit, one)).collect()),
        edit,
        failure,
        here,
        id,
    };
    (read.account, page)
}

fn usage_of(base: &str, user: &str, more: &[(&str, &str)]) -> String {
    let pairs = [("period", "current"), ("user", user)].into_iter().chain(more.iter().copied());
    format!("{base}/usage{}", pairs.collect::<Fields>().link())
}

fn by_day(
    base: &str,
    unit: Unit,
    user: &str,
    days: Result<List<OnDay>, Failure>,
) -> (Vec<DayRow>, Sum, Result<Option<Svg>, Failure>) {
    let days = match days {
        Ok(days) => days.items,
        Err(failure) => return (Vec::new(), Sum::ZERO, Err(failure)),
    };
    let (Some(first), Some(last)) = (days.first(), days.last()) else {
        return (Vec::new(), Sum::ZERO, Ok(None));
    };
    let column = |number: i32| {
        let day = Day::from_days(number);
        let sum = days.iter().find(|one| one.day == day).map_or(Sum::ZERO, |one| one.credits);
        let label = format!("{}: {}", named(day), unit.show(sum).text());
        Column { parts: vec![Part { class: "c1", sum, label: label.clone() }], label }
    };
    let columns: Vec<Column> = (first.day.days()..=last.day.days()).map(column).collect();
    let top = chart::top(&columns);
    let plot = chart::columns("Use by day", &columns, top);
    let rows = days.iter().map(|one| {
        let day = one.day.to_string();
        DayRow {
            href: usage_of(base, user, &[("day", &day), ("group_by", "model,feature")]),
            day: named(one.day),
            amount: unit.show(one.credits),
            events: format::count(one.events),
        }
    });
    (rows.collect(), top, Ok(Some(plot)))
}

fn named(day: Day) -> String {
    day.to_chrono().map_or_else(|| day.to_string(), |date| date.format("%-d %b %Y").to_string())
}

fn by_model(base: &str, unit: Unit, user: &str, models: &[OfModel], whole: Sum) -> Vec<ModelRow> {
    let row = |one: &OfModel| {
        let model = one.model.as_deref().unwrap_or_default();
        let share = format::percent(one.credits.share_of(whole));
        let part = Part { class: "c1", sum: one.credits, label: unit.show(one.credits).text() };
        ModelRow {
            label: if model.is_empty() { "not named".to_owned() } else { model.to_owned() },
            href: usage_of(base, user, &[("model", model), ("group_by", "feature,day")]),
            amount: unit.show(one.credits),
            bar: chart::bar(&format!("{share} of all"), &[part], whole),
            share,
        }
    };
    models.iter().map(row).collect()
}

fn fired(unit: Unit, firing: &Firing) -> Fired {
    let (figure, threshold) = (unit.show(firing.figure).text(), unit.show(firing.threshold).text());
    let (what, class) = match firing.kind.as_str() {
        "user_limit_reached" => (format!("reached the limit of {threshold}, at {figure}"), "depleted"),
        "user_alert" => (format!("used {figure}; the alert is at {threshold}"), "low"),
        other => (format::words(other), "low"),
    };
    Fired { what, at: format::when(&firing.fired_at), class }
}

/// Fills the form with what was typed, or with what is in force.
fn edit(unit: Unit, own: &Own, default_limit: Option<Sum>, form: Option<&Fields>) -> Edit {
    let (mode, limit) = match (form, own.limit.as_deref()) {
        (Some(form), _) => (form.get("mode"), form.get("limit")),
        (None, Some("unlimited")) => ("unlimited", ""),
        (None, Some(limit)) => ("own", limit),
        (None, None) => ("default", ""),
    };
    Edit {
        mode: mode.to_owned(),
        limit: limit.to_owned(),
        tag: form.map_or(own.tag.as_str(), |form| form.get("tag")).to_owned(),
        default_limit: default_limit.map(|limit| unit.show(limit)),
    }
}

pub(super) async fn set_limit(
    visit: Visit,
    Path((id, user)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Failure> {
    let path = format!("{}/limits/users/{}", path_of(&id), segment(&user));
    let sent = match form.get("mode") {
        "default" => visit.api.delete(&path).if_match(form.get("tag")).send().await,
        "unlimited" => put(&visit, &path, &form, "unlimited").await,
        _ => put(&visit, &path, &form, form.get("limit")).await,
    };
    match sent {
        Ok(answer) => {
            let page = format!("/accounts/{}/people/{}", segment(&id), segment(&user));
            Ok(layout::done(&page, layout::word_of(&answer, "saved")))
        }
        Err(failure) if failure.is_about_form() => {
            show(&visit, &id, &user, StatusCode::UNPROCESSABLE_ENTITY, Some((form.0, failure))).await
        }
        Err(failure) => Err(failure),
    }
}

async fn put(visit: &Visit, path: &str, form: &Form, limit: &str) -> Result<serde_json::Value, Failure> {
    visit.api.put(path).json(&json!({"limit": limit})).if_match(form.get("tag")).send().await
}
