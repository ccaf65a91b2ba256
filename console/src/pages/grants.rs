//! Grants: every lot of credits that the account ever had, what is left of it, and how an operator gives and takes.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use ledger_core::value::time::Time;
use serde::Deserialize;
use serde_json::Value;

use crate::account::path_of;
use crate::api::{Failure, List};
use crate::chart::{self, Part, Svg};
use crate::format::{self, Amount, Sum, Unit, When};
use crate::layout::{self, Frame, Tab};
use crate::seal::random_text;
use crate::typed::{Typed, add_times, filled};
use crate::visit::{Fields, Form, Visit, segment};

const ROWS: usize = 50;

#[derive(Deserialize)]
struct Grant {
    grant_id: String,
    source: String,
    amount: Sum,
    remaining: Sum,
    effective_at: Time,
    expires_at: Option<Time>,
    voided_at: Option<Time>,
    granted_at: Time,
    reason: Option<String>,
}

#[derive(Template)]
#[template(path = "grants.html")]
struct Grants {
    frame: Frame,
    place: String,
    grants: Result<Vec<Row>, Failure>,
    first: Option<String>,
    next: Option<String>,
    may_give: bool,
}

struct Row {
    id: String,
    source: String,
    reason: String,
    at: When,
    amount: Amount,
    remaining: Amount,
    bar: Svg,
    expires: Option<When>,
    expires_in: String,
    state: State,
    /// None: it can't be voided.
    void: Option<String>,
}

/// What has become of a lot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Waits,
    UsedUp,
    Expired,
    Void,
}

impl State {
    const fn badge(self) -> (&'static str, &'static str) {
        match self {
            State::Open => ("ok", "Open"),
            State::Waits => ("low", "Waits"),
            State::UsedUp => ("quiet", "Used up"),
            State::Expired => ("quiet", "Ended"),
            State::Void => ("quiet", "Void"),
        }
    }
}

pub fn routes() -> Router {
    Router::new()
        .route("/accounts/{account}/grants", get(show))
        .route("/accounts/{account}/grants/new", get(ask_grant).post(grant))
        .route("/accounts/{account}/grants/adjust", get(ask_adjust).post(adjust))
        .route("/accounts/{account}/grants/{grant}/void", post(void))
}

fn place(id: &str) -> String {
    format!("/accounts/{}/grants", segment(id))
}

async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let mut asked = Fields::from_iter([("limit", ROWS.to_string())]);
    asked = asked.with("cursor", visit.query.get("cursor"));
    let path = format!("{}/grants{}", path_of(&id), asked.link());
    let (account, list) = tokio::join!(visit.account(&id), visit.api.get::<List<Grant>>(&path));
    let account = account?;
    let (unit, now) = (account.unit, account.now(visit.now));
    let may_give = visit.who.is_operator();
    let place = place(&id);
    let here = visit.query.without("done");
    let next = list.as_ref().ok().and_then(|list| list.next_cursor.clone());
    let rows =
        |list: List<Grant>| list.items.into_iter().map(|one| row(&place, unit, now, may_give, one)).collect();
    layout::page(&Grants {
        frame: Frame::account(&visit, &account, Tab::Grants, "Grants").live(&id),
        next: next.map(|cursor| format!("{place}{}", here.with("cursor", &cursor).link())),
        first: here.filled("cursor").map(|_| place.clone()),
        grants: list.map(rows),
        may_give: may_give && !account.is_closed(),
        place,
    })
}

fn state(grant: &Grant, now: Time) -> State {
    if grant.voided_at.is_some() {
        State::Void
    } else if grant.expires_at.is_some_and(|end| end <= now) {
        State::Expired
    } else if !grant.remaining.is_positive() {
        State::UsedUp
    } else if grant.effective_at > now {
        State::Waits
    } else {
        State::Open
    }
}

/// Returns the kind of a lot, as its colour names it.
fn class_of(source: &str) -> &'static str {
    match source {
        "plan" => "allowance",
        "rollover" => "rollover",
        "purchase" | "top_up" => "bought",
        _ => "given",
    }
}

fn row(place: &str, unit: Unit, now: Time, may_void: bool, grant: Grant) -> Row {
    let state = state(&grant, now);
    let is_plans = matches!(grant.source.as_str(), "plan" | "rollover");
    let is_left = matches!(state, State::Open | State::Waits);
    let label = format!("{} of {} left", unit.show(grant.remaining).text(), unit.show(grant.amount).text());
    let part = Part { class: class_of(&grant.source), sum: grant.remaining, label: label.clone() };
    Row {
        source: format::words(&grant.source),
        reason: grant.reason.unwrap_or_default(),
        at: format::when(&grant.granted_at),
        amount: unit.show(grant.amount),
        remaining: unit.show(grant.remaining),
        bar: chart::bar(&label, &[part], grant.amount),
        expires: grant.expires_at.as_ref().map(format::day),
        expires_in: grant.expires_at.map(|end| format::distance(now, end)).unwrap_or_default(),
        void: (may_void && is_left && !is_plans)
            .then(|| format!("{place}/{}/void", segment(&grant.grant_id))),
        state,
        id: grant.grant_id,
    }
}

/// A form on a page of its own.
#[derive(Template)]
#[template(path = "grants_form.html")]
struct Sheet {
    frame: Frame,
    place: String,
    is_grant: bool,
    typed: Typed,
}

async fn sheet(visit: &Visit, id: &str, is_grant: bool, typed: Typed) -> Result<Response, Failure> {
    let account = visit.account(id).await?;
    let status = if typed.failure.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let title = if is_grant { "Grant credits" } else { "Adjust the balance" };
    let frame = Frame::account(visit, &account, Tab::Grants, title);
    layout::page_with(status, &Sheet { frame, place: place(id), is_grant, typed })
}

fn require_operator(visit: &Visit) -> Result<(), Failure> {
    if visit.who.is_operator() {
        return Ok(());
    }
    Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", "only an operator grants and adjusts credits"))
}

async fn ask_grant(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    require_operator(&visit)?;
    let id_of_grant = format!("grant-{}", &random_text()[..12]);
    let typed = Typed::with([("grant_id", id_of_grant), ("source", "promo".to_owned())]);
    sheet(&visit, &id, true, typed).await
}

/// Returns a grant as the form has it. A number that is none is sent as text, so that the API refuses it.
fn grant_body(form: &Fields) -> Value {
    let mut body = filled(form, &["grant_id", "source", "amount", "reason"]);
    add_times(&mut body, form, &["effective_at", "expires_at"]);
    if let Some(priority) = form.filled("priority") {
        let priority = priority.parse::<i32>().map_or_else(|_| Value::from(priority), Value::from);
        body.insert("priority".into(), priority);
    }
    body.into()
}

async fn grant(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let path = format!("{}/grants", path_of(&id));
    let sent = visit.api.post(&path).json(&grant_body(&form)).send().await;
    answer(&visit, &id, true, &form, sent).await
}

async fn ask_adjust(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    require_operator(&visit)?;
    sheet(&visit, &id, false, Typed::default()).await
}

async fn adjust(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let path = format!("{}/adjustments", path_of(&id));
    let mut body = filled(&form, &["amount", "reason"]);
    if form.get("direction") == "take" {
        body.insert("amount".into(), format!("-{}", form.get("amount")).into());
    }
    let sent = visit.api.post(&path).json(&body.into()).once(form.get("once")).send().await;
    answer(&visit, &id, false, &form, sent).await
}

async fn answer(
    visit: &Visit,
    id: &str,
    is_grant: bool,
    form: &Fields,
    sent: Result<Value, Failure>,
) -> Result<Response, Failure> {
    let word = if is_grant { "granted" } else { "saved" };
    match sent {
        Ok(answer) => Ok(layout::done(&place(id), layout::word_of(&answer, word))),
        Err(failure) if failure.is_about_form() => {
            sheet(visit, id, is_grant, Typed::refused(form, failure)).await
        }
        Err(failure) => Err(failure),
    }
}

async fn void(visit: Visit, Path((id, grant)): Path<(String, String)>) -> Result<Response, Failure> {
    let path = format!("{}/grants/{}", path_of(&id), segment(&grant));
    let answer = visit.api.delete(&path).send().await?;
    Ok(layout::done(&place(&id), layout::word_of(&answer, "voided")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn time(text: &str) -> Time {
        text.parse().expect("a time")
    }

    fn check(remaining: &str, from: &str, to: Option<&str>, voided: bool, expected: State) {
        let sum = |text: &str| serde_json::from_value::<Sum>(text.into()).expect("an amount");
        let grant = Grant {
            grant_id: "g".into(),
            source: "promo".into(),
            amount: sum("10"),
            remaining: sum(remaining),
            effective_at: time(from),
            expires_at: to.map(time),
            voided_at: voided.then(|| time("2026-03-02T00:00:00Z")),
            granted_at: time("2026-03-01T00:00:00Z"),
            reason: None,
        };
        assert_eq!(state(&grant, time("2026-03-10T00:00:00Z")), expected, "{remaining} left");
    }

    #[test]
    fn a_lot_is_open_between_its_start_and_its_end_while_something_is_left() {
        check("5", "2026-03-01T00:00:00Z", None, false, State::Open);
        check("5", "2026-03-11T00:00:00Z", None, false, State::Waits);
        check("0", "2026-03-01T00:00:00Z", None, false, State::UsedUp);
        check("0", "2026-03-01T00:00:00Z", Some("2026-03-10T00:00:00Z"), false, State::Expired);
        check("0", "2026-03-01T00:00:00Z", None, true, State::Void);
    }

    #[test]
    fn a_grant_is_sent_with_its_times_in_utc() {
        let form = Fields::read(
            b"grant_id=g1&source=promo&amount=5&priority=10&effective_at=&expires_at=2026-03-03T10:00&reason=",
        );
        let expected = json!({"grant_id": "g1", "source": "promo", "amount": "5", "priority": 10,
                              "expires_at": "2026-03-03T10:00:00Z"});
        assert_eq!(grant_body(&form), expected);
        assert_eq!(grant_body(&Fields::read(b"priority=high"))["priority"], "high");
    }
}
