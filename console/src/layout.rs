//! Layout: what every page has around it, and how a page becomes an answer.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use web::auth::Role;

use crate::account::Account;
use crate::api::Failure;
use crate::assets;
use crate::icons::{Icon, icon};
use crate::visit::{Visit, Who, segment};

/// The pages that navigation leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tab {
    Accounts,
    Overview,
    Usage,
    People,
    Messages,
    Billing,
    Grants,
    History,
    FreeCredits,
    Limits,
    Notifications,
    Audit,
    AuditLog,
    Settings,
    Keys,
    RateCards,
    PromoCodes,
    /// A page that navigation does not name.
    None,
}

/// A link of the navigation.
#[derive(Debug, Clone)]
pub struct Link {
    pub label: &'static str,
    pub href: String,
    pub icon: Icon,
    pub is_here: bool,
}

/// Links under one heading, empty for the first.
#[derive(Debug, Clone)]
pub struct Group {
    pub heading: &'static str,
    pub links: Vec<Link>,
}

/// What surrounds a page.
#[derive(Debug, Clone)]
pub struct Frame {
    pub title: String,
    pub theme: &'static str,
    /// None: nobody is signed in.
    pub visit: Option<Shown>,
    pub groups: Vec<Group>,
    pub account: Option<Head>,
    /// A sentence on top of the page: what the last form has done.
    pub notice: Option<String>,
    /// The address of the stream that announces changes of the page.
    pub live: Option<String>,
}

/// Who is signed in.
#[derive(Debug, Clone)]
pub struct Shown {
    pub role: &'static str,
    pub key_id: String,
    /// The accounts of the key in a few words.
    pub over: String,
    pub csrf: String,
    /// The page itself, to come back to.
    pub here: String,
}

/// The account that a page is about.
#[derive(Debug, Clone)]
pub struct Head {
    pub id: String,
    pub title: String,
    pub href: String,
    pub is_closed: bool,
    pub has_test_clock: bool,
    /// Why its alerts stand still.
    pub halted: Option<String>,
}

/// What a form has done, by the word in the page's address.
const DONE: [(&str, &str); 14] = [
    ("saved", "Saved."),
    ("queued", "Recorded. The figures follow in a moment."),
    ("opened", "The account is open."),
    ("closed", "The account is closed."),
    ("added", "Added."),
    ("removed", "Removed."),
    ("granted", "The credits are granted."),
    ("voided", "What remained of the grant is void."),
    ("sent", "Sent."),
    ("resent", "It is on its way again."),
    ("decided", "Decided. What follows from it is recorded in a moment."),
    ("invited", "Invited."),
    ("redeemed", "The code is redeemed."),
    ("ended", "Ended."),
];

impl Frame {
    /// Frames a page that is about no account.
    pub fn of(visit: &Visit, title: &str, tab: Tab) -> Frame {
        let done = visit.query.get("done");
        let notice = DONE.iter().find(|(word, _)| *word == done).map(|(_, said)| (*said).to_owned());
        Frame {
            title: title.to_owned(),
            theme: visit.theme.name(),
            visit: Some(Shown::of(visit)),
            groups: everywhere(&visit.who, tab),
            account: None,
            notice,
            live: None,
        }
    }

    /// Frames a page of an account.
    pub fn account(visit: &Visit, account: &Account, tab: Tab, title: &str) -> Frame {
        let mut frame = Frame::of_member(visit, &account.account_id, tab, title);
        let halted = account.alerts_halted.as_ref();
        if let Some(head) = &mut frame.account {
            head.title = account.title().to_owned();
            head.is_closed = account.is_closed();
            head.has_test_clock = account.has_test_clock();
            head.halted = halted.map(|halt| format!("{} is halted since {}", halt.halted_by, halt.since));
        }
        frame.title = format!("{title} · {}", account.title());
        frame
    }

    /// Frames a page of an account that the visitor may not read: a member sees only own rows.
    pub fn of_member(visit: &Visit, account: &str, tab: Tab, title: &str) -> Frame {
        let mut frame = Frame::of(visit, title, tab);
        frame.groups.splice(0..0, within(&visit.who, account, tab));
        frame.account = Some(Head {
            id: account.to_owned(),
            title: account.to_owned(),
            href: format!("/accounts/{}", segment(account)),
            is_closed: false,
            has_test_clock: false,
            halted: None,
        });
        frame
    }

    /// Frames a page for somebody who is not signed in.
    pub fn outside(title: &str, theme: &'static str) -> Frame {
        let title = title.to_owned();
        Frame { title, theme, visit: None, groups: Vec::new(), account: None, notice: None, live: None }
    }

    /// Lets the page follow the account: its parts with `data-live` are renewed at every change.
    pub fn live(mut self, account: &str) -> Frame {
        self.live = Some(format!("/accounts/{}/live", segment(account)));
        self
    }

    /// Returns the address of a file, for templates.
    pub fn asset(&self, name: &str) -> &'static str {
        assets::path(name)
    }

    /// Returns the token that every form has in a hidden field.
    pub fn csrf(&self) -> &str {
        self.visit.as_ref().map_or("", |shown| shown.csrf.as_str())
    }
}

impl Shown {
    fn of(visit: &Visit) -> Shown {
        let Who { key_id, role, accounts, user_id, .. } = &*visit.who;
        let over = match (accounts.as_slice(), user_id) {
            (_, Some(user)) => format!("as {user}"),
            ([one], _) if one != "*" => format!("over {one}"),
            (many, _) if !visit.who.sees_all_accounts() => format!("over {} accounts", many.len()),
            _ => "over all accounts".to_owned(),
        };
        let here = format!("{}{}", visit.path, visit.query.without("done").link());
        Shown { role: role.name(), key_id: key_id.clone(), over, csrf: visit.csrf.to_string(), here }
    }
}

/// A link's label, icon, page, and place below the account.
type Place = (&'static str, &'static str, Tab, &'static str);

const OWN: [Place; 3] = [
    ("Overview", "overview", Tab::Overview, ""),
    ("Usage", "usage", Tab::Usage, "/usage"),
    ("Messages", "messages", Tab::Messages, "/messages"),
];
const WHERE_IT_WENT: [Place; 5] = [
    ("Overview", "overview", Tab::Overview, ""),
    ("Usage", "usage", Tab::Usage, "/usage"),
    ("People", "people", Tab::People, "/people"),
    ("Messages", "messages", Tab::Messages, "/messages"),
    ("History", "history", Tab::History, "/history"),
];
const CREDITS: [Place; 3] = [
    ("Billing", "billing", Tab::Billing, "/billing"),
    ("Grants", "grants", Tab::Grants, "/grants"),
    ("Free credits", "free", Tab::FreeCredits, "/free-credits"),
];
const CONTROL: [Place; 4] = [
    ("Limits & alerts", "limits", Tab::Limits, "/limits"),
    ("Notifications", "notifications", Tab::Notifications, "/notifications"),
    ("Audit", "audit", Tab::Audit, "/audit"),
    ("Settings", "settings", Tab::Settings, "/settings"),
];

/// Returns the links to an account's pages that the visitor may read.
fn within(who: &Who, account: &str, tab: Tab) -> Vec<Group> {
    let group = |heading, places: &[Place]| {
        let base = format!("/accounts/{}", segment(account));
        let links = places.iter().map(|(label, name, of, below)| Link {
            label,
            href: format!("{base}{below}"),
            icon: icon(name),
            is_here: *of == tab,
        });
        Group { heading, links: links.collect() }
    };
    match who.role {
        Role::Producer => Vec::new(),
        Role::Member => vec![group("", &OWN)],
        Role::Operator | Role::Admin | Role::Auditor => {
            vec![group("", &WHERE_IT_WENT), group("Credits", &CREDITS), group("Control", &CONTROL)]
        }
    }
}

/// Returns the links that are about no account.
fn everywhere(who: &Who, tab: Tab) -> Vec<Group> {
    let link = |label, href: &str, name, of: Tab| {
        let is_here = of == tab;
        Link { label, href: href.to_owned(), icon: icon(name), is_here }
    };
    let mut links = vec![link("Accounts", "/", "accounts", Tab::Accounts)];
    if who.is_operator() {
        links.push(link("Keys", "/keys", "keys", Tab::Keys));
    }
    if matches!(who.role, Role::Operator | Role::Auditor) {
        links.push(link("Rate cards", "/rate-cards", "cards", Tab::RateCards));
        links.push(link("Promo codes", "/promo-codes", "codes", Tab::PromoCodes));
        links.push(link("Audit log", "/audit-log", "audit", Tab::AuditLog));
    }
    vec![Group { heading: "Ledger", links }]
}

/// Answers with a page.
pub fn page(template: &impl Template) -> Result<Response, Failure> {
    page_with(StatusCode::OK, template)
}

/// Answers with a page under a status: 422 for a form that is shown again.
pub fn page_with(status: StatusCode, template: &impl Template) -> Result<Response, Failure> {
    let html = template.render().map_err(|error| {
        tracing::error!(%error, "a page can't be made");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "this page can't be made")
    })?;
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))];
    Ok((status, headers, html).into_response())
}

/// Answers a form that has done its work: the browser reads the page, which says so.
pub fn done(path: &str, word: &str) -> Response {
    let separator = if path.contains('?') { '&' } else { '?' };
    Redirect::to(&format!("{path}{separator}done={word}")).into_response()
}

/// Returns the word for a write of the API: some are recorded before the figures show them.
pub fn word_of<'a>(answer: &serde_json::Value, word: &'a str) -> &'a str {
    if answer.get("position").is_some() && answer.get("outcome").is_none() { "queued" } else { word }
}
