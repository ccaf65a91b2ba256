//! Billing: what is left and where it comes from, purchases, auto top-up, payments and what was given back of them.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use ledger_core::value::time::Time;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::account::{Account, path_of};
use crate::api::{Failure, List};
use crate::format::{self, Amount, Sum, Unit, When};
use crate::layout::{self, Frame, Tab};
use crate::lots::{self, Kind, Lot};
use crate::pages::parked::{self, Act, Waiting};
use crate::typed::{Typed, filled};
use crate::visit::{Fields, Form, Visit, segment};

/// Lines of the ledger that the page shows.
const ENTRIES: usize = 8;
/// Grants among which the page looks for payments.
const GRANTS: usize = 100;
const PAYMENTS: usize = 10;
const REFUNDS: usize = 6;
/// Fields of auto top-up in the form, as the API names them.
const TOP_UP: [&str; 6] =
    ["basis", "threshold", "amount", "payment_method", "max_per_period", "max_amount_per_period"];

#[derive(Deserialize)]
struct Payer {
    #[serde(flatten)]
    account: Account,
    usd_per_unit: Option<Sum>,
}

#[derive(Deserialize)]
struct Balance {
    held: Sum,
    available: Sum,
    credit_balance: Sum,
    overdraft: Sum,
    status: String,
    lifetime_added: Sum,
    lifetime_spent: Sum,
    recorded_at: Time,
    lots: Vec<Lot>,
}

#[derive(Deserialize)]
struct Entry {
    entry_id: String,
    #[serde(rename = "type")]
    kind: String,
    amount: Sum,
    balance_after: Sum,
    event_id: String,
    recorded_at: Time,
    lots: Vec<Touched>,
}

#[derive(Deserialize)]
struct Touched {
    grant_id: String,
}

#[derive(Deserialize)]
struct Grant {
    grant_id: String,
    source: String,
    amount: Sum,
    remaining: Sum,
    granted_at: Time,
    price: Option<Price>,
}

#[derive(Deserialize)]
struct Price {
    amount: Sum,
    currency: String,
}

#[derive(Deserialize)]
struct AutoTopUp {
    enabled: bool,
    basis: String,
    threshold: Option<Sum>,
    amount: Option<Sum>,
    payment_method: Option<String>,
    max_per_period: u32,
    max_amount_per_period: Option<Sum>,
}

#[derive(Deserialize)]
struct Checkout {
    checkout_id: String,
    url: Option<String>,
}

#[derive(Template)]
#[template(path = "billing.html")]
struct Billing {
    frame: Frame,
    base: String,
    account: Account,
    credits: Credits,
    top_up: Result<TopUp, Failure>,
    entries: Result<Vec<Line>, Failure>,
    payments: Result<Vec<Payment>, Failure>,
    refunds: Result<Vec<Line>, Failure>,
    /// None: not for this key.
    waiting: Option<Result<Waiting, Failure>>,
    /// What one costs, in a sentence; none: it can't be bought here.
    price: Option<String>,
    buy: Typed,
    ready: Option<Ready>,
    may_buy: bool,
    may_record: bool,
}

/// What may be spent, and what it is made of.
struct Credits {
    status: String,
    balance: Amount,
    unit: &'static str,
    parts: Vec<Share>,
    available: Amount,
    added: Amount,
    spent: Amount,
    as_of: When,
}

struct Share {
    class: &'static str,
    label: &'static str,
    amount: Amount,
}

/// A checkout that waits to be paid.
struct Ready {
    id: String,
    amount: Amount,
    /// None: the payment happens elsewhere, or the provider only pretends.
    href: Option<String>,
}

struct TopUp {
    is_on: bool,
    basis: &'static str,
    threshold: Option<Amount>,
    amount: Option<Amount>,
    method: String,
    most: String,
    most_amount: Option<Amount>,
}

/// A line of the account's ledger.
struct Line {
    what: String,
    /// The payment or grant that it is about.
    about: String,
    href: String,
    explain: String,
    amount: Amount,
    after: Amount,
    at: When,
}

struct Payment {
    id: String,
    what: &'static str,
    amount: Amount,
    remaining: Amount,
    price: String,
    at: When,
    refund: String,
}

pub fn routes() -> Router {
    Router::new()
        .route("/accounts/{account}/billing", get(show))
        .route("/accounts/{account}/billing/checkout", get(show).post(buy))
        .route("/accounts/{account}/billing/auto-top-up", get(ask_top_up).post(set_top_up))
        .route("/accounts/{account}/billing/record", get(ask_record).post(record))
        .route("/accounts/{account}/billing/refund", get(ask_refund).post(refund))
        .route("/accounts/{account}/billing/parked/payments/{payment}", get(show_parked).post(decide_payment))
        .route("/accounts/{account}/billing/parked/top-ups/{attempt}", get(show_parked).post(decide_top_up))
}

fn place(id: &str) -> String {
    format!("/accounts/{}/billing", segment(id))
}

async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    render(&visit, &id, Filled::default()).await
}

/// What a form of the page has brought.
#[derive(Default)]
struct Filled {
    buy: Typed,
    bought: Option<Checkout>,
    decision: Typed,
}

async fn render(visit: &Visit, id: &str, filled: Filled) -> Result<Response, Failure> {
    let Filled { buy, bought, decision } = filled;
    let api = &visit.api;
    let path = path_of(id);
    let (balance_path, top_up_path) = (format!("{path}/balance"), format!("{path}/auto-top-up"));
    let (entries_path, grants_path, refunds_path) = (
        format!("{path}/entries?limit={ENTRIES}"),
        format!("{path}/grants?limit={GRANTS}"),
        format!("{path}/entries?type=refunded&limit={REFUNDS}"),
    );
    let whole = async { tokio::try_join!(api.get::<Payer>(&path), api.get::<Balance>(&balance_path)) };
    let place = place(id);
    let parked = async { if visit.who.is_operator() { Some(parked::waiting(api, id).await) } else { None } };
    let (whole, top_up, entries, grants, refunds, parked) = tokio::join!(
        whole,
        api.get::<AutoTopUp>(&top_up_path),
        api.get::<List<Entry>>(&entries_path),
        api.get::<List<Grant>>(&grants_path),
        api.get::<List<Entry>>(&refunds_path),
        parked,
    );
    let (Payer { account, usd_per_unit }, balance) = whole?;
    let unit = account.unit;
    let base = format!("/accounts/{}", segment(id));
    let lines = |list: List<Entry>| list.items.iter().map(|entry| line(&base, unit, entry)).collect();
    let ready = bought.map(|checkout| ready(unit, &buy, checkout));
    let is_refused = buy.failure.is_some() || decision.failure.is_some();
    let status = if is_refused { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let waiting = |parked| Waiting { rows: parked::rows(&place, unit, parked), typed: decision };
    let page = Billing {
        frame: Frame::account(visit, &account, Tab::Billing, "Billing").live(id),
        credits: credits(&account, &balance, account.now(visit.now)),
        top_up: top_up.map(|top_up| shown(unit, &top_up)),
        entries: entries.map(lines),
        payments: grants.map(|grants| payments(&place, unit, &grants.items)),
        refunds: refunds.map(lines),
        waiting: parked.map(|parked| parked.map(waiting)),
        price: usd_per_unit
            .map(|usd| format!("One costs ${}. A purchase costs $0.50 to $999,999.99.", usd.0)),
        buy,
        ready,
        may_buy: visit.who.may_set() && !account.is_closed(),
        may_record: visit.who.is_operator(),
        base,
        account,
    };
    layout::page_with(status, &page)
}

fn credits(account: &Account, balance: &Balance, now: Time) -> Credits {
    let unit = account.unit;
    let now = balance.recorded_at.max(now);
    let left = |kind| lots::left_of(&balance.lots, now, kind);
    let less = |sum: Sum| Sum::ZERO.minus(sum);
    let parts = [
        ("bought", "Credit balance", balance.credit_balance),
        ("rollover", "Rollover", left(Kind::Rollover)),
        ("allowance", "Left of the plan", left(Kind::Allowance)),
        ("given", "Given", left(Kind::Given)),
        ("depleted", "Overdraft", less(balance.overdraft)),
        ("held", "Held", less(balance.held)),
    ];
    // What is bought and what has rolled over stand there also when they are 0.
    let is_shown = |at: usize, sum: Sum| at < 2 || sum != Sum::ZERO;
    let parts = parts.into_iter().enumerate().filter(|(at, (.., sum))| is_shown(*at, *sum));
    Credits {
        status: balance.status.clone(),
        balance: unit.show(balance.credit_balance),
        unit: unit.word(),
        parts: parts.map(|(_, (class, label, sum))| Share { class, label, amount: unit.show(sum) }).collect(),
        available: unit.show(balance.available),
        added: unit.show(balance.lifetime_added),
        spent: unit.show(balance.lifetime_spent),
        as_of: format::when(&balance.recorded_at),
    }
}

fn shown(unit: Unit, top_up: &AutoTopUp) -> TopUp {
    TopUp {
        is_on: top_up.enabled,
        basis: match top_up.basis.as_str() {
            "available_balance" => "total available",
            _ => "credit balance",
        },
        threshold: top_up.threshold.map(|sum| unit.show(sum)),
        amount: top_up.amount.map(|sum| unit.show(sum)),
        method: top_up.payment_method.clone().unwrap_or_default(),
        most: format::count(top_up.max_per_period),
        most_amount: top_up.max_amount_per_period.map(|sum| unit.show(sum)),
    }
}

fn line(base: &str, unit: Unit, entry: &Entry) -> Line {
    Line {
        what: format::words(&entry.kind),
        about: entry.lots.first().map(|lot| lot.grant_id.clone()).unwrap_or_default(),
        href: format!("{base}/events/{}", segment(&entry.event_id)),
        explain: format!("{base}/explain?entry={}", segment(&entry.entry_id)),
        amount: unit.change(entry.amount),
        after: unit.show(entry.balance_after),
        at: format::when(&entry.recorded_at),
    }
}

fn payments(place: &str, unit: Unit, grants: &[Grant]) -> Vec<Payment> {
    let name = |source: &str| match source {
        "purchase" => Some("Purchase"),
        "top_up" => Some("Auto top-up"),
        _ => None,
    };
    let paid = grants.iter().filter_map(|grant| name(&grant.source).map(|what| (grant, what)));
    let payment = |(grant, what): (&Grant, &'static str)| {
        let asked =
            Fields::from_iter([("payment", grant.grant_id.clone()), ("amount", grant.amount.0.to_string())]);
        Payment {
            id: grant.grant_id.clone(),
            what,
            amount: unit.show(grant.amount),
            remaining: unit.show(grant.remaining),
            price: grant.price.as_ref().map_or_else(|| "\u{2013}".to_owned(), price_of),
            at: format::when(&grant.granted_at),
            refund: format!("{place}/refund{}", asked.link()),
        }
    };
    paid.take(PAYMENTS).map(payment).collect()
}

fn price_of(price: &Price) -> String {
    match price.currency.as_str() {
        "usd" => Unit::Usd.show(price.amount).text(),
        other => format!("{} {}", Unit::Credits.show(price.amount).text(), other.to_uppercase()),
    }
}

async fn buy(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let body = Value::from(filled(&form, &["amount"]));
    let path = format!("{}/checkout", path_of(&id));
    let asked = visit.api.post(&path).json(&body).once(form.get("once")).send().await;
    match asked {
        Ok(answer) => {
            let unread = |_| Failure::not_found("the checkout is open, but its address can't be read");
            let checkout: Checkout = serde_json::from_value(answer).map_err(unread)?;
            // The policy of the pages lets a form lead nowhere else, so the payment is a link.
            let buy = Typed { fields: form.0, failure: None };
            render(&visit, &id, Filled { buy, bought: Some(checkout), ..Filled::default() }).await
        }
        Err(failure) if failure.is_about_form() => {
            render(&visit, &id, Filled { buy: Typed::refused(&form, failure), ..Filled::default() }).await
        }
        Err(failure) => Err(failure),
    }
}

fn ready(unit: Unit, buy: &Typed, checkout: Checkout) -> Ready {
    let amount = serde_json::from_value(buy.get("amount").into()).unwrap_or(Sum::ZERO);
    let href = checkout.url.filter(|url| url.starts_with("https://") || url.starts_with("http://"));
    Ready { id: checkout.checkout_id, amount: unit.show(amount), href }
}

/// A reload of a form that was refused shows the page without it.
async fn show_parked(visit: Visit, Path((id, _)): Path<(String, String)>) -> Result<Response, Failure> {
    render(&visit, &id, Filled::default()).await
}

async fn decide_payment(
    visit: Visit,
    Path((id, payment)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Failure> {
    let path = format!("/v1/parked-payments/{}/decision", segment(&payment));
    let sent = visit.api.post(&path).json(&parked::payment_body(&form)).send().await;
    decided(&visit, &id, &form, sent).await
}

async fn decide_top_up(
    visit: Visit,
    Path((id, attempt)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Failure> {
    let path = format!("{}/top-ups/{}/decision", path_of(&id), segment(&attempt));
    let sent = visit.api.post(&path).json(&parked::top_up_body(&form)).send().await;
    decided(&visit, &id, &form, sent).await
}

async fn decided(
    visit: &Visit,
    id: &str,
    form: &Fields,
    sent: Result<Value, Failure>,
) -> Result<Response, Failure> {
    match sent {
        Ok(_) => Ok(layout::done(&place(id), "decided")),
        Err(failure) if failure.is_about_form() => {
            let decision = Typed::refused(form, failure);
            render(visit, id, Filled { decision, ..Filled::default() }).await
        }
        Err(failure) => Err(failure),
    }
}

/// A form on a page of its own.
#[derive(Template)]
#[template(path = "billing_form.html")]
struct Sheet {
    frame: Frame,
    place: String,
    which: Which,
    typed: Typed,
    /// Of the setting that the form changes.
    tag: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    TopUp,
    Record,
    Refund,
}

impl Which {
    const fn title(self) -> &'static str {
        match self {
            Which::TopUp => "Auto top-up",
            Which::Record => "Record a payment",
            Which::Refund => "Refund",
        }
    }
}

async fn sheet(visit: &Visit, id: &str, which: Which, typed: Typed, tag: &str) -> Result<Response, Failure> {
    let account = visit.account(id).await?;
    let status = if typed.failure.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let frame = Frame::account(visit, &account, Tab::Billing, which.title());
    let (place, tag) = (place(id), tag.to_owned());
    layout::page_with(status, &Sheet { frame, place, which, typed, tag })
}

async fn ask_top_up(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    require(visit.who.may_set(), "admins and operators set auto top-up")?;
    let path = format!("{}/auto-top-up", path_of(&id));
    let (now, tag) = visit.api.get_tagged::<AutoTopUp>(&path).await?;
    let text = |sum: Option<Sum>| sum.map(|sum| sum.0.to_string()).unwrap_or_default();
    let typed = Typed::with([
        ("basis", now.basis),
        ("threshold", text(now.threshold)),
        ("amount", text(now.amount)),
        ("payment_method", now.payment_method.unwrap_or_default()),
        ("max_per_period", now.max_per_period.to_string()),
        ("max_amount_per_period", text(now.max_amount_per_period)),
        ("was_on", if now.enabled { "yes".to_owned() } else { String::new() }),
    ]);
    sheet(&visit, &id, Which::TopUp, typed, &tag).await
}

/// Returns the setting as the form has it. A number that is none is sent as text, so that the API refuses it.
fn top_up_body(form: &Fields) -> Value {
    let mut body = filled(form, &TOP_UP);
    if let Some(most) = form.filled("max_per_period") {
        let most = most.parse::<u64>().map_or_else(|_| Value::from(most), Value::from);
        body.insert("max_per_period".into(), most);
    }
    body.insert("enabled".into(), (form.get("enabled") == "true").into());
    body.into()
}

async fn set_top_up(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let path = format!("{}/auto-top-up", path_of(&id));
    let body = top_up_body(&form);
    let sent = visit.api.put(&path).json(&body).if_match(form.get("tag")).send().await;
    answer(&visit, &id, Which::TopUp, &form, sent).await
}

async fn ask_record(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    require(visit.who.is_operator(), "only an operator records payments")?;
    let typed = Typed::with([("currency", "usd".to_owned())]);
    sheet(&visit, &id, Which::Record, typed, "").await
}

fn payment_body(form: &Fields) -> Value {
    let mut body: Map<String, Value> = filled(form, &["payment_id", "amount"]);
    if let Some(price) = form.filled("price") {
        body.insert("price".into(), json!({"amount": price, "currency": form.get("currency")}));
    }
    body.into()
}

async fn record(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let path = format!("{}/purchases", path_of(&id));
    let sent = visit.api.post(&path).json(&payment_body(&form)).send().await;
    answer(&visit, &id, Which::Record, &form, sent).await
}

async fn ask_refund(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    require(visit.who.is_operator(), "only an operator records refunds")?;
    let given = |name: &str| visit.query.get(name).to_owned();
    let typed = Typed::with([("payment_id", given("payment")), ("amount", given("amount"))]);
    sheet(&visit, &id, Which::Refund, typed, "").await
}

async fn refund(visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, Failure> {
    let path = format!("{}/refunds", path_of(&id));
    let body = Value::from(filled(&form, &["payment_id", "amount", "reason"]));
    let sent = visit.api.post(&path).json(&body).once(form.get("once")).send().await;
    answer(&visit, &id, Which::Refund, &form, sent).await
}

async fn answer(
    visit: &Visit,
    id: &str,
    which: Which,
    form: &Fields,
    sent: Result<Value, Failure>,
) -> Result<Response, Failure> {
    match sent {
        Ok(answer) => Ok(layout::done(&place(id), layout::word_of(&answer, "saved"))),
        Err(failure) if failure.is_about_form() => {
            sheet(visit, id, which, Typed::refused(form, failure), form.get("tag")).await
        }
        Err(failure) => Err(failure),
    }
}

fn require(may: bool, detail: &str) -> Result<(), Failure> {
    if may { Ok(()) } else { Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", detail)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_top_up_is_sent_whole() {
        let form = Fields::read(b"enabled=true&basis=credit_balance&threshold=10&amount=100&payment_method=pm_1&max_per_period=3&max_amount_per_period=");
        let expected = json!({"enabled": true, "basis": "credit_balance", "threshold": "10", "amount": "100",
                              "payment_method": "pm_1", "max_per_period": 3});
        assert_eq!(top_up_body(&form), expected);
        assert_eq!(top_up_body(&Fields::read(b"max_per_period=many"))["max_per_period"], "many");
    }

    #[test]
    fn a_payment_without_a_price_names_no_currency() {
        let form = Fields::read(b"payment_id=p1&amount=5&price=&currency=usd");
        assert_eq!(payment_body(&form), json!({"payment_id": "p1", "amount": "5"}));
        let form = Fields::read(b"payment_id=p1&amount=5&price=4.50&currency=eur");
        assert_eq!(payment_body(&form)["price"], json!({"amount": "4.50", "currency": "eur"}));
    }

    #[test]
    fn an_address_that_no_browser_opens_is_no_link() {
        let checkout = |url: &str| Checkout { checkout_id: "c".into(), url: Some(url.into()) };
        let href = |url: &str| ready(Unit::Credits, &Typed::default(), checkout(url)).href;
        assert_eq!(href("https://pay.example.test/c").as_deref(), Some("https://pay.example.test/c"));
        assert_eq!([href("sandbox://checkout/c"), href("javascript:alert(1)")], [None, None]);
    }
}
