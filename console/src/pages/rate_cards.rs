//! Rate cards: what usage costs, two versions of a card side by side, and how the next one is published.

use std::collections::BTreeMap;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use ledger_core::value::credits::Credits;
use ledger_core::value::time::Time;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Failure, FieldError, List};
use crate::format::{self, Sum, When};
use crate::layout::{self, Frame, Tab};
use crate::typed::Typed;
use crate::visit::{Fields, Form, Visit, segment};

const ROWS: usize = 100;
/// Versions that the choice offers: the newest.
const VERSIONS_SHOWN: i32 = 200;
/// What the form of a new card begins with.
const EXAMPLE: &str = r#"{
  "meters": [
    {
      "category": "chat",
      "match": {"model": "large"},
      "prices": {
        "input_tokens": {"credits": "3", "per": "1000000"},
        "output_tokens": {"credits": "15", "per": "1000000"}
      }
    }
  ]
}"#;

#[derive(Deserialize)]
struct Last {
    card: String,
    version: i32,
    published_at: Time,
}

#[derive(Deserialize)]
struct Version {
    version: i32,
    published_at: Time,
    actor: String,
    meters: Vec<Meter>,
}

#[derive(Deserialize)]
struct Meter {
    category: String,
    #[serde(default, rename = "match")]
    matches: Option<BTreeMap<String, Option<String>>>,
    prices: BTreeMap<String, Price>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
struct Price {
    credits: Sum,
    per: Sum,
}

#[derive(Template)]
#[template(path = "rate_cards.html")]
struct Cards {
    frame: Frame,
    rows: Vec<Row>,
    first: Option<String>,
    next: Option<String>,
    typed: Typed,
    may_publish: bool,
}

impl Cards {
    fn prices(&self) -> &str {
        self.typed.fields.filled("prices").unwrap_or(EXAMPLE)
    }
}

struct Row {
    card: String,
    href: String,
    version: i32,
    at: When,
}

#[derive(Template)]
#[template(path = "rate_card.html")]
struct Card {
    frame: Frame,
    card: String,
    place: String,
    newest: i32,
    /// The older one first; none where there is one alone.
    before: Option<Shown>,
    after: Shown,
    versions: Vec<i32>,
    lines: Vec<Line>,
    changes: usize,
    /// The newest prices as JSON, or what was typed.
    prices: String,
    typed: Typed,
    may_publish: bool,
}

struct Shown {
    version: i32,
    at: When,
    by: String,
}

/// A price in two versions.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    /// Empty where it is the one of the line above.
    meter: String,
    quantity: String,
    before: Option<String>,
    after: Option<String>,
    change: &'static str,
}

pub fn routes() -> Router {
    Router::new()
        .route("/rate-cards", get(show).post(publish_new))
        .route("/rate-cards/{card}", get(show_card).post(publish))
}

async fn show(visit: Visit) -> Result<Response, Failure> {
    render(&visit, Typed::default()).await
}

async fn render(visit: &Visit, typed: Typed) -> Result<Response, Failure> {
    let query = &visit.query;
    let asked = Fields::from_iter([("limit", ROWS.to_string())]).with("cursor", query.get("cursor"));
    let list: List<Last> = visit.api.get(&format!("/v1/rate-cards{}", asked.link())).await?;
    let row = |last: Last| Row {
        href: place(&last.card),
        at: format::when(&last.published_at),
        version: last.version,
        card: last.card,
    };
    let status = if typed.failure.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let next = |cursor: String| format!("/rate-cards{}", Fields::default().with("cursor", &cursor).link());
    let page = Cards {
        frame: Frame::of(visit, "Rate cards", Tab::RateCards),
        rows: list.items.into_iter().map(row).collect(),
        first: query.filled("cursor").map(|_| "/rate-cards".to_owned()),
        next: list.next_cursor.map(next),
        typed,
        may_publish: visit.who.is_operator(),
    };
    layout::page_with(status, &page)
}

fn place(card: &str) -> String {
    format!("/rate-cards/{}", segment(card))
}

async fn show_card(visit: Visit, Path(card): Path<String>) -> Result<Response, Failure> {
    render_card(&visit, &card, Typed::default()).await
}

async fn read(visit: &Visit, card: &str, version: Option<i32>) -> Result<(Value, Version), Failure> {
    let version = version.map(|version| format!("?version={version}")).unwrap_or_default();
    let read: Value = visit.api.get(&format!("/v1/rate-cards/{}{version}", segment(card))).await?;
    let unread = |_| Failure::not_found("this version can't be read");
    let known = Version::deserialize(&read).map_err(unread)?;
    Ok((read, known))
}

async fn render_card(visit: &Visit, card: &str, typed: Typed) -> Result<Response, Failure> {
    let (raw, newest) = read(visit, card, None).await?;
    let last = newest.version;
    let asked = |name: &str| visit.query.get(name).parse::<i32>().ok().filter(|at| (1..=last).contains(at));
    let after_at = asked("version").unwrap_or(last);
    let before_at = asked("with").unwrap_or(after_at - 1);
    let after = if after_at == last { newest } else { read(visit, card, Some(after_at)).await?.1 };
    let before = match before_at {
        1.. if before_at != after_at => Some(read(visit, card, Some(before_at)).await?.1),
        _ => None,
    };
    let lines = compare(before.as_ref(), &after);
    let prices = typed.fields.filled("prices").map_or_else(|| pretty(&raw), str::to_owned);
    let shown = |of: &Version| Shown {
        version: of.version,
        at: format::when(&of.published_at),
        by: of.actor.clone(),
    };
    let status = if typed.failure.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let page = Card {
        frame: Frame::of(visit, card, Tab::RateCards),
        place: place(card),
        card: card.to_owned(),
        newest: last,
        versions: (1..=last).rev().take(usize::try_from(VERSIONS_SHOWN).unwrap_or_default()).collect(),
        changes: lines.iter().filter(|line| !line.change.is_empty()).count(),
        before: before.as_ref().map(shown),
        after: shown(&after),
        lines,
        prices,
        typed,
        may_publish: visit.who.is_operator(),
    };
    layout::page_with(status, &page)
}

/// Returns a card's prices as the form shows them.
fn pretty(card: &Value) -> String {
    serde_json::to_string_pretty(&json!({"meters": card["meters"]})).unwrap_or_default()
}

fn name_of(meter: &Meter) -> String {
    let conditions = meter.matches.iter().flatten();
    let conditions = conditions.filter_map(|(key, value)| Some(format!("{key} {}", value.as_ref()?)));
    let conditions: Vec<String> = conditions.collect();
    if conditions.is_empty() {
        meter.category.clone()
    } else {
        format!("{}: {}", meter.category, conditions.join(", "))
    }
}

fn text(price: Price) -> String {
    let per = u128::try_from(price.per.units()).ok();
    let one = u128::try_from(Credits::UNITS_PER_CREDIT).unwrap_or(1);
    match per {
        Some(per) if per == one => price.credits.0.to_string(),
        // Whole numbers are easier to read in groups.
        Some(per) if per % one == 0 => format!("{} per {}", price.credits.0, format::grouped(per / one)),
        _ => format!("{} per {}", price.credits.0, price.per.0),
    }
}

/// Puts the prices of two versions side by side, in the order of the second.
fn compare(before: Option<&Version>, after: &Version) -> Vec<Line> {
    let prices = |version: Option<&'_ Version>| -> Vec<(String, String, Price)> {
        let meters = version.map(|version| version.meters.as_slice()).unwrap_or_default();
        let each = meters.iter().flat_map(|meter| {
            meter.prices.iter().map(move |(name, price)| (name_of(meter), name.clone(), *price))
        });
        each.collect()
    };
    let (old, new) = (prices(before), prices(Some(after)));
    let known = |of: &[(String, String, Price)], meter: &str, quantity: &str| {
        of.iter().find(|(m, q, _)| m == meter && q == quantity).map(|(.., price)| *price)
    };
    let gone = old.iter().filter(|(meter, quantity, _)| known(&new, meter, quantity).is_none());
    let mut lines: Vec<Line> = Vec::new();
    let mut last = "";
    for (meter, quantity, _) in new.iter().chain(gone) {
        let (was, is) = (known(&old, meter, quantity), known(&new, meter, quantity));
        let change = match (was, is) {
            _ if before.is_none() => "",
            (None, Some(_)) => "added",
            (Some(_), None) => "removed",
            (was, is) if was != is => "changed",
            _ => "",
        };
        let is_same = last == meter;
        last = meter;
        lines.push(Line {
            meter: if is_same { String::new() } else { meter.clone() },
            quantity: quantity.clone(),
            before: was.map(text),
            after: is.map(text),
            change,
        });
    }
    lines
}

/// Reads the prices that were typed, or says that they are no JSON.
fn typed_prices(form: &Fields) -> Result<Value, Failure> {
    serde_json::from_str(form.get("prices"))
        .map_err(|error| wrong("meters", &format!("must be JSON: {error}")))
}

fn wrong(field: &str, detail: &str) -> Failure {
    let errors = vec![FieldError { field: field.to_owned(), detail: detail.to_owned() }];
    let said = format!("{field}: {detail}");
    Failure { errors, ..Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", said) }
}

async fn put(visit: &Visit, card: &str, tag: &str, form: &Fields) -> Result<(), Failure> {
    if card.is_empty() {
        return Err(wrong("card", "is required"));
    }
    let prices = typed_prices(form)?;
    let path = format!("/v1/rate-cards/{}", segment(card));
    visit.api.put(&path).json(&prices).if_match(tag).send().await.map(drop)
}

async fn publish_new(visit: Visit, form: Form) -> Result<Response, Failure> {
    let card = form.get("card");
    match put(&visit, card, "", &form).await {
        Ok(()) => Ok(layout::done(&place(card), "saved")),
        Err(failure) if failure.is_about_form() => render(&visit, Typed::refused(&form, failure)).await,
        Err(failure) => Err(failure),
    }
}

async fn publish(visit: Visit, Path(card): Path<String>, form: Form) -> Result<Response, Failure> {
    let tag = format!("\"{}\"", form.get("newest"));
    match put(&visit, &card, &tag, &form).await {
        Ok(()) => Ok(layout::done(&place(&card), "saved")),
        Err(failure) if failure.is_about_form() => {
            render_card(&visit, &card, Typed::refused(&form, failure)).await
        }
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: i32, meters: &Value) -> Version {
        let published_at = "2026-03-01T00:00:00Z";
        let card = json!({"version": number, "published_at": published_at, "actor": "k", "meters": meters});
        serde_json::from_value(card).expect("a version")
    }

    #[test]
    fn each_price_says_what_has_become_of_it() {
        let price = |credits: &str| json!({"credits": credits, "per": "1000000"});
        let old = version(
            1,
            &json!([{"category": "chat", "prices": {"in": price("1"), "out": price("2"), "image": price("9")}}]),
        );
        let new = version(
            2,
            &json!([{"category": "chat", "prices": {"in": price("1"), "out": price("3")}},
                    {"category": "chat", "match": {"model": "large"}, "prices": {"in": price("4")}}]),
        );
        let found: Vec<(String, String, &str)> = compare(Some(&old), &new)
            .into_iter()
            .map(|line| (line.meter, line.quantity, line.change))
            .collect();
        let expected = [
            ("chat", "in", ""),
            ("", "out", "changed"),
            ("chat: model large", "in", "added"),
            ("chat", "image", "removed"),
        ];
        let expected =
            expected.map(|(meter, quantity, change)| (meter.to_owned(), quantity.to_owned(), change));
        assert_eq!(found, expected);
        assert!(compare(None, &new).iter().all(|line| line.change.is_empty() && line.before.is_none()));
    }

    #[test]
    fn what_is_no_json_is_an_error_of_its_field() {
        let failure = typed_prices(&Fields::read(b"prices=%7Bmeters")).expect_err("no JSON");
        assert!(failure.of_field("meters").is_some_and(|said| said.contains("JSON")), "{failure:?}");
    }
}
