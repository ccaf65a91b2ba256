//! Promo codes: an operator makes them, sees what has become of each, and ends one.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use ledger_core::value::time::Time;
use serde::Deserialize;
use serde_json::Value;

use crate::api::{Failure, List};
use crate::format::{self, Amount, Sum, Unit, When};
use crate::layout::{self, Frame, Tab};
use crate::typed::{Typed, add_times, filled};
use crate::visit::{Fields, Form, Visit, segment};

const ROWS: usize = 50;

#[derive(Deserialize)]
struct PromoCode {
    code: String,
    amount: Sum,
    valid_from: Option<Time>,
    valid_until: Option<Time>,
    max_redemptions: Option<u32>,
    expires_at: Option<Time>,
    redemptions: u32,
    ended_at: Option<Time>,
}

#[derive(Template)]
#[template(path = "promo_codes.html")]
struct PromoCodes {
    frame: Frame,
    /// What was looked up.
    code: String,
    found: Option<Result<Shown, Failure>>,
    listed: Result<Vec<Shown>, Failure>,
    first: Option<String>,
    next: Option<String>,
    typed: Typed,
    may_make: bool,
}

struct Shown {
    code: String,
    amount: Amount,
    from: Option<When>,
    until: Option<When>,
    redemptions: String,
    expires: Option<When>,
    state: State,
    tag: String,
    end: String,
    href: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    NotYet,
    UsedUp,
    Over,
    Ended,
}

impl State {
    const fn badge(self) -> (&'static str, &'static str) {
        match self {
            State::Good => ("ok", "Redeems"),
            State::NotYet => ("low", "Not yet valid"),
            State::UsedUp => ("quiet", "Used up"),
            State::Over => ("quiet", "Past its time"),
            State::Ended => ("quiet", "Ended"),
        }
    }
}

pub fn routes() -> Router {
    Router::new().route("/promo-codes", get(show).post(make)).route("/promo-codes/{code}/end", post(end))
}

async fn show(visit: Visit) -> Result<Response, Failure> {
    render(&visit, Typed::default()).await
}

async fn render(visit: &Visit, typed: Typed) -> Result<Response, Failure> {
    let code = visit.query.get("code");
    let asked = Fields::from_iter([("limit", ROWS.to_string())]).with("cursor", visit.query.get("cursor"));
    let listed = visit.api.get::<List<PromoCode>>(&format!("/v1/promo-codes{}", asked.link())).await;
    let found = match code {
        "" => None,
        code => {
            let path = format!("/v1/promo-codes/{}", segment(code));
            let read = visit.api.get_tagged::<PromoCode>(&path).await;
            Some(read.map(|(promo, tag)| shown(promo, tag, visit.now)))
        }
    };
    if let Err(failure) = &listed
        && failure.status == StatusCode::FORBIDDEN
    {
        return Err(failure.clone());
    }
    let here = visit.query.without("done").without("cursor");
    let next = listed.as_ref().ok().and_then(|list| list.next_cursor.clone());
    let row = |promo| shown(promo, String::new(), visit.now);
    let listed = listed.map(|list| list.items.into_iter().map(row).collect());
    let status = if typed.failure.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let frame = Frame::of(visit, "Promo codes", Tab::PromoCodes);
    let (code, may_make) = (code.to_owned(), visit.who.is_operator());
    let page = PromoCodes {
        frame,
        code,
        found,
        listed,
        first: visit.query.filled("cursor").map(|_| format!("/promo-codes{}", here.link())),
        next: next.map(|cursor| format!("/promo-codes{}", here.with("cursor", &cursor).link())),
        typed,
        may_make,
    };
    layout::page_with(status, &page)
}

fn state(promo: &PromoCode, now: Time) -> State {
    if promo.ended_at.is_some() {
        State::Ended
    } else if promo.valid_until.is_some_and(|until| until <= now) {
        State::Over
    } else if promo.max_redemptions.is_some_and(|most| promo.redemptions >= most) {
        State::UsedUp
    } else if promo.valid_from.is_some_and(|from| now < from) {
        State::NotYet
    } else {
        State::Good
    }
}

fn shown(promo: PromoCode, tag: String, now: Time) -> Shown {
    let redemptions = format::count(promo.redemptions);
    Shown {
        state: state(&promo, now),
        amount: Unit::Credits.show(promo.amount),
        from: promo.valid_from.as_ref().map(format::when),
        until: promo.valid_until.as_ref().map(format::when),
        redemptions: match promo.max_redemptions {
            Some(most) => format!("{redemptions} of {}", format::count(most)),
            None => redemptions,
        },
        expires: promo.expires_at.as_ref().map(format::when),
        end: format!("/promo-codes/{}/end", segment(&promo.code)),
        href: place(&promo.code),
        code: promo.code,
        tag,
    }
}

/// Returns a new code as the form has it. A number that is none is sent as text, so that the API refuses it.
fn body(form: &Fields) -> Value {
    let mut body = filled(form, &["code", "amount"]);
    add_times(&mut body, form, &["valid_from", "valid_until", "expires_at"]);
    if let Some(most) = form.filled("max_redemptions") {
        let most = most.parse::<i64>().map_or_else(|_| Value::from(most), Value::from);
        body.insert("max_redemptions".into(), most);
    }
    body.into()
}

fn place(code: &str) -> String {
    format!("/promo-codes{}", Fields::default().with("code", code).link())
}

async fn make(visit: Visit, form: Form) -> Result<Response, Failure> {
    match visit.api.post("/v1/promo-codes").json(&body(&form)).send().await {
        Ok(_) => Ok(layout::done(&place(form.get("code")), "added")),
        Err(failure) if failure.is_about_form() => render(&visit, Typed::refused(&form, failure)).await,
        Err(failure) => Err(failure),
    }
}

async fn end(visit: Visit, Path(code): Path<String>, form: Form) -> Result<Response, Failure> {
    let path = format!("/v1/promo-codes/{}", segment(&code));
    visit.api.delete(&path).if_match(form.get("tag")).send().await?;
    Ok(layout::done(&place(&code), "ended"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(fields: &Value, expected: State) {
        let mut promo = json!({"code": "c", "amount": "5", "redemptions": 2});
        for (name, value) in fields.as_object().expect("fields") {
            promo[name] = value.clone();
        }
        let promo: PromoCode = serde_json::from_value(promo).expect("a code");
        assert_eq!(state(&promo, "2026-03-10T00:00:00Z".parse().expect("a time")), expected, "{fields}");
    }

    #[test]
    fn a_code_redeems_within_its_time_and_number() {
        check(&json!({}), State::Good);
        check(&json!({"max_redemptions": 3}), State::Good);
        check(&json!({"max_redemptions": 2}), State::UsedUp);
        check(&json!({"valid_from": "2026-03-11T00:00:00Z"}), State::NotYet);
        check(&json!({"valid_until": "2026-03-10T00:00:00Z"}), State::Over);
        check(&json!({"ended_at": "2026-03-09T00:00:00Z"}), State::Ended);
    }

    #[test]
    fn a_number_is_sent_as_a_number() {
        let form = Fields::read(b"code=SPRING&amount=5&max_redemptions=10&valid_until=2026-04-01T00:00");
        let expected = json!({"code": "SPRING", "amount": "5", "max_redemptions": 10,
                              "valid_until": "2026-04-01T00:00:00Z"});
        assert_eq!(body(&form), expected);
        assert_eq!(body(&Fields::read(b"max_redemptions=few"))["max_redemptions"], "few");
    }
}
