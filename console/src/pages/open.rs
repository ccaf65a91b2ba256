//! Open: makes an account. The operator's alone.

use askama::Template;
use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::{self, Failure};
use crate::layout::{self, Frame, Tab};
use crate::visit::{Fields, Form, Visit, segment};

#[derive(Deserialize)]
struct Cards {
    items: Vec<Card>,
}

#[derive(Deserialize)]
struct Card {
    card: String,
}

#[derive(Template)]
#[template(path = "open.html")]
struct Open {
    frame: Frame,
    /// What was typed.
    form: Fields,
    failure: Option<Failure>,
    cards: Vec<String>,
}

impl Open {
    /// Returns what is wrong with a field, empty where nothing is.
    fn wrong(&self, field: &str) -> &str {
        api::wrong(self.failure.as_ref(), field)
    }
}

pub fn routes() -> Router {
    Router::new().route("/open", get(ask).post(open))
}

async fn ask(visit: Visit) -> Result<Response, Failure> {
    if !visit.who.is_operator() {
        return Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", "only an operator opens accounts"));
    }
    show(&visit, StatusCode::OK, Fields::default(), None).await
}

async fn show(
    visit: &Visit,
    status: StatusCode,
    form: Fields,
    failure: Option<Failure>,
) -> Result<Response, Failure> {
    // The form works without the list of cards.
    let cards = visit.api.get::<Cards>("/v1/rate-cards?limit=500").await.map(|cards| cards.items);
    let cards = cards.unwrap_or_default().into_iter().map(|card| card.card).collect();
    let frame = Frame::of(visit, "Open an account", Tab::Accounts);
    layout::page_with(status, &Open { frame, form, failure, cards })
}

async fn open(visit: Visit, form: Form) -> Result<Response, Failure> {
    match visit.api.post("/v1/accounts").json(&body(&form)).send().await {
        Ok(answer) => {
            let path = format!("/accounts/{}", segment(form.get("account_id")));
            Ok(layout::done(&path, layout::word_of(&answer, "opened")))
        }
        Err(failure) if failure.is_about_form() => {
            show(&visit, StatusCode::UNPROCESSABLE_ENTITY, form.0, Some(failure)).await
        }
        Err(failure) => Err(failure),
    }
}

/// Returns the fields that are filled, as the API names them.
fn body(form: &Fields) -> Value {
    let mut account =
        given(form, &["account_id", "name", "unit", "usd_per_unit", "clock", "low_balance_threshold"], "");
    let mut plan =
        given(form, &["cycle", "allowance", "timezone", "pack_expiry", "on_exhausted", "rate_card"], "plan.");
    if let Some(mode) = form.filled("plan.rollover.mode") {
        let cap = form.filled("plan.rollover.cap");
        plan.insert(
            "rollover".into(),
            cap.map_or_else(|| json!({"mode": mode}), |cap| json!({"mode": mode, "cap": cap})),
        );
    }
    account.insert("plan".into(), plan.into());
    account.into()
}

fn given(form: &Fields, names: &[&str], prefix: &str) -> Map<String, Value> {
    let filled = names.iter().filter_map(|name| {
        form.filled(&format!("{prefix}{name}")).map(|value| ((*name).to_owned(), value.into()))
    });
    filled.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_empty_is_not_sent() {
        let form = Fields::read(b"account_id=acme&name=&plan.cycle=monthly&plan.allowance=10&plan.rollover.mode=capped&plan.rollover.cap=5");
        let expected = json!({"account_id": "acme", "plan": {"cycle": "monthly", "allowance": "10", "rollover": {"mode": "capped", "cap": "5"}}});
        assert_eq!(body(&form), expected);
    }
}
