//! Audit: the lines of an account's ledger, the decisions about its work, and its records of the journal.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use ledger_core::event::Data;
use ledger_core::value::time::Time;
use serde::Deserialize;
use serde_json::Value;

use crate::account::{Account, path_of};
use crate::api::{Failure, List};
use crate::format::{self, Amount, Sum, Unit, When};
use crate::layout::{self, Frame, Tab};
use crate::typed::utc;
use crate::visit::{Fields, Visit, segment};

const ROWS: usize = 50;
/// Lines of one CSV; the last names the cursor of the next in a header.
const CSV_ROWS: usize = 500;
/// Records of the journal on one page.
const RECORDS: usize = 25;
/// Types of lines, as the API names them.
const TYPES: [&str; 11] = [
    "consumed",
    "granted",
    "purchased",
    "topped_up",
    "reversed",
    "expired",
    "rolled_out",
    "rolled_in",
    "refunded",
    "voided",
    "adjusted",
];

#[derive(Debug, Clone, Copy, Deserialize)]
struct Position {
    partition: i32,
    offset: i64,
}

#[derive(Deserialize)]
struct Entry {
    entry_id: String,
    #[serde(rename = "type")]
    kind: String,
    amount: Sum,
    balance_after: Sum,
    credit_balance_after: Sum,
    event_id: String,
    recorded_at: Time,
    lots: Vec<LotChange>,
}

#[derive(Deserialize)]
struct LotChange {
    grant_id: String,
    amount: Sum,
}

#[derive(Deserialize)]
struct Decision {
    decided_at: Time,
    kind: String,
    allowed: bool,
    code: Option<String>,
    message: Option<String>,
    reservation_id: Option<String>,
    user_id: Option<String>,
    feature: Option<String>,
    amount: Option<Sum>,
    settled: Option<Sum>,
    available: Option<Sum>,
    floor: Option<Sum>,
    limit: Option<Sum>,
    used: Sum,
    held: Sum,
    resets_at: Time,
    position: Position,
    #[serde(default)]
    actor: Option<String>,
}

#[derive(Deserialize)]
struct Record {
    position: Position,
    event_id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    outcome: String,
    reason: Option<String>,
    actor: Option<String>,
    recorded_at: Time,
    data: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    Entries,
    Decisions,
    Journal,
}

impl View {
    fn by_name(name: &str) -> View {
        match name {
            "decisions" => View::Decisions,
            "journal" => View::Journal,
            _ => View::Entries,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            View::Entries => "entries",
            View::Decisions => "decisions",
            View::Journal => "journal",
        }
    }
}

#[derive(Template)]
#[template(path = "audit.html")]
struct Audit {
    frame: Frame,
    place: String,
    view: View,
    tabs: Vec<TabLink>,
    filters: Fields,
    listed: Result<Listed, Failure>,
    first: Option<String>,
    next: Option<String>,
    csv: String,
    is_filtered: bool,
}

impl Audit {
    fn types(&self) -> impl Iterator<Item = (&'static str, String)> {
        TYPES.into_iter().map(|name| (name, format::words(name)))
    }

    fn event_types(&self) -> [&'static str; Data::TYPES.len()] {
        Data::TYPES
    }
}

struct TabLink {
    label: &'static str,
    href: String,
    is_here: bool,
}

/// What a view lists, with where it goes on.
struct Listed {
    rows: Rows,
    next: Option<String>,
}

enum Rows {
    Entries(Vec<EntryRow>),
    Decisions(Vec<DecisionRow>),
    Journal(Vec<RecordRow>),
}

struct EntryRow {
    what: String,
    position: String,
    record: Option<String>,
    event: String,
    href: String,
    amount: Amount,
    after: Amount,
    credit_after: Amount,
    lots: Vec<(String, Amount)>,
    at: When,
}

struct DecisionRow {
    at: When,
    allowed: bool,
    what: String,
    why: String,
    user: String,
    user_href: String,
    feature: String,
    amount: Option<Amount>,
    figures: Vec<(&'static str, String)>,
}

struct RecordRow {
    position: String,
    kind: String,
    id: String,
    href: String,
    actor: String,
    at: When,
    outcome: String,
    is_applied: bool,
    json: String,
}

pub fn routes() -> Router {
    Router::new()
        .route("/accounts/{account}/audit", get(show))
        .route("/accounts/{account}/audit/entries.csv", get(entries_csv))
}

async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let account = visit.account(&id).await?;
    let view = View::by_name(visit.query.get("view"));
    let shown = match view {
        View::Entries => entries(&visit, &account).await,
        View::Decisions => decisions(&visit, &account).await,
        View::Journal => journal(&visit, &account).await,
    };
    let place = format!("/accounts/{}/audit", segment(&id));
    let here = visit.query.without("done").with("view", view.name());
    let next = shown.as_ref().ok().and_then(|shown| shown.next.clone());
    let csv = Fields::default().with("type", here.get("type"));
    layout::page(&Audit {
        frame: Frame::account(&visit, &account, Tab::Audit, "Audit"),
        tabs: tabs(&place, view),
        next: next.map(|next| format!("{place}{}", here.with("cursor", &next).link())),
        first: here.filled("cursor").map(|_| format!("{place}{}", here.without("cursor").link())),
        is_filtered: ["type", "user", "from", "to", "up_to"].iter().any(|name| here.is_on(name)),
        csv: format!("{place}/entries.csv{}", csv.link()),
        filters: here,
        listed: shown,
        view,
        place,
    })
}

fn tabs(place: &str, view: View) -> Vec<TabLink> {
    let all = [(View::Entries, "Entries"), (View::Decisions, "Decisions"), (View::Journal, "Journal")];
    let tab = |(of, label): (View, &'static str)| TabLink {
        label,
        href: format!("{place}?view={}", of.name()),
        is_here: of == view,
    };
    all.into_iter().map(tab).collect()
}

async fn entries(visit: &Visit, account: &Account) -> Result<Listed, Failure> {
    let query = &visit.query;
    let asked = Fields::from_iter([("limit", ROWS.to_string())])
        .with("type", query.get("type"))
        .with("cursor", query.get("cursor"));
    let path = format!("{}/entries{}", path_of(&account.account_id), asked.link());
    let list: List<Entry> = visit.api.get(&path).await?;
    let base = format!("/accounts/{}", segment(&account.account_id));
    let rows = list.items.into_iter().map(|entry| entry_row(&base, account.unit, entry));
    Ok(Listed { rows: Rows::Entries(rows.collect()), next: list.next_cursor })
}

fn entry_row(base: &str, unit: Unit, entry: Entry) -> EntryRow {
    // `3:1041:0`: the position, and the order of lines that one event has made.
    let position = entry.entry_id.rsplit_once(':').map_or(entry.entry_id.as_str(), |(position, _)| position);
    let offset = position.split_once(':').map(|(_, offset)| offset);
    EntryRow {
        what: format::words(&entry.kind),
        record: offset.map(|offset| format!("{base}/audit?view=journal&up_to={offset}")),
        position: position.to_owned(),
        href: format!("{base}/events/{}", segment(&entry.event_id)),
        event: entry.event_id,
        amount: unit.change(entry.amount),
        after: unit.show(entry.balance_after),
        credit_after: unit.show(entry.credit_balance_after),
        lots: entry.lots.into_iter().map(|lot| (lot.grant_id, unit.change(lot.amount))).collect(),
        at: format::exactly(&entry.recorded_at),
    }
}

async fn decisions(visit: &Visit, account: &Account) -> Result<Listed, Failure> {
    let query = &visit.query;
    let asked = Fields::from_iter([("limit", ROWS.to_string())])
        .with("user", query.get("user"))
        .with("from", &utc(query.get("from")))
        .with("to", &utc(query.get("to")))
        .with("cursor", query.get("cursor"));
    let path = format!("{}/decisions{}", path_of(&account.account_id), asked.link());
    let list: List<Decision> = visit.api.get(&path).await?;
    let base = format!("/accounts/{}", segment(&account.account_id));
    let rows = list.items.into_iter().map(|decision| decision_row(&base, account.unit, decision));
    Ok(Listed { rows: Rows::Decisions(rows.collect()), next: list.next_cursor })
}

fn decision_row(base: &str, unit: Unit, decision: Decision) -> DecisionRow {
    let why = match (decision.code.as_deref(), decision.allowed) {
        (Some("user_limit_reached"), _) => "The user\u{2019}s limit does not cover it",
        (Some("credits_exhausted"), _) => "The balance does not cover it",
        (_, true) => "Allowed",
        _ => "Refused",
    };
    let user = decision.user_id.clone().unwrap_or_default();
    DecisionRow {
        at: format::exactly(&decision.decided_at),
        allowed: decision.allowed,
        what: match decision.kind.as_str() {
            "reserve" => "Hold".to_owned(),
            "extend" => "Longer or larger hold".to_owned(),
            other => format::words(other),
        },
        why: why.to_owned(),
        user_href: format!("{base}/people/{}", segment(&user)),
        user,
        feature: decision.feature.clone().unwrap_or_default(),
        amount: decision.amount.map(|sum| unit.show(sum)),
        figures: figures(unit, decision),
    }
}

/// Returns the figures that a decision was made from.
fn figures(unit: Unit, decision: Decision) -> Vec<(&'static str, String)> {
    let sum = |sum: Option<Sum>| sum.map(|sum| unit.show(sum).text());
    let Position { partition, offset } = decision.position;
    let all = [
        ("Told to the user", decision.message),
        ("Available in the account", sum(decision.available)),
        ("Settled", sum(decision.settled)),
        ("May go down to", sum(decision.floor)),
        ("The user\u{2019}s limit", sum(decision.limit)),
        ("Used by the user", sum(Some(decision.used))),
        ("Held by the user", sum(Some(decision.held))),
        ("Hold", decision.reservation_id),
        ("Resets", Some(decision.resets_at.to_string())),
        ("Position", Some(format!("{partition}:{offset}"))),
        ("Key that asked", decision.actor),
    ];
    all.into_iter().filter_map(|(label, value)| Some((label, value?))).collect()
}

async fn journal(visit: &Visit, account: &Account) -> Result<Listed, Failure> {
    let query = &visit.query;
    let asked = Fields::from_iter([("limit", RECORDS.to_string())])
        .with("type", query.get("type"))
        .with("up_to", query.get("up_to"))
        .with("from", &utc(query.get("from")))
        .with("to", &utc(query.get("to")))
        .with("cursor", query.get("cursor"));
    let path = format!("{}/events{}", path_of(&account.account_id), asked.link());
    let list: List<Record> = visit.api.get(&path).await?;
    let base = format!("/accounts/{}", segment(&account.account_id));
    let rows = list.items.into_iter().map(|record| record_row(&base, record));
    Ok(Listed { rows: Rows::Journal(rows.collect()), next: list.next_cursor })
}

fn record_row(base: &str, record: Record) -> RecordRow {
    let Position { partition, offset } = record.position;
    let source = Fields::from_iter([("source", record.source)]).link();
    RecordRow {
        position: format!("{partition}:{offset}"),
        kind: record.kind,
        href: format!("{base}/events/{}{source}", segment(&record.event_id)),
        id: record.event_id,
        actor: record.actor.unwrap_or_default(),
        at: format::exactly(&record.recorded_at),
        outcome: match record.reason {
            Some(reason) => format!("{}: {}", format::words(&record.outcome), format::words(&reason)),
            None => format::words(&record.outcome),
        },
        is_applied: record.outcome == "applied",
        json: serde_json::to_string_pretty(&record.data).unwrap_or_default(),
    }
}

async fn entries_csv(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let query = &visit.query;
    let asked = Fields::from_iter([("limit", CSV_ROWS.to_string())])
        .with("type", query.get("type"))
        .with("cursor", query.get("cursor"));
    let path = format!("{}/entries.csv{}", path_of(&id), asked.link());
    visit.api.csv(&path, "entries.csv").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_what_became_of_it() {
        let record = serde_json::from_value(serde_json::json!({
            "position": {"partition": 3, "offset": 9}, "event_id": "a/b", "source": "/app",
            "type": "ledger.usage.recorded.v1", "outcome": "rejected", "reason": "account_closed", "actor": null,
            "recorded_at": "2026-03-01T00:00:00Z", "data": {"credits": "5"}
        }));
        let row = record_row("/accounts/acme", record.expect("a record"));
        assert_eq!((row.position.as_str(), row.outcome.as_str()), ("3:9", "Rejected: Account closed"));
        assert_eq!(row.href, "/accounts/acme/events/a%2Fb?source=%2Fapp");
    }

    #[test]
    fn an_entry_names_the_record_that_made_it() {
        let entry = serde_json::from_value(serde_json::json!({
            "entry_id": "3:1041:0", "type": "topped_up", "amount": "5", "balance_after": "5",
            "credit_balance_after": "5", "event_id": "a/b", "recorded_at": "2026-03-01T00:00:00Z", "lots": []
        }));
        let row = entry_row("/accounts/acme", Unit::Credits, entry.expect("an entry"));
        assert_eq!((row.position.as_str(), row.what.as_str()), ("3:1041", "Topped up"));
        assert_eq!(row.record.as_deref(), Some("/accounts/acme/audit?view=journal&up_to=1041"));
        assert_eq!(row.href, "/accounts/acme/events/a%2Fb");
    }
}
