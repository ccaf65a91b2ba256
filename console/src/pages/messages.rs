//! Messages: what one message or event cost, by which prices, and which lots paid.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use futures::future::join_all;
use ledger_core::value::time::Time;
use serde::Deserialize;
use serde_json::json;

use crate::account::{Account, path_of};
use crate::api::Failure;
use crate::chart::{self, Part, Svg};
use crate::format::{self, Amount, Sum, Unit, When};
use crate::layout::{self, Frame, Tab};
use crate::visit::{Fields, Form, Visit, segment};

/// Events of a page: each costs a read of its own.
const ROWS: usize = 25;
const COLOURS: [&str; 6] = ["c1", "c2", "c3", "c4", "c5", "c6"];
/// What the list shows where nothing is chosen, and the types that can be.
const USAGE: &str = "consumed";
const TYPES: [(&str, &str); 12] = [
    (USAGE, "Usage"),
    ("all", "Everything"),
    ("granted", "Granted"),
    ("purchased", "Purchased"),
    ("topped_up", "Topped up"),
    ("reversed", "Reversed"),
    ("expired", "Expired"),
    ("rolled_out", "Rolled out"),
    ("rolled_in", "Rolled in"),
    ("refunded", "Refunded"),
    ("voided", "Voided"),
    ("adjusted", "Adjusted"),
];
const USAGE_EVENT: &str = "ledger.usage.recorded";

#[derive(Deserialize)]
struct Entries {
    items: Vec<Entry>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    entry_type: String,
    amount: Sum,
    balance_after: Sum,
    event_id: String,
    occurred_at: Time,
}

#[derive(Deserialize)]
struct Position {
    partition: i64,
    offset: i64,
}

#[derive(Deserialize)]
struct Event {
    event_id: String,
    source: String,
    #[serde(rename = "type")]
    event_type: String,
    position: Position,
    outcome: String,
    reason: Option<String>,
    duplicate_of: Option<String>,
    duplicate_of_source: Option<String>,
    call_id: Option<String>,
    credits: Option<Sum>,
    user_id: Option<String>,
    message_id: Option<String>,
    reservation_id: Option<String>,
    held: Option<Sum>,
    over_hold: Option<Sum>,
    occurred_at: Time,
    recorded_at: Time,
    actor: Option<String>,
    lines: Vec<PriceLine>,
    lots: Vec<LotChange>,
    overdraft: Sum,
    reversed_at: Option<Time>,
    repeats: Vec<Repeat>,
}

#[derive(Deserialize)]
struct Repeat {
    position: Position,
    outcome: String,
    recorded_at: Time,
}

#[derive(Deserialize)]
struct PriceLine {
    quantity: String,
    amount: Sum,
    unit_credits: Sum,
    per: Sum,
    credits: Sum,
    rate_card: String,
    version: i64,
}

#[derive(Deserialize)]
struct LotChange {
    grant_id: String,
    source: String,
    amount: Sum,
}

#[derive(Deserialize)]
struct Message {
    message_id: String,
    credits: Sum,
    events: u64,
    reversed: u64,
    user_id: Option<String>,
    occurred_at: Time,
    lines: Vec<PriceLine>,
    lots: Vec<LotChange>,
    overdraft: Sum,
    held: Option<Sum>,
    over_hold: Option<Sum>,
}

#[derive(Template)]
#[template(path = "messages.html")]
struct MessagesPage {
    frame: Frame,
    here: String,
    find: String,
    is_missing: bool,
    types: Vec<(String, String)>,
    chosen: String,
    /// None: a member sees no list, and looks up own messages.
    list: Option<Result<Vec<Row>, Failure>>,
    csv: String,
    first: Option<String>,
    next: Option<String>,
}

struct Row {
    id: String,
    href: String,
    what: String,
    user: Option<(String, String)>,
    message: Option<(String, String)>,
    amount: Amount,
    after: Amount,
    at: When,
}

/// What something cost: the same for a message and an event.
struct Cost {
    bar: Svg,
    lines: Vec<LineRow>,
    lots: Vec<LotRow>,
    overdraft: Option<Amount>,
    total: Option<Amount>,
}

struct LineRow {
    class: &'static str,
    kind: String,
    amount: String,
    price: String,
    credits: Amount,
    card: String,
    card_href: Option<String>,
}

struct LotRow {
    id: String,
    source: String,
    class: &'static str,
    amount: Amount,
}

/// A fact with its name; some lead elsewhere.
struct Fact {
    name: &'static str,
    text: String,
    href: Option<String>,
}

#[derive(Template)]
#[template(path = "message.html")]
struct MessagePage {
    frame: Frame,
    up: String,
    id: String,
    unit: &'static str,
    credits: Amount,
    at: When,
    events: String,
    reversed: u64,
    facts: Vec<Fact>,
    holds: Option<(Amount, Amount)>,
    cost: Cost,
}

#[derive(Template)]
#[template(path = "event.html")]
struct EventPage {
    frame: Frame,
    here: String,
    up: String,
    id: String,
    source: String,
    unit: &'static str,
    what: String,
    credits: Option<Amount>,
    outcome: String,
    why: Option<String>,
    reversed: Option<When>,
    occurred: When,
    recorded: When,
    facts: Vec<Fact>,
    holds: Option<(Amount, Amount)>,
    cost: Cost,
    repeats: Vec<RepeatRow>,
    may_reverse: bool,
    failure: Option<Failure>,
}

struct RepeatRow {
    outcome: String,
    position: String,
    at: When,
}

#[derive(Template)]
#[template(path = "event_sources.html")]
struct SourcesPage {
    frame: Frame,
    here: String,
    id: String,
}

pub fn routes() -> Router {
    Router::new()
        .route("/accounts/{account}/messages", get(list))
        .route("/accounts/{account}/messages.csv", get(export))
        .route("/accounts/{account}/messages/{message}", get(message))
        .route("/accounts/{account}/events/{event}", get(event))
        .route("/accounts/{account}/events/{event}/reverse", post(reverse))
}

/// Who looks at which account; a member may not read it.
struct Seen {
    account: Option<Account>,
    unit: Unit,
    base: String,
}

impl Seen {
    async fn by(visit: &Visit, id: &str) -> Result<Seen, Failure> {
        let account = if visit.who.is_member() { None } else { Some(visit.account(id).await?) };
        let unit = account.as_ref().map_or(visit.who.own_unit(), |account| account.unit);
        Ok(Seen { account, unit, base: format!("/accounts/{}", segment(id)) })
    }

    fn frame(&self, visit: &Visit, id: &str, title: &str) -> Frame {
        match &self.account {
            Some(account) => Frame::account(visit, account, Tab::Messages, title),
            None => Frame::of_member(visit, id, Tab::Messages, title),
        }
    }
}

async fn list(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let here = format!("/accounts/{}/messages", segment(&id));
    let find = visit.query.get("find");
    if let Some(found) = found(&visit, &id, find).await {
        return Ok(Redirect::to(&found).into_response());
    }
    let seen = Seen::by(&visit, &id).await?;
    let path = path_of(&id);
    let entries = match &seen.account {
        Some(_) => {
            let path = format!("{path}/entries{}", wanted(&visit.query, ROWS));
            Some(visit.api.get::<Entries>(&path).await)
        }
        None => None,
    };
    let next = entries.as_ref().and_then(|entries| entries.as_ref().ok()?.next_cursor.clone());
    let list = match entries {
        Some(Ok(entries)) => Some(Ok(rows(&visit, &seen, &id, entries.items).await)),
        Some(Err(failure)) => Some(Err(failure)),
        None => None,
    };
    let query = visit.query.without("done").without("find").without("cursor");
    let is_missing = !find.is_empty();
    let page = MessagesPage {
        frame: seen.frame(&visit, &id, "Messages").live(&id),
        find: find.to_owned(),
        is_missing,
        types: TYPES.iter().map(|(name, label)| ((*name).to_owned(), (*label).to_owned())).collect(),
        chosen: visit.query.filled("type").unwrap_or(USAGE).to_owned(),
        list,
        csv: format!("{here}.csv{}", query.link()),
        first: visit.query.filled("cursor").map(|_| format!("{here}{}", query.link())),
        next: next.map(|cursor| format!("{here}{}", query.with("cursor", &cursor).link())),
        here,
    };
    let status = if is_missing { StatusCode::NOT_FOUND } else { StatusCode::OK };
    layout::page_with(status, &page)
}

/// Returns the API's query for a page of the list.
fn wanted(query: &Fields, rows: usize) -> String {
    let kind = query.filled("type").unwrap_or(USAGE);
    let mut pairs = vec![("limit".to_owned(), rows.to_string())];
    if kind != "all" {
        pairs.push(("type".to_owned(), kind.to_owned()));
    }
    pairs.extend(query.filled("cursor").map(|cursor| ("cursor".to_owned(), cursor.to_owned())));
    pairs.into_iter().collect::<Fields>().link()
}

/// Passes on the lines of the page as the API writes them.
async fn export(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let path = format!("{}/entries{}", path_of(&id), wanted(&visit.query, 500));
    visit.api.csv(&path, "events.csv").await
}

/// Returns the page of a message or an event by its id.
async fn found(visit: &Visit, id: &str, find: &str) -> Option<String> {
    if find.is_empty() {
        return None;
    }
    let (path, name) = (path_of(id), segment(find));
    let (message, event) = (format!("{path}/messages/{name}"), format!("{path}/events/{name}"));
    let (message, event) = tokio::join!(
        visit.api.get::<serde_json::Value>(&message),
        visit.api.get::<serde_json::Value>(&event)
    );
    let base = format!("/accounts/{}", segment(id));
    match (message, event) {
        (Ok(_), _) => Some(format!("{base}/messages/{name}")),
        (_, Ok(_)) => Some(format!("{base}/events/{name}")),
        // It is there, from several sources: its page asks which.
        (_, Err(failure)) if failure.code == "ambiguous_event" => Some(format!("{base}/events/{name}")),
        _ => None,
    }
}

/// Adds to each line of the ledger whose it is.
async fn rows(visit: &Visit, seen: &Seen, id: &str, entries: Vec<Entry>) -> Vec<Row> {
    let path = path_of(id);
    let events = entries.iter().map(|entry| {
        let path = format!("{path}/events/{}", segment(&entry.event_id));
        let is_usage = entry.entry_type == USAGE;
        // The list stands without them.
        async move { if is_usage { visit.api.get::<Event>(&path).await.ok() } else { None } }
    });
    let events = join_all(events).await;
    let (base, unit) = (&seen.base, seen.unit);
    let row = |(entry, event): (Entry, Option<Event>)| {
        let (user, message) = event.map_or((None, None), |event| (event.user_id, event.message_id));
        let link = |place: &str, name: String| (format!("{base}/{place}/{}", segment(&name)), name);
        Row {
            href: format!("{base}/events/{}", segment(&entry.event_id)),
            what: TYPES
                .iter()
                .find(|(name, _)| *name == entry.entry_type)
                .map_or_else(|| format::words(&entry.entry_type), |(_, label)| (*label).to_owned()),
            user: user.map(|user| link("people", user)),
            message: message.map(|message| link("messages", message)),
            amount: unit.change(entry.amount),
            after: unit.show(entry.balance_after),
            at: format::exactly(&entry.occurred_at),
            id: entry.event_id,
        }
    };
    entries.into_iter().zip(events).map(row).collect()
}

/// Returns whether a lot was bought, given, or of the plan: its colour.
fn class_of(source: &str) -> &'static str {
    match source {
        "plan" => "allowance",
        "rollover" => "rollover",
        "purchase" | "top_up" => "bought",
        _ => "given",
    }
}

fn cost(visit: &Visit, unit: Unit, lines: Vec<PriceLine>, lots: Vec<LotChange>, overdraft: Sum) -> Cost {
    let total = lines.iter().fold(Sum::ZERO, |sum, line| sum.plus(line.credits));
    let colour = |at: usize| COLOURS[at.min(COLOURS.len() - 1)];
    let part = |(at, line): (usize, &PriceLine)| Part {
        class: colour(at),
        sum: line.credits,
        label: format!("{}: {}", format::words(&line.quantity), unit.show(line.credits).text()),
    };
    let parts: Vec<Part> = lines.iter().enumerate().map(part).collect();
    let reads_cards = matches!(visit.who.role, web::auth::Role::Operator | web::auth::Role::Auditor);
    let row = |(at, line): (usize, PriceLine)| LineRow {
        class: colour(at),
        kind: format::words(&line.quantity),
        amount: Unit::Credits.show(line.amount).text(),
        price: format!("{} per {}", line.unit_credits.0, Unit::Credits.show(line.per).text()),
        credits: unit.show(line.credits),
        card: format!("{} v{}", line.rate_card, line.version),
        card_href: reads_cards.then(|| format!("/rate-cards/{}", segment(&line.rate_card))),
    };
    let lot = |lot: LotChange| LotRow {
        source: format::words(&lot.source),
        class: class_of(&lot.source),
        amount: unit.change(lot.amount),
        id: lot.grant_id,
    };
    Cost {
        bar: chart::bar("Cost by kind", &parts, total),
        total: (!lines.is_empty()).then(|| unit.show(total)),
        lines: lines.into_iter().enumerate().map(row).collect(),
        lots: lots.into_iter().map(lot).collect(),
        overdraft: overdraft.is_positive().then(|| unit.show(overdraft)),
    }
}

fn person_of(base: &str, user: &str) -> Fact {
    Fact { name: "User", href: Some(format!("{base}/people/{}", segment(user))), text: user.to_owned() }
}

async fn message(visit: Visit, Path((id, name)): Path<(String, String)>) -> Result<Response, Failure> {
    let path = format!("{}/messages/{}", path_of(&id), segment(&name));
    let (seen, message) = tokio::try_join!(Seen::by(&visit, &id), visit.api.get::<Message>(&path))?;
    let unit = seen.unit;
    let user = message.user_id.as_deref().map(|user| person_of(&seen.base, user));
    layout::page(&MessagePage {
        frame: seen.frame(&visit, &id, "Message").live(&id),
        up: format!("{}/messages", seen.base),
        unit: unit.word(),
        credits: unit.show(message.credits),
        at: format::exactly(&message.occurred_at),
        events: format::count(message.events),
        reversed: message.reversed,
        facts: user.into_iter().collect(),
        holds: message.held.zip(message.over_hold).map(|(held, over)| (unit.show(held), unit.show(over))),
        cost: cost(&visit, unit, message.lines, message.lots, message.overdraft),
        id: message.message_id,
    })
}

async fn event(visit: Visit, Path((id, name)): Path<(String, String)>) -> Result<Response, Failure> {
    show_event(&visit, &id, &name, visit.query.get("source"), None).await
}

async fn show_event(
    visit: &Visit,
    id: &str,
    name: &str,
    source: &str,
    failure: Option<Failure>,
) -> Result<Response, Failure> {
    let source: Fields =
        Some(("source", source)).into_iter().filter(|(_, source)| !source.is_empty()).collect();
    let path = format!("{}/events/{}{}", path_of(id), segment(name), source.link());
    let (seen, event) = tokio::join!(Seen::by(visit, id), visit.api.get::<Event>(&path));
    let seen = seen?;
    let here = format!("{}/events/{}", seen.base, segment(name));
    match event {
        Ok(event) => {
            let status = if failure.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
            layout::page_with(status, &event_page(visit, id, &seen, here, event, failure))
        }
        Err(refused) if refused.code == "ambiguous_event" => {
            let frame = seen.frame(visit, id, "Event");
            layout::page_with(StatusCode::CONFLICT, &SourcesPage { frame, here, id: name.to_owned() })
        }
        Err(refused) => Err(refused),
    }
}

fn event_page(
    visit: &Visit,
    id: &str,
    seen: &Seen,
    here: String,
    event: Event,
    failure: Option<Failure>,
) -> EventPage {
    let unit = seen.unit;
    let is_usage = event.event_type.starts_with(USAGE_EVENT);
    let is_charged = is_usage && event.outcome == "applied" && event.reversed_at.is_none();
    let repeat = |repeat: &Repeat| RepeatRow {
        outcome: format::words(&repeat.outcome),
        position: format!("{}:{}", repeat.position.partition, repeat.position.offset),
        at: format::exactly(&repeat.recorded_at),
    };
    EventPage {
        frame: seen.frame(visit, id, "Event").live(id),
        up: format!("{}/messages", seen.base),
        unit: unit.word(),
        what: what_of(&event.event_type),
        credits: event.credits.map(|credits| unit.show(credits)),
        why: why(&event),
        reversed: event.reversed_at.map(|at| format::exactly(&at)),
        occurred: format::exactly(&event.occurred_at),
        recorded: format::exactly(&event.recorded_at),
        facts: facts(&seen.base, &event),
        holds: event.held.zip(event.over_hold).map(|(held, over)| (unit.show(held), unit.show(over))),
        repeats: event.repeats.iter().map(repeat).collect(),
        may_reverse: visit.who.is_operator() && is_charged,
        cost: cost(visit, unit, event.lines, event.lots, event.overdraft),
        id: event.event_id,
        source: event.source,
        outcome: event.outcome,
        here,
        failure,
    }
}

/// Returns a type as people read it: `ledger.usage.recorded.v1` is `Usage recorded`.
fn what_of(event_type: &str) -> String {
    let name = event_type.strip_prefix("ledger.").unwrap_or(event_type);
    let name = name.rsplit_once(".v").map_or(name, |(name, _)| name);
    format::words(&name.replace('.', " "))
}

fn facts(base: &str, event: &Event) -> Vec<Fact> {
    let plain = |name, text: &str| Fact { name, text: text.to_owned(), href: None };
    let mut facts = vec![plain("Source", &event.source)];
    facts.extend(event.user_id.as_deref().map(|user| person_of(base, user)));
    facts.extend(event.message_id.as_deref().map(|message| Fact {
        name: "Message",
        href: Some(format!("{base}/messages/{}", segment(message))),
        text: message.to_owned(),
    }));
    facts.extend(event.call_id.as_deref().map(|call| plain("Call", call)));
    facts.extend(event.reservation_id.as_deref().map(|hold| plain("Ended the hold", hold)));
    facts.extend(event.actor.as_deref().map(|actor| plain("Sent with the key", actor)));
    facts.extend(event.duplicate_of.as_deref().map(|first| {
        let source: Fields = event.duplicate_of_source.iter().map(|source| ("source", source)).collect();
        Fact {
            name: "The call was charged by",
            href: Some(format!("{base}/events/{}{}", segment(first), source.link())),
            text: first.to_owned(),
        }
    }));
    let Position { partition, offset } = event.position;
    facts.push(plain("Position in the journal", &format!("{partition}:{offset}")));
    facts
}

/// Returns why an event had no effect, in a sentence; none where it had.
fn why(event: &Event) -> Option<String> {
    let said = match (event.outcome.as_str(), event.reason.as_deref()) {
        ("applied", _) => return None,
        ("duplicate", _) if event.duplicate_of.is_some() => {
            "The same call of the provider was charged before, by another event."
        }
        ("duplicate", _) => "The same event came before; it counts once.",
        ("conflict", _) => "An event with this id and another content came before; the first one counts.",
        (_, Some("account_not_open")) => "The account was not open yet.",
        (_, Some("account_exists")) => "The account was open already.",
        (_, Some("account_closed")) => "The account was closed before this was recorded.",
        (_, Some("unpriced_usage")) => {
            "No price of the account\u{2019}s rate card fits this usage, and it names no credits."
        }
        (_, Some("out_of_range")) => "The sums of the account would leave their range.",
        (_, Some("event_unknown")) => "The event that it is about does not exist.",
        (_, Some("already_reversed")) => "The event was reversed before.",
        (_, Some("grant_unknown")) => "There is no such grant.",
        (_, Some("grant_exists")) => "A grant with this id exists.",
        (_, Some("grant_not_voidable")) => {
            "This grant can\u{2019}t be voided: it is of the plan, or has ended."
        }
        (_, Some("grant_expired")) => "The grant would end before it starts.",
        (_, Some("too_many_lots")) => "The account has as many open lots as it may.",
        (_, Some("payment_unknown")) => "There is no such payment.",
        (_, Some("payment_exists")) => "A payment with this id exists.",
        (_, Some("refund_exceeds_payment")) => "The refunds would be more than the payment.",
        (_, Some("top_up_not_due")) => "No top-up was due.",
        (_, Some(reason)) => return Some(format::words(reason)),
        (outcome, None) => return Some(format::words(outcome)),
    };
    Some(said.to_owned())
}

async fn reverse(
    visit: Visit,
    Path((id, name)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Failure> {
    let source: Fields = [("source", form.get("source"))].into_iter().collect();
    let path = format!("{}/usage/{}/reversal{}", path_of(&id), segment(&name), source.link());
    match visit.api.post(&path).json(&json!({"reason": form.get("reason")})).send().await {
        Ok(answer) => {
            let page = format!("/accounts/{}/events/{}{}", segment(&id), segment(&name), source.link());
            Ok(layout::done(&page, layout::word_of(&answer, "saved")))
        }
        Err(failure) if failure.is_about_form() => {
            show_event(&visit, &id, &name, form.get("source"), Some(failure)).await
        }
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(more: serde_json::Value) -> Event {
        let mut fields = json!({"event_id": "e", "source": "s", "type": "ledger.usage.recorded.v1",
            "position": {"partition": 3, "offset": 41}, "outcome": "applied", "occurred_at": "2026-03-03T10:04:05Z",
            "recorded_at": "2026-03-03T10:04:05Z", "lines": [], "lots": [], "overdraft": "0", "repeats": []});
        for (name, value) in more.as_object().expect("an object") {
            fields[name] = value.clone();
        }
        serde_json::from_value(fields).expect("an event")
    }

    #[test]
    fn an_event_without_effect_says_why() {
        let said = |more| why(&event(more)).unwrap_or_default();
        assert_eq!(said(json!({})), "");
        assert_eq!(
            said(json!({"outcome": "rejected", "reason": "account_closed"})),
            "The account was closed before this was recorded."
        );
        assert_eq!(said(json!({"outcome": "rejected", "reason": "clock_jump"})), "Clock jump");
        assert!(said(json!({"outcome": "duplicate", "duplicate_of": "x"})).contains("call"));
    }

    #[test]
    fn a_type_reads_as_words() {
        assert_eq!(what_of("ledger.usage.recorded.v1"), "Usage recorded");
        assert_eq!(what_of("ledger.user_limit.set.v1"), "User limit set");
    }

    #[test]
    fn facts_lead_to_what_they_name() {
        let event = event(
            json!({"user_id": "a/b", "message_id": "m", "duplicate_of": "x", "duplicate_of_source": "y"}),
        );
        let links: Vec<String> =
            facts("/accounts/acme", &event).into_iter().filter_map(|fact| fact.href).collect();
        let expected =
            ["/accounts/acme/people/a%2Fb", "/accounts/acme/messages/m", "/accounts/acme/events/x?source=y"];
        assert_eq!(links, expected);
    }

    #[test]
    fn usage_is_listed_where_nothing_is_chosen() {
        let query = |text: &str| wanted(&Fields::read(text.as_bytes()), 25);
        assert_eq!(query(""), "?limit=25&type=consumed");
        assert_eq!(query("type=all&cursor=x"), "?limit=25&cursor=x");
    }
}
