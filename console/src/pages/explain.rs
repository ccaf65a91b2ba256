//! Explain: how a figure came about, as a table that opens into what its amount consists of.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use ledger_core::value::time::Time;
use serde::Deserialize;

use crate::account::path_of;
use crate::api::Failure;
use crate::format::{self, Amount, Sum, Unit, When};
use crate::layout::{self, Frame, Tab};
use crate::typed::utc;
use crate::visit::{Fields, Visit, segment};

/// Figures that can be chosen.
const FIGURES: [&str; 13] = [
    "available",
    "settled",
    "held",
    "used",
    "percent_used",
    "percent_remaining",
    "period_maximum",
    "allowance",
    "rollover",
    "credit_balance",
    "overdraft",
    "lifetime_added",
    "lifetime_spent",
];
/// What one question consists of.
const QUESTION: [&str; 8] = ["figure", "user", "as_of", "entry", "event", "source", "firing", "decision"];

#[derive(Deserialize)]
struct Explanation {
    as_of: Option<Time>,
    recorded_at: Time,
    tree: Node,
}

#[derive(Deserialize)]
struct Node {
    kind: String,
    amount: Option<Sum>,
    operation: String,
    children: Vec<Node>,
    rest: Option<Rest>,
    figure: Option<String>,
    entry_id: Option<String>,
    #[serde(rename = "type")]
    entry_type: Option<String>,
    event_id: Option<String>,
    grant_id: Option<String>,
    source: Option<String>,
    quantity: Option<String>,
    units: Option<Sum>,
    unit_credits: Option<Sum>,
    per: Option<Sum>,
}

#[derive(Deserialize)]
struct Rest {
    count: u64,
    amount: Sum,
    next_cursor: Option<String>,
}

#[derive(Template)]
#[template(path = "explain.html")]
struct Page {
    frame: Frame,
    title: String,
    found: Result<Found, Failure>,
    figures: Vec<Choice>,
    as_of: String,
    /// None: the beginning is shown.
    first: Option<String>,
}

struct Found {
    figure: Shown,
    at: When,
    is_past: bool,
    is_rest: bool,
    rows: Vec<Row>,
}

struct Choice {
    name: &'static str,
    label: String,
    is_chosen: bool,
}

/// An amount of the account's unit, or a percentage.
enum Shown {
    Amount(Amount),
    Percent(String),
    None,
}

/// A node, or what is left of one; as deep as it lies in the tree.
struct Row {
    depth: usize,
    what: String,
    /// The id that it is found by.
    id: String,
    note: String,
    href: Option<String>,
    amount: Shown,
}

pub fn routes() -> Router {
    Router::new().route("/accounts/{account}/explain", get(show))
}

async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let question = question_of(&visit.query);
    let asked = question.with("cursor", visit.query.get("cursor"));
    let path = format!("{}/explain{}", path_of(&id), asked.link());
    let (account, explained) = tokio::join!(visit.account(&id), visit.api.get::<Explanation>(&path));
    let account = account?;
    let base = format!("/accounts/{}", segment(&id));
    let place = Place { base: &base, question: &question, unit: account.unit };
    let cursor = visit.query.filled("cursor");
    let found = explained.map(|explained| place.found(&explained, cursor.is_some()));
    let chosen = question.get("figure");
    let figures = FIGURES.map(|name| Choice { name, label: format::words(name), is_chosen: name == chosen });
    let title = match &found {
        Ok(found) => found.rows.first().map(|row| row.what.clone()).unwrap_or_default(),
        Err(_) => format::words(chosen),
    };
    layout::page(&Page {
        frame: Frame::account(&visit, &account, Tab::None, "Explain"),
        title,
        found,
        figures: figures.into(),
        as_of: visit.query.get("as_of").trim_end_matches('Z').to_owned(),
        first: cursor.map(|_| format!("{base}/explain{}", question.link())),
    })
}

/// Returns the question as the API takes it. Without one, it is what is left.
fn question_of(query: &Fields) -> Fields {
    let mut question = Fields::from_iter([("figure", String::new())]);
    for name in QUESTION {
        let value = query.get(name);
        let value = if name == "as_of" { utc(value) } else { value.to_owned() };
        question = question.with(name, &value);
    }
    let is_asked = ["figure", "entry", "event", "firing", "decision"]
        .into_iter()
        .any(|name| question.filled(name).is_some());
    if is_asked { question } else { question.with("figure", "available") }
}

/// Where a tree is shown.
struct Place<'a> {
    base: &'a str,
    question: &'a Fields,
    unit: Unit,
}

impl Place<'_> {
    fn found(&self, explained: &Explanation, is_rest: bool) -> Found {
        let mut rows = Vec::new();
        self.add(&explained.tree, 0, &mut rows);
        Found {
            figure: self.shown(&explained.tree),
            at: format::when(&explained.as_of.unwrap_or(explained.recorded_at)),
            is_past: explained.as_of.is_some(),
            is_rest,
            rows,
        }
    }

    fn add(&self, node: &Node, depth: usize, rows: &mut Vec<Row>) {
        rows.push(self.row(node, depth));
        for child in &node.children {
            self.add(child, depth + 1, rows);
        }
        if let Some(rest) = &node.rest {
            let next = rest.next_cursor.as_deref();
            let href = next.map(|cursor| {
                format!("{}/explain{}", self.base, self.question.with("cursor", cursor).link())
            });
            let what = match rest.count {
                0 => "Not explained".to_owned(),
                count => format!("{} more", format::count(count)),
            };
            let amount = Shown::Amount(self.unit.show(rest.amount));
            rows.push(Row { depth: depth + 1, what, id: String::new(), note: String::new(), href, amount });
        }
    }

    fn row(&self, node: &Node, depth: usize) -> Row {
        let name = node.figure.as_ref().or(node.entry_type.as_ref()).or(node.quantity.as_ref());
        let id = node.grant_id.as_ref().or(node.event_id.as_ref()).or(node.entry_id.as_ref());
        let event = node.event_id.as_deref().map(|event| format!("{}/events/{}", self.base, segment(event)));
        let figure = |figure: &str| {
            let question = Fields::from_iter([("figure", figure.to_owned())]);
            format!("{}/explain{}", self.base, question.with("as_of", self.question.get("as_of")).link())
        };
        let is_of_all = self.question.filled("user").is_none();
        let of_figure = node.figure.as_deref().filter(|_| depth > 0 && is_of_all).map(figure);
        Row {
            depth,
            what: format::words(name.unwrap_or(&node.kind)),
            id: id.cloned().unwrap_or_default(),
            note: note(node),
            href: of_figure.or(event.filter(|_| node.kind != "lot")),
            amount: self.shown(node),
        }
    }

    fn shown(&self, node: &Node) -> Shown {
        match node.amount {
            None => Shown::None,
            Some(percent) if node.operation == "ratio" => Shown::Percent(format::percent_of_api(percent)),
            Some(sum) if node.kind == "figure" => Shown::Amount(self.unit.show(sum)),
            Some(sum) => Shown::Amount(self.unit.change(sum)),
        }
    }
}

/// Says in a few words how an amount comes about, where its children do not say it.
fn note(node: &Node) -> String {
    if let (Some(units), Some(price), Some(per)) = (node.units, node.unit_credits, node.per) {
        return format!("{} × {} ÷ {}", units.0, price.0, per.0);
    }
    match (node.operation.as_str(), &node.source) {
        ("ratio", _) => "100 × the first ÷ the second".to_owned(),
        ("min0", _) => "or 0, if it is below".to_owned(),
        (_, Some(source)) => format::words(source),
        (_, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(tree: serde_json::Value, query: &str) -> Vec<String> {
        let question = question_of(&Fields::read(query.as_bytes()));
        let place = Place { base: "/accounts/acme", question: &question, unit: Unit::Credits };
        let node: Node = serde_json::from_value(tree).expect("a tree");
        let mut rows = Vec::new();
        place.add(&node, 0, &mut rows);
        let amount = |shown: &Shown| match shown {
            Shown::Amount(amount) => amount.text(),
            Shown::Percent(percent) => percent.clone(),
            Shown::None => "none".to_owned(),
        };
        let line = |row: &Row| {
            let href = row.href.clone().unwrap_or_default();
            format!("{} {} {} {href}", row.depth, row.what, amount(&row.amount)).trim_end().to_owned()
        };
        rows.iter().map(line).collect()
    }

    #[test]
    fn a_tree_is_rows_as_deep_as_their_nodes_and_the_rest_goes_on() {
        let line = json!({"kind": "line", "amount": "0.5", "operation": "sum", "children": [], "rest": null,
                          "quantity": "input_tokens", "units": "2", "unit_credits": "1", "per": "4"});
        let usage = json!({"kind": "usage", "amount": "0.5", "operation": "sum", "children": [line], "rest": null,
                           "event_id": "u1"});
        let used = json!({"kind": "figure", "figure": "used", "amount": "2", "operation": "sum", "children": [usage],
                          "rest": {"count": 3, "amount": "1.5", "next_cursor": "abc"}});
        assert_eq!(
            rows(used, "figure=used&as_of=2026-02-03T10:00"),
            [
                "0 Used 2",
                "1 Usage +0.50 /accounts/acme/events/u1",
                "2 Input tokens +0.50",
                "1 3 more 1.50 /accounts/acme/explain?figure=used&as_of=2026-02-03T10%3A00%3A00Z&cursor=abc",
            ]
        );
    }

    #[test]
    fn without_a_question_it_is_what_is_left() {
        assert_eq!(question_of(&Fields::read(b"")).link(), "?figure=available");
        assert_eq!(question_of(&Fields::read(b"entry=0%3A3%3A0")).link(), "?entry=0%3A3%3A0");
    }
}
