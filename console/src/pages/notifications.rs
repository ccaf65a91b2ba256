//! Notifications: what was sent to whom by which channel, and what could not be sent, which can be sent again.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use ledger_core::value::time::Time;
use serde::Deserialize;

use crate::account::path_of;
use crate::api::{Failure, List};
use crate::format::{self, When};
use crate::layout::{self, Frame, Tab};
use crate::visit::{Fields, Visit, segment};

const ROWS: usize = 50;
/// Filters of the API that the page has too.
const FILTERS: [&str; 3] = ["status", "channel", "recipient"];
const TABS: [(&str, &str); 4] =
    [("", "All"), ("parked", "Parked"), ("pending", "On the way"), ("delivered", "Delivered")];

#[derive(Deserialize)]
struct Notification {
    notification_id: String,
    kind: String,
    channel: String,
    recipient: String,
    status: String,
    attempts: u32,
    sent_at: Option<Time>,
    subject: String,
    text: String,
    last_error: Option<String>,
}

#[derive(Template)]
#[template(path = "notifications.html")]
struct Notifications {
    frame: Frame,
    place: String,
    tabs: Vec<TabLink>,
    channel: String,
    recipient: String,
    status: String,
    list: Result<Vec<Row>, Failure>,
    /// Why the last one was not sent again.
    refused: Option<Failure>,
    first: Option<String>,
    next: Option<String>,
    is_filtered: bool,
    has_parked: bool,
    may_resend: bool,
    is_member: bool,
}

struct TabLink {
    label: &'static str,
    href: String,
    is_here: bool,
}

struct Row {
    id: String,
    kind: String,
    channel: &'static str,
    recipient: String,
    status: (&'static str, &'static str),
    attempts: String,
    sent: Option<When>,
    subject: String,
    text: String,
    error: String,
    is_parked: bool,
    /// Where its form goes.
    resend: String,
}

pub fn routes() -> Router {
    Router::new()
        .route("/accounts/{account}/notifications", get(show))
        .route("/accounts/{account}/notifications/{notification}/resend", post(resend))
}

async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    render(&visit, id, None).await
}

async fn render(visit: &Visit, id: String, refused: Option<Failure>) -> Result<Response, Failure> {
    let (query, is_member) = (&visit.query, visit.who.is_member());
    let mut asked = Fields::from_iter([("limit", ROWS.to_string())]).with("cursor", query.get("cursor"));
    for filter in FILTERS {
        asked = asked.with(filter, query.get(filter));
    }
    let path = format!("{}/notifications{}", path_of(&id), asked.link());
    // A member reads what was sent to him, and nothing of the account.
    let account = async { if is_member { Ok(None) } else { visit.account(&id).await.map(Some) } };
    let (account, list) = tokio::join!(account, visit.api.get::<List<Notification>>(&path));
    let frame = match account? {
        Some(account) => Frame::account(visit, &account, Tab::Notifications, "Notifications").live(&id),
        None => Frame::of_member(visit, &id, Tab::Notifications, "Notifications"),
    };
    let place = format!("/accounts/{}/notifications", segment(&id));
    let here = query.without("done").without("cursor");
    let next = list.as_ref().ok().and_then(|list| list.next_cursor.clone());
    let list = list.map(|list| {
        let rows = list.items.into_iter().map(|sent| row(&place, &here, sent));
        rows.collect::<Vec<_>>()
    });
    let status = if refused.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let page = Notifications {
        frame,
        tabs: tabs(&place, &here),
        channel: query.get("channel").to_owned(),
        recipient: query.get("recipient").to_owned(),
        status: query.get("status").to_owned(),
        next: next.map(|cursor| format!("{place}{}", here.with("cursor", &cursor).link())),
        first: query.filled("cursor").map(|_| format!("{place}{}", here.link())),
        is_filtered: FILTERS.iter().any(|filter| query.is_on(filter)),
        has_parked: list.as_ref().is_ok_and(|rows| rows.iter().any(|row| row.is_parked)),
        may_resend: visit.who.may_set(),
        is_member,
        list,
        refused,
        place,
    };
    layout::page_with(status, &page)
}

async fn resend(visit: Visit, Path((id, notification)): Path<(String, String)>) -> Result<Response, Failure> {
    let path = format!("{}/notifications/{}/resend", path_of(&id), segment(&notification));
    match visit.api.post(&path).send().await {
        Ok(_) => {
            let here = visit.query.without("done").without("cursor").link();
            Ok(layout::done(&format!("/accounts/{}/notifications{here}", segment(&id)), "resent"))
        }
        Err(failure) if failure.is_about_form() => render(&visit, id, Some(failure)).await,
        Err(failure) => Err(failure),
    }
}

fn tabs(place: &str, here: &Fields) -> Vec<TabLink> {
    let chosen = here.get("status");
    let tab = |(status, label): (&'static str, &'static str)| TabLink {
        label,
        href: format!("{place}{}", here.with("status", status).link()),
        is_here: status == chosen,
    };
    TABS.into_iter().map(tab).collect()
}

fn row(place: &str, here: &Fields, sent: Notification) -> Row {
    let is_parked = sent.status == "parked";
    Row {
        kind: match sent.kind.as_str() {
            "org_alert" => "Alert".to_owned(),
            other => format::words(other),
        },
        channel: match sent.channel.as_str() {
            "email" => "E-mail",
            "webhook" => "Webhook",
            _ => "In the product",
        },
        recipient: match sent.recipient.as_str() {
            "webhook" => "The webhook".to_owned(),
            _ => sent.recipient,
        },
        status: match sent.status.as_str() {
            "delivered" => ("ok", "Delivered"),
            "parked" => ("depleted", "Parked"),
            _ => ("low", "On the way"),
        },
        attempts: match sent.attempts {
            1 => "1 attempt".to_owned(),
            many => format!("{} attempts", format::count(many)),
        },
        sent: sent.sent_at.as_ref().map(format::when),
        subject: sent.subject,
        text: sent.text,
        error: sent.last_error.unwrap_or_default(),
        resend: format!("{place}/{}/resend{}", segment(&sent.notification_id), here.link()),
        id: sent.notification_id,
        is_parked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tab_keeps_the_other_filters() {
        let here = Fields::read(b"channel=email&status=parked");
        let tabs = tabs("/n", &here);
        let links: Vec<(&str, bool)> = tabs.iter().map(|tab| (tab.href.as_str(), tab.is_here)).collect();
        assert_eq!(links[0], ("/n?channel=email", false));
        assert_eq!(links[1], ("/n?channel=email&status=parked", true));
    }
}
