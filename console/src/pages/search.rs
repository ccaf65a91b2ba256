//! Search: finds accounts, users, events and messages, and the pages of an account.

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;
use futures::future::join_all;
use serde::Deserialize;
use serde_json::Value;

use crate::account::{Account, path_of};
use crate::api::{Client, Failure, List};
use crate::layout::{self, Frame, Tab};
use crate::visit::{Fields, Visit, segment};

/// Accounts that are named, and those that are looked into where the search names none.
const ACCOUNTS: usize = 8;
/// Users of each account.
const USERS: usize = 6;

#[derive(Deserialize)]
struct User {
    user_id: String,
}

#[derive(Template)]
#[template(path = "search.html")]
struct SearchPage {
    frame: Frame,
    q: String,
    account: String,
    found: Vec<Found>,
    /// Why a part of it could not be searched.
    failure: Option<Failure>,
}

/// One thing that was found.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    kind: &'static str,
    label: String,
    /// What tells it from others.
    of: String,
    href: String,
}

pub fn routes() -> Router {
    Router::new().route("/search", get(show))
}

async fn show(visit: Visit) -> Result<Response, Failure> {
    let (q, account) = (visit.query.get("q").to_owned(), visit.query.get("account").to_owned());
    let mut found = Vec::new();
    let mut failure = None;
    if !q.is_empty() {
        found.extend(pages(&visit, &account, &q));
        match search(&visit, &account, &q).await {
            Ok(more) => found.extend(more),
            Err(refused) => failure = Some(refused),
        }
    }
    let frame = Frame::of(&visit, "Search", Tab::None);
    layout::page(&SearchPage { frame, q, account, found, failure })
}

/// Finds pages by their names: those of the account, and those about none.
fn pages(visit: &Visit, account: &str, q: &str) -> Vec<Found> {
    let frame = match account {
        "" => Frame::of(visit, "", Tab::None),
        account => Frame::of_member(visit, account, Tab::None, ""),
    };
    let q = q.to_lowercase();
    let links = frame.groups.into_iter().flat_map(|group| group.links);
    let links = links.filter(|link| link.label.to_lowercase().split(' ').any(|word| word.starts_with(&q)));
    let page = |link: layout::Link| {
        let is_of_account = link.href.starts_with("/accounts/");
        let of = if is_of_account { account.to_owned() } else { String::new() };
        Found { kind: "Page", label: link.label.to_owned(), of, href: link.href }
    };
    links.map(page).collect()
}

async fn search(visit: &Visit, account: &str, q: &str) -> Result<Vec<Found>, Failure> {
    if visit.who.is_member() {
        let Some(account) = visit.who.accounts.first() else { return Ok(Vec::new()) };
        return Ok(records(&visit.api, account, q).await);
    }
    let limit = ACCOUNTS.to_string();
    let named: Fields = [("q", q), ("limit", limit.as_str())].into_iter().collect();
    let named = format!("/v1/accounts{}", named.link());
    let (named, within) = tokio::join!(visit.api.get::<List<Account>>(&named), accounts(visit, account));
    let mut found: Vec<Found> = named?.items.iter().map(of_account).collect();
    let within = within?;
    let searched = within.iter().map(|account| async {
        let (mut found, records) =
            tokio::join!(users(&visit.api, account, q), records(&visit.api, account, q));
        found.extend(records);
        found
    });
    found.extend(join_all(searched).await.into_iter().flatten());
    Ok(found)
}

/// Returns the account that is looked into, or the first of those that the key sees.
async fn accounts(visit: &Visit, account: &str) -> Result<Vec<String>, Failure> {
    if !account.is_empty() {
        return Ok(vec![account.to_owned()]);
    }
    let list: List<Account> = visit.api.get(&format!("/v1/accounts?limit={ACCOUNTS}")).await?;
    Ok(list.items.into_iter().map(|account| account.account_id).collect())
}

fn of_account(account: &Account) -> Found {
    let id = &account.account_id;
    let of = if account.title() == id { String::new() } else { id.clone() };
    let href = format!("/accounts/{}", segment(id));
    Found { kind: "Account", label: account.title().to_owned(), of, href }
}

/// Finds users by how their ids begin. Where one account can't be read, the others are still searched.
async fn users(api: &Client, account: &str, q: &str) -> Vec<Found> {
    let limit = USERS.to_string();
    let query: Fields = [("q", q), ("limit", limit.as_str())].into_iter().collect();
    let path = format!("{}/users{}", path_of(account), query.link());
    let users = api.get::<List<User>>(&path).await.map(|list| list.items).unwrap_or_default();
    let one = |user: User| Found {
        kind: "User",
        href: format!("/accounts/{}/people/{}", segment(account), segment(&user.user_id)),
        label: user.user_id,
        of: account.to_owned(),
    };
    users.into_iter().map(one).collect()
}

/// Finds a message and an event by their whole id.
async fn records(api: &Client, account: &str, q: &str) -> Vec<Found> {
    let (path, name) = (path_of(account), segment(q));
    let (message, event) = (format!("{path}/messages/{name}"), format!("{path}/events/{name}"));
    let (message, event) = tokio::join!(api.get::<Value>(&message), api.get::<Value>(&event));
    let mut found = Vec::new();
    let mut add = |kind, place: &str| {
        let href = format!("/accounts/{}/{place}/{name}", segment(account));
        found.push(Found { kind, label: q.to_owned(), of: account.to_owned(), href });
    };
    if message.is_ok() {
        add("Message", "messages");
    }
    // One that several sources have sent is there too: its page asks which.
    if event.as_ref().is_ok() || event.is_err_and(|failure| failure.code == "ambiguous_event") {
        add("Event", "events");
    }
    found
}
