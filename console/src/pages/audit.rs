//! Audit: the lines of an account's ledger, the decisions about its work, and its records in the journal.

use askama::Template;
use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use futures::StreamExt;
use ledger_core::value::time::Time;
use serde::Deserialize;
use serde_json::Value;
use web::auth::Role;

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
/// Records of other accounts, and bytes, that a page reads at most to find those of its account.
const SCANNED: usize = 20_000;
const SCANNED_BYTES: usize = 32 * 1024 * 1024;
/// How far before the account's position the journal is shown at first.
const BACK: i64 = 2_000;
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

#[derive(Deserialize)]
struct Placed {
    #[serde(flatten)]
    account: Account,
    position: Position,
}

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
    partition: i32,
    offset: i64,
    timestamp: Time,
    key: Option<String>,
    event: Option<Value>,
    value_base64: Option<String>,
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
    Journal(JournalRows),
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

struct JournalRows {
    rows: Vec<RecordRow>,
    partition: i32,
    scanned: String,
}

struct RecordRow {
    position: String,
    kind: String,
    id: String,
    actor: String,
    at: When,
    json: String,
}

pub fn routes() -> Router {
    Router::new()
        .route("/accounts/{account}/audit", get(show))
        .route("/accounts/{account}/audit/entries.csv", get(entries_csv))
}

async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let Placed { account, position } = visit.api.get(&path_of(&id)).await?;
    let view = View::by_name(visit.query.get("view"));
    let may_read_journal = matches!(visit.who.role, Role::Operator | Role::Auditor);
    let shown = match view {
        View::Entries => entries(&visit, &account).await,
        View::Decisions => decisions(&visit, &account).await,
        View::Journal => journal(&visit, &account, position).await,
    };
    let place = format!("/accounts/{}/audit", segment(&id));
    let here = visit.query.without("done").with("view", view.name());
    let paged = if view == View::Journal { "offset" } else { "cursor" };
    let next = shown.as_ref().ok().and_then(|shown| shown.next.clone());
    let csv = Fields::default().with("type", here.get("type"));
    layout::page(&Audit {
        frame: Frame::account(&visit, &account, Tab::Audit, "Audit"),
        tabs: tabs(&place, view, may_read_journal),
        next: next.map(|next| format!("{place}{}", here.with(paged, &next).link())),
        first: here.filled("cursor").map(|_| format!("{place}{}", here.without("cursor").link())),
        is_filtered: ["type", "user", "from", "to"].iter().any(|name| here.is_on(name)),
        csv: format!("{place}/entries.csv{}", csv.link()),
        filters: here,
        listed: shown,
        view,
        place,
    })
}

fn tabs(place: &str, view: View, may_read_journal: bool) -> Vec<TabLink> {
    let all = [(View::Entries, "Entries"), (View::Decisions, "Decisions"), (View::Journal, "Journal")];
    let tab = |(of, label): (View, &'static str)| TabLink {
        label,
        href: format!("{place}?view={}", of.name()),
        is_here: of == view,
    };
    all.into_iter().filter(|(of, _)| *of != View::Journal || may_read_journal).map(tab).collect()
}

async fn entries(visit: &Visit, account: &Account) -> Result<Listed, Failure> {
    let query = &visit.query;
    let asked = Fields::from_iter([("limit", ROWS.to_string())])
        .with("type", query.get("type"))
        .with("cursor", query.get("cursor"));
    let path = format!("{}/entries{}", path_of(&account.account_id), asked.link());
    let list: List<Entry> = visit.api.get(&path).await?;
    let base = format!("/accounts/{}", segment(&account.account_id));
    let may_read_journal = matches!(visit.who.role, Role::Operator | Role::Auditor);
    let row = |entry: Entry| entry_row(&base, account.unit, may_read_journal, entry);
    Ok(Listed { rows: Rows::Entries(list.items.into_iter().map(row).collect()), next: list.next_cursor })
}

fn entry_row(base: &str, unit: Unit, links_record: bool, entry: Entry) -> EntryRow {
    // `3:1041:0`: the position, and the order of lines that one event has made.
    let position = entry.entry_id.rsplit_once(':').map_or(entry.entry_id.as_str(), |(position, _)| position);
    let offset = position.split_once(':').map(|(_, offset)| offset).filter(|_| links_record);
    EntryRow {
        what: format::words(&entry.kind),
        record: offset.map(|offset| format!("{base}/audit?view=journal&offset={offset}")),
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

async fn journal(visit: &Visit, account: &Account, position: Position) -> Result<Listed, Failure> {
    let asked = visit.query.filled("offset").map(str::parse::<i64>);
    let from = match asked {
        Some(Ok(offset)) => offset.max(0),
        Some(Err(_)) => {
            let detail = "an offset is a whole number";
            return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail));
        }
        None => (position.offset - BACK).max(0),
    };
    let path = format!("/v1/audit/events?partition={}&offset={from}", position.partition);
    let response = visit.api.pass(&path, "application/x-ndjson", HeaderMap::new()).await?;
    let Scan { records, read, next } = scan(response.into_body(), &account.account_id).await?;
    let rows = records.into_iter().map(record_row).collect();
    let scanned = format::count(u64::try_from(read).unwrap_or_default());
    let rows = Rows::Journal(JournalRows { rows, partition: position.partition, scanned });
    Ok(Listed { rows, next: next.map(|offset| offset.to_string()) })
}

/// What was found of an account in a part of the journal.
struct Scan {
    records: Vec<Record>,
    /// Records read, those of others among them.
    read: usize,
    /// None: the journal's end was reached.
    next: Option<i64>,
}

/// Reads lines of the journal until a page of the account's is full.
async fn scan(body: Body, account: &str) -> Result<Scan, Failure> {
    let broken = |_| {
        let detail = "the journal broke off";
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    };
    let unread = |_| {
        let detail = "a record of the journal can't be read";
        Failure::new(StatusCode::BAD_GATEWAY, "unreadable", detail)
    };
    let mut chunks = body.into_data_stream();
    let (mut scan, mut rest, mut bytes) = (Scan { records: Vec::new(), read: 0, next: None }, Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(broken)?;
        bytes += chunk.len();
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let record: Record = serde_json::from_slice(&line).map_err(unread)?;
            scan.read += 1;
            let offset = record.offset;
            if record.key.as_deref() == Some(account) {
                scan.records.push(record);
            }
            if scan.records.len() == RECORDS || scan.read == SCANNED || bytes > SCANNED_BYTES {
                scan.next = Some(offset + 1);
                return Ok(scan);
            }
        }
    }
    Ok(scan)
}

fn record_row(record: Record) -> RecordRow {
    let text = |name: &str| {
        let found = record.event.as_ref().and_then(|event| event.get(name)).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    let kind = text("type");
    let json = match &record.event {
        Some(event) => serde_json::to_string_pretty(event).unwrap_or_default(),
        None => record.value_base64.clone().unwrap_or_default(),
    };
    RecordRow {
        position: format!("{}:{}", record.partition, record.offset),
        kind: if kind.is_empty() { "not an event".to_owned() } else { kind },
        id: text("id"),
        actor: text("actor"),
        at: format::exactly(&record.timestamp),
        json,
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

    fn line(offset: i64, key: &str) -> String {
        format!(
            "{{\"partition\":3,\"offset\":{offset},\"timestamp\":\"2026-03-01T00:00:00Z\",\"key\":\"{key}\",\"event\":{{\"id\":\"e{offset}\",\"type\":\"ledger.usage.recorded.v1\"}}}}\n"
        )
    }

    #[tokio::test]
    async fn a_page_of_the_journal_has_one_account_and_says_where_it_goes_on() {
        let text: String = (0..60).map(|at| line(at, if at % 2 == 0 { "acme" } else { "beta" })).collect();
        // Lines come in chunks that end anywhere.
        let chunks: Vec<Result<Vec<u8>, std::io::Error>> =
            text.as_bytes().chunks(37).map(|chunk| Ok(chunk.to_vec())).collect();
        let scanned = scan(Body::from_stream(futures::stream::iter(chunks)), "acme").await.expect("read");
        assert_eq!((scanned.records.len(), scanned.read, scanned.next), (RECORDS, 49, Some(49)));
        let scanned = scan(Body::from(line(60, "acme")), "acme").await.expect("read");
        assert_eq!((scanned.records.len(), scanned.next), (1, None));
        assert_eq!(record_row(scanned.records.into_iter().next().expect("one")).position, "3:60");
    }

    #[test]
    fn an_entry_names_the_record_that_made_it() {
        let entry = serde_json::from_value(serde_json::json!({
            "entry_id": "3:1041:0", "type": "topped_up", "amount": "5", "balance_after": "5",
            "credit_balance_after": "5", "event_id": "a/b", "recorded_at": "2026-03-01T00:00:00Z", "lots": []
        }));
        let row = entry_row("/accounts/acme", Unit::Credits, true, entry.expect("an entry"));
        assert_eq!((row.position.as_str(), row.what.as_str()), ("3:1041", "Topped up"));
        assert_eq!(row.record.as_deref(), Some("/accounts/acme/audit?view=journal&offset=1041"));
        assert_eq!(row.href, "/accounts/acme/events/a%2Fb");
    }
}
