//! People: who used how much, who is over the limit, and why somebody was refused.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use ledger_core::value::time::{Day, Time};
use serde::Deserialize;
use serde_json::json;

use crate::account::{Account, path_of};
use crate::api::{self, Failure, List};
use crate::chart::{self, Column, Part, Svg};
use crate::format::{self, Amount, Sum, Unit, When};
use crate::layout::{self, Frame, Tab};
use crate::visit::{Fields, Form, Visit, segment};

const ROWS: usize = 50;
/// Decisions on a user's page.
const DECISIONS: usize = 20;
const MODELS: usize = 12;
const FIRINGS: usize = 8;
/// A refusal so long before the time that was typed still is the one that is meant.
const NEAR_MICROS: i64 = 5 * 60 * 1_000_000;
const MINUTE_SECONDS: i64 = 60;
/// From this part of the limit on, in millionths, a bar warns.
const WARNS_FROM: u32 = 800_000;

#[derive(Deserialize)]
struct User {
    user_id: String,
    used: Sum,
    counted: Sum,
    held: Sum,
    limit: Option<Sum>,
    blocked: bool,
}

#[derive(Template)]
#[template(path = "people.html")]
struct PeoplePage {
    frame: Frame,
    here: String,
    q: String,
    sort: String,
    over: bool,
    rows: Result<Vec<Row>, Failure>,
    all: String,
    only_over: String,
    by_use: String,
    by_name: String,
    csv: String,
    first: Option<String>,
    next: Option<String>,
}

struct Row {
    id: String,
    href: String,
    used: Amount,
    counted: Amount,
    held: Amount,
    limit: Option<Amount>,
    share: String,
    bar: Svg,
    blocked: bool,
}

pub fn routes() -> Router {
    Router::new()
        .route("/accounts/{account}/people", get(list))
        .route("/accounts/{account}/people.csv", get(export))
        .route("/accounts/{account}/people/{user}", get(one))
        .route("/accounts/{account}/people/{user}/limit", post(set_limit))
}

/// Returns the API's query for a page of the list.
fn wanted(query: &Fields) -> String {
    let sort = if query.get("sort") == "user" { "user" } else { "-used" };
    let mut pairs = vec![("sort".to_owned(), sort.to_owned()), ("limit".to_owned(), ROWS.to_string())];
    for name in ["q", "over_budget", "cursor"] {
        pairs.extend(query.filled(name).map(|value| (name.to_owned(), value.to_owned())));
    }
    pairs.into_iter().collect::<Fields>().link()
}

async fn list(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let here = format!("/accounts/{}/people", segment(&id));
    if let (true, Some(user)) = (visit.who.is_member(), &visit.who.user_id) {
        return Ok(Redirect::to(&format!("{here}/{}", segment(user))).into_response());
    }
    let path = format!("{}/users{}", path_of(&id), wanted(&visit.query));
    let (account, users) = tokio::join!(visit.account(&id), visit.api.get::<List<User>>(&path));
    let account = account?;
    let query = visit.query.without("done").without("cursor");
    let link = |query: Fields| format!("{here}{}", query.link());
    let next = users.as_ref().ok().and_then(|users| users.next_cursor.clone());
    let rows = users.map(|users| {
        let most = users.items.iter().map(|user| user.used).max().unwrap_or(Sum::ZERO);
        users.items.into_iter().map(|user| row(&here, account.unit, user, most)).collect()
    });
    layout::page(&PeoplePage {
        frame: Frame::account(&visit, &account, Tab::People, "People").live(&id),
        q: query.get("q").to_owned(),
        sort: query.get("sort").to_owned(),
        over: query.is_on("over_budget"),
        all: link(query.without("over_budget")),
        only_over: link(query.with("over_budget", "true")),
        by_use: link(query.without("sort")),
        by_name: link(query.with("sort", "user")),
        csv: format!("{here}.csv{}", query.link()),
        first: visit.query.filled("cursor").map(|_| link(query.clone())),
        next: next.map(|cursor| link(query.with("cursor", &cursor))),
        here,
        rows,
    })
}

/// Passes on the users of the page as the API writes them.
async fn export(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let query = wanted(&visit.query).replace(&format!("limit={ROWS}"), "limit=500");
    let path = format!("{}/users{query}", path_of(&id));
    visit.api.csv(&path, "people.csv").await
}

fn row(here: &str, unit: Unit, user: User, most: Sum) -> Row {
    let (share, bar) = against_limit(unit, &user, most);
    Row {
        href: format!("{here}/{}", segment(&user.user_id)),
        id: user.user_id,
        used: unit.show(user.used),
        counted: unit.show(user.counted),
        held: unit.show(user.held),
        limit: user.limit.map(|limit| unit.show(limit)),
        share,
        bar,
        blocked: user.blocked,
    }
}

/// Draws what counts as part of the limit; without a limit, the use as part of the largest.
fn against_limit(unit: Unit, user: &User, most: Sum) -> (String, Svg) {
    let Some(limit) = user.limit else {
        let part = Part { class: "c6", sum: user.used, label: unit.show(user.used).text() };
        return (String::new(), chart::bar("Use; no limit", &[part], most));
    };
    let share = if limit.is_positive() { user.counted.share_of(limit) } else { 1_000_000 };
    let class = match share {
        _ if user.blocked => "depleted",
        WARNS_FROM.. => "low",
        _ => "allowance",
    };
    let counted =
        Part { class, sum: user.counted, label: format!("{} used", unit.show(user.counted).text()) };
    let held = Part { class: "held", sum: user.held, label: format!("{} held", unit.show(user.held).text()) };
    let title = format!("{} of {}", unit.show(user.counted).text(), unit.show(limit).text());
    // A limit of 0 is used up from the start.
    let whole = if limit.is_positive() { limit } else { user.counted };
    (format::percent(share), chart::bar(&title, &[counted, held], whole))
}

/// What is read of one user.
struct Read {
    unit: Unit,
    /// None: a member's own page, who may not read the account.
    account: Option<Account>,
    figures: User,
    days: Result<List<OnDay>, Failure>,
    models: Result<List<OfModel>, Failure>,
    decisions: Result<List<Decision>, Failure>,
    /// The decision that was asked about by its time.
    asked: Option<Result<List<Decision>, Failure>>,
    firings: Result<List<Firing>, Failure>,
    own: Own,
    default_limit: Option<Sum>,
}

#[derive(Deserialize)]
struct OnDay {
    day: Day,
    credits: Sum,
    events: u64,
}

#[derive(Deserialize)]
struct OfModel {
    model: Option<String>,
    credits: Sum,
}

#[derive(Deserialize)]
struct Firing {
    kind: String,
    threshold: Sum,
    figure: Sum,
    fired_at: Time,
}

/// A user's own limit with its tag; a text as the API has it, none where there is none.
#[derive(Default)]
struct Own {
    limit: Option<String>,
    tag: String,
}

#[derive(Deserialize)]
struct OwnLimit {
    limit: String,
}

#[derive(Deserialize)]
struct Limits {
    enabled: bool,
    default_limit: Option<Sum>,
}

/// A decision about work, with the figures that it was made from.
#[derive(Deserialize)]
struct Decision {
    decided_at: Time,
    kind: String,
    allowed: bool,
    code: Option<String>,
    message: Option<String>,
    reservation_id: Option<String>,
    feature: Option<String>,
    amount: Option<Sum>,
    settled: Option<Sum>,
    available: Option<Sum>,
    floor: Option<Sum>,
    limit: Option<Sum>,
    used: Sum,
    held: Sum,
    resets_at: Time,
}

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

/// The answer to "why was this user blocked at 10:04".
enum Answer {
    NotATime,
    Nothing,
    Earlier(Box<Explained>),
    Found(Box<Explained>),
    Failed(Failure),
}

/// A decision as a sum that a person can check.
struct Explained {
    at: When,
    allowed: bool,
    heading: String,
    message: String,
    feature: String,
    kind: String,
    reservation: Option<String>,
    figures: Vec<(&'static str, Amount)>,
    verdict: Option<(String, Amount)>,
    bar: Option<Svg>,
    resets: When,
    is_limit: bool,
}

async fn one(visit: Visit, Path((id, user)): Path<(String, String)>) -> Result<Response, Failure> {
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

async fn read(visit: &Visit, id: &str, user: &str) -> Result<Read, Failure> {
    let (api, path, encoded) = (&visit.api, path_of(id), segment(user));
    let [figures, days, models, decisions] = reads(&path, user, visit.query.get("cursor"));
    let firings = format!("{path}/firings?limit={FIRINGS}&subject={encoded}");
    let (account, figures, days, models, decisions, firings, settings) = tokio::join!(
        of_account(visit, id),
        api.get::<List<User>>(&figures),
        api.get::<List<OnDay>>(&days),
        api.get::<List<OfModel>>(&models),
        api.get::<List<Decision>>(&decisions),
        of_staff(visit, &firings),
        limits(visit, &path, &encoded),
    );
    let account = account?;
    // Whoever may not see this user gets the page of that; a part that can't be read now is only a part.
    let days = match days {
        Err(failure) if failure.status == StatusCode::FORBIDDEN => return Err(failure),
        days => days,
    };
    let (own, default_limit) = settings;
    let found = figures?.items.into_iter().find(|found| found.user_id == user);
    let nothing = || User {
        user_id: user.to_owned(),
        used: Sum::ZERO,
        counted: Sum::ZERO,
        held: Sum::ZERO,
        limit: own.limit.as_deref().map_or(default_limit, |own| serde_json::from_value(own.into()).ok()),
        blocked: false,
    };
    let figures = found.unwrap_or_else(nothing);
    let asked = asked_about(visit, &path, user).await;
    let unit = account.as_ref().map_or(visit.who.own_unit(), |account| account.unit);
    Ok(Read { unit, account, figures, days, models, decisions, asked, firings, own, default_limit })
}

/// Returns the paths of a user's figures, days, models and decisions.
fn reads(path: &str, user: &str, cursor: &str) -> [String; 4] {
    let link = |below: &str, pairs: &[(&str, &str)]| {
        let filled = pairs.iter().copied().filter(|(_, value)| !value.is_empty());
        format!("{path}/{below}{}", filled.collect::<Fields>().link())
    };
    let (models, decisions) = (MODELS.to_string(), DECISIONS.to_string());
    let current = ("period", "current");
    let by_model = [current, ("user", user), ("group_by", "model"), ("sort", "-credits"), ("limit", &models)];
    [
        link("users", &[("q", user), ("limit", "1")]),
        link("usage", &[current, ("user", user), ("group_by", "day"), ("limit", "500")]),
        link("usage", &by_model),
        link("decisions", &[("user", user), ("limit", &decisions), ("cursor", cursor)]),
    ]
}

async fn of_account(visit: &Visit, id: &str) -> Result<Option<Account>, Failure> {
    if visit.who.is_member() { Ok(None) } else { visit.account(id).await.map(Some) }
}

/// Reads what members may not: for them it is empty.
async fn of_staff(visit: &Visit, path: &str) -> Result<List<Firing>, Failure> {
    if visit.who.is_member() {
        return Ok(List { items: Vec::new(), next_cursor: None });
    }
    visit.api.get(path).await
}

/// Reads the own limit and the default one. Without them the page still has the limit in force.
async fn limits(visit: &Visit, path: &str, user: &str) -> (Own, Option<Sum>) {
    if visit.who.is_member() {
        return (Own::default(), None);
    }
    let (own, all) = (format!("{path}/limits/users/{user}"), format!("{path}/limits"));
    let (own, all) = tokio::join!(visit.api.get_tagged::<OwnLimit>(&own), visit.api.get::<Limits>(&all));
    let own = own.map(|(own, tag)| Own { limit: Some(own.limit), tag }).unwrap_or_default();
    (own, all.ok().filter(|limits| limits.enabled).and_then(|limits| limits.default_limit))
}

/// Reads the time of a form: in UTC, where it names no zone.
fn time_of(text: &str) -> Option<Time> {
    let seconds = if text.matches(':').count() == 1 { ":00" } else { "" };
    text.parse().or_else(|_| format!("{text}{seconds}Z").parse()).ok()
}

/// Reads the last decision that was made by the time that was typed.
async fn asked_about(visit: &Visit, path: &str, user: &str) -> Option<Result<List<Decision>, Failure>> {
    let at = time_of(visit.query.filled("at")?)?;
    let to = at.plus_seconds(MINUTE_SECONDS).to_string();
    let query: Fields = [("user", user), ("to", &to), ("limit", "1")].into_iter().collect();
    Some(visit.api.get(&format!("{path}/decisions{}", query.link())).await)
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

fn answer(unit: Unit, at: &str, asked: Option<Result<List<Decision>, Failure>>) -> Option<Answer> {
    if at.is_empty() {
        return None;
    }
    let (Some(at), Some(asked)) = (time_of(at), asked) else { return Some(Answer::NotATime) };
    Some(match asked.map(|list| list.items.into_iter().next()) {
        Err(failure) => Answer::Failed(failure),
        Ok(None) => Answer::Nothing,
        Ok(Some(found)) => {
            let explained = Box::new(explained(unit, &found));
            let is_near = at.minus(found.decided_at) <= NEAR_MICROS;
            if is_near { Answer::Found(explained) } else { Answer::Earlier(explained) }
        }
    })
}

fn explained(unit: Unit, one: &Decision) -> Explained {
    let is_limit = one.code.as_deref() == Some("user_limit_reached");
    let asked = one.amount.unwrap_or(Sum::ZERO);
    let (figures, verdict, bar) = match (is_limit, one.limit, one.available) {
        (true, Some(limit), _) => by_limit(unit, one, asked, limit),
        (false, _, Some(available)) => by_balance(unit, one, asked, available),
        _ => (vec![("Used", unit.show(one.used)), ("Held", unit.show(one.held))], None, None),
    };
    let heading = match one.code.as_deref() {
        None => "Allowed".to_owned(),
        Some("user_limit_reached") => "Refused: the limit of this user is reached".to_owned(),
        Some("credits_exhausted") => "Refused: the account has not enough credits".to_owned(),
        Some(other) => format!("Refused: {}", format::words(other).to_lowercase()),
    };
    let kind = match one.kind.as_str() {
        "check" => "asked whether work may start",
        "reserve" => "asked for a hold",
        "extend" => "asked for a larger hold",
        other => other,
    };
    Explained {
        at: format::exactly(&one.decided_at),
        allowed: one.allowed,
        heading,
        message: one.message.clone().unwrap_or_default(),
        feature: one.feature.clone().unwrap_or_default(),
        kind: kind.to_owned(),
        reservation: one.reservation_id.clone(),
        figures,
        verdict: verdict.filter(|_| !one.allowed),
        bar,
        resets: format::when(&one.resets_at),
        is_limit,
    }
}

/// The figures of a decision, what was missing, and a picture of both.
type Reckoned = (Vec<(&'static str, Amount)>, Option<(String, Amount)>, Option<Svg>);

fn by_limit(unit: Unit, one: &Decision, asked: Sum, limit: Sum) -> Reckoned {
    let all = one.used.plus(one.held).plus(asked);
    let mut figures = vec![("Used", unit.show(one.used)), ("Held for work in progress", unit.show(one.held))];
    if one.amount.is_some() {
        figures.push(("Asked for", unit.show(asked)));
    }
    figures.push(("Together", unit.show(all)));
    figures.push(("Limit", unit.show(limit)));
    let over = all.minus(limit);
    let verdict = match over.is_positive() {
        true => ("Too much by".to_owned(), unit.show(over)),
        false => ("Left of the limit".to_owned(), unit.show(limit.minus(all))),
    };
    let part =
        |class, sum, label: &str| Part { class, sum, label: format!("{label}: {}", unit.show(sum).text()) };
    let parts = [
        part("allowance", one.used, "Used"),
        part("held", one.held, "Held"),
        part("depleted", asked, "Asked for"),
    ];
    let title = format!("{} against a limit of {}", unit.show(all).text(), unit.show(limit).text());
    (figures, Some(verdict), Some(chart::bar(&title, &parts, all.max(limit))))
}

fn by_balance(unit: Unit, one: &Decision, asked: Sum, available: Sum) -> Reckoned {
    let mut figures = Vec::new();
    if let Some(settled) = one.settled {
        figures.push(("Balance of the account", unit.show(settled)));
        figures.push(("Held by all", unit.show(settled.minus(available))));
    }
    figures.push(("Available", unit.show(available)));
    if one.amount.is_some() {
        figures.push(("Asked for", unit.show(asked)));
    }
    let floor = one.floor.unwrap_or(Sum::ZERO);
    if floor.is_negative() {
        figures.push(("Lowest balance that is allowed", unit.show(floor)));
    }
    let missing = asked.minus(available.minus(floor));
    let verdict = missing.is_positive().then(|| ("Missing".to_owned(), unit.show(missing)));
    (figures, verdict, None)
}

async fn set_limit(
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

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(text: &str) -> Decision {
        let mut fields = json!({"decided_at": "2026-03-03T10:04:05Z", "kind": "reserve", "allowed": false,
            "used": "488", "held": "5", "resets_at": "2026-04-01T00:00:00Z"});
        let more: serde_json::Value = serde_json::from_str(text).expect("JSON");
        for (name, value) in more.as_object().expect("an object") {
            fields[name] = value.clone();
        }
        serde_json::from_value(fields).expect("a decision")
    }

    fn check(fields: &str, expected: &str) {
        let explained = explained(Unit::Credits, &decision(fields));
        let mut said: Vec<String> =
            explained.figures.iter().map(|(name, amount)| format!("{name} {}", amount.text())).collect();
        said.extend(explained.verdict.iter().map(|(name, amount)| format!("{name} {}", amount.text())));
        assert_eq!(said.join(", "), expected, "{fields}");
    }

    #[test]
    fn a_refusal_is_a_sum_that_can_be_checked() {
        check(
            r#"{"code":"user_limit_reached","limit":"500","amount":"12"}"#,
            "Used 488, Held for work in progress 5, Asked for 12, Together 505, Limit 500, Too much by 5",
        );
        check(
            r#"{"code":"user_limit_reached","limit":"493"}"#,
            "Used 488, Held for work in progress 5, Together 493, Limit 493, Left of the limit 0",
        );
        check(
            r#"{"code":"credits_exhausted","settled":"30","available":"10","floor":"-5","amount":"40"}"#,
            "Balance of the account 30, Held by all 20, Available 10, Asked for 40, \
             Lowest balance that is allowed \u{2212}5, Missing 25",
        );
        // A member is not shown the account's figures.
        check(r#"{"code":"credits_exhausted","amount":"40"}"#, "Used 488, Held 5");
    }

    #[test]
    fn a_time_without_a_zone_is_utc() {
        let expected: Time = "2026-03-03T10:04:00Z".parse().expect("a time");
        for typed in ["2026-03-03T10:04", "2026-03-03T10:04:00", "2026-03-03T11:04:00+01:00"] {
            assert_eq!(time_of(typed), Some(expected), "{typed}");
        }
        assert_eq!(time_of("at ten"), None);
    }

    #[test]
    fn a_bar_shows_how_near_the_limit_is() {
        let sum = |text: &str| -> Sum { serde_json::from_value(text.into()).expect("an amount") };
        for (counted, limit, blocked, share, class) in [
            ("10", Some("100"), false, "10 %", "of-allowance"),
            ("80", Some("100"), false, "80 %", "of-low"),
            ("100", Some("100"), true, "100 %", "of-depleted"),
            ("0", Some("0"), true, "100 %", "bar"),
            ("10", None, false, "", "of-c6"),
        ] {
            let user = User {
                user_id: "ada".to_owned(),
                used: sum(counted),
                counted: sum(counted),
                held: Sum::ZERO,
                limit: limit.map(sum),
                blocked,
            };
            let (said, bar) = against_limit(Unit::Credits, &user, sum("100"));
            assert_eq!(said, share, "{counted} of {limit:?}");
            assert!(bar.to_string().contains(class), "{bar}");
        }
    }
}
