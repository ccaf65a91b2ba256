//! Accounts: all that the visitor may see, each with what is left of it.

use askama::Template;
use axum::Router;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use futures::future::join_all;
use serde::Deserialize;
use web::auth::Role;

use crate::account::{Account, path_of};
use crate::api::{Failure, List};
use crate::chart::{self, Part, Svg};
use crate::format::{self, Amount, Sum, When};
use crate::layout::{self, Frame, Tab};
use crate::visit::{Fields, Visit, segment};

/// Accounts of one page: each costs a read of its balance.
const ROWS: usize = 25;

#[derive(Deserialize)]
struct Balance {
    available: Sum,
    used: Sum,
    percent_used: Option<Sum>,
    status: String,
}

#[derive(Template)]
#[template(path = "accounts.html")]
struct Accounts {
    frame: Frame,
    q: String,
    status: String,
    rows: Vec<Row>,
    /// Link to the next rows.
    next: Option<String>,
    first: Option<String>,
    may_open: bool,
    /// Whether the list is narrowed down, so that an empty one says what to do.
    is_searched: bool,
}

struct Row {
    id: String,
    title: String,
    href: String,
    is_closed: bool,
    ends: When,
    ends_in: String,
    /// None: the balance can't be read now.
    figures: Option<Figures>,
}

struct Figures {
    available: Amount,
    unit: &'static str,
    used: String,
    bar: Svg,
    status: String,
}

pub fn routes() -> Router {
    Router::new().route("/", get(show))
}

async fn show(visit: Visit) -> Result<Response, Failure> {
    match visit.who.role {
        Role::Operator | Role::Admin | Role::Auditor => list(visit).await,
        Role::Member => match visit.who.accounts.first() {
            Some(account) => Ok(Redirect::to(&format!("/accounts/{}", segment(account))).into_response()),
            None => Err(Failure::not_found("this key is for no account")),
        },
        Role::Producer => Err(Failure::new(
            axum::http::StatusCode::FORBIDDEN,
            "forbidden",
            "a producer's key sends usage and reads nothing",
        )),
    }
}

async fn list(visit: Visit) -> Result<Response, Failure> {
    let query = &visit.query;
    let asked: Fields =
        [("q", query.get("q")), ("status", query.get("status")), ("cursor", query.get("cursor"))]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .chain([("limit", ROWS.to_string().as_str())])
            .collect();
    let page: List<Account> = visit.api.get(&format!("/v1/accounts{}", asked.link())).await?;
    let balances = page.items.iter().map(|account| balance(&visit, account));
    let balances = join_all(balances).await;
    let rows = page.items.iter().zip(balances).map(|(account, balance)| row(&visit, account, balance));
    let rows: Vec<Row> = rows.collect();
    let here = query.without("done");
    layout::page(&Accounts {
        frame: Frame::of(&visit, "Accounts", Tab::Accounts),
        q: query.get("q").to_owned(),
        status: query.get("status").to_owned(),
        rows,
        next: page.next_cursor.map(|cursor| format!("/{}", here.with("cursor", &cursor).link())),
        first: query.filled("cursor").map(|_| format!("/{}", here.without("cursor").link())),
        may_open: visit.who.is_operator(),
        is_searched: query.is_on("q") || query.is_on("status") || query.is_on("cursor"),
    })
}

/// Reads a balance; a halted account must not hide the others.
async fn balance(visit: &Visit, account: &Account) -> Option<Balance> {
    visit.api.get(&format!("{}/balance", path_of(&account.account_id))).await.ok()
}

fn row(visit: &Visit, account: &Account, balance: Option<Balance>) -> Row {
    Row {
        id: account.account_id.clone(),
        title: account.title().to_owned(),
        href: format!("/accounts/{}", segment(&account.account_id)),
        is_closed: account.is_closed(),
        ends: format::day(&account.period.ends_at),
        ends_in: format::distance(account.now(visit.now), account.period.ends_at),
        figures: balance.map(|balance| figures(account, &balance)),
    }
}

fn figures(account: &Account, balance: &Balance) -> Figures {
    let left = if balance.available.is_positive() { balance.available } else { Sum::ZERO };
    let whole = left.plus(balance.used);
    let class = match balance.status.as_str() {
        "depleted" => "depleted",
        "low" => "low",
        _ => "allowance",
    };
    let part = Part { class, sum: left, label: format!("{} left", account.unit.show(left).text()) };
    let title = format!("{} left of {}", account.unit.show(left).text(), account.unit.show(whole).text());
    Figures {
        available: account.unit.show(balance.available),
        unit: account.unit.word(),
        used: balance.percent_used.map_or_else(|| "\u{2013}".to_owned(), format::percent_of_api),
        bar: chart::bar(&title, &[part], whole),
        status: balance.status.clone(),
    }
}
