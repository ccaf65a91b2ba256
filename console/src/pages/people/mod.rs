//! People: who used how much, who is over the limit, and why somebody was refused.

mod decisions;
mod person;
mod reads;
mod user;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use self::person::{one, set_limit};
use self::user::{User, against_limit};
use crate::account::path_of;
use crate::api::{Failure, List};
use crate::chart::Svg;
use crate::format::{Amount, Sum, Unit};
use crate::layout::{self, Frame, Tab};
use crate::visit::{Fields, Visit, segment};

const ROWS: usize = 50;

#[derive(Template)]
#[template(path = "people.html")]
struct PeoplePage {
    frame: Frame,
    here: String,
    q: String,
    sort: String,
    over: bool,
    rows: Result<Vec<Row>, Failure>,
    all: String,
    only_over: String,
    by_use: String,
    by_name: String,
    csv: String,
    first: Option<String>,
    next: Option<String>,
}

struct Row {
    id: String,
    href: String,
    used: Amount,
    counted: Amount,
    held: Amount,
    limit: Option<Amount>,
    share: String,
    bar: Svg,
    blocked: bool,
}

pub fn routes() -> Router {
    Router::new()
        .route("/accounts/{account}/people", get(list))
        .route("/accounts/{account}/people.csv", get(export))
        .route("/accounts/{account}/people/{user}", get(one))
        .route("/accounts/{account}/people/{user}/limit", post(set_limit))
}

/// Returns the API's query for a page of the list.
fn wanted(query: &Fields) -> String {
    let sort = if query.get("sort") == "user" { "user" } else { "-used" };
    let mut pairs = vec![("sort".to_owned(), sort.to_owned()), ("limit".to_owned(), ROWS.to_string())];
    for name in ["q", "over_budget", "cursor"] {
        pairs.extend(query.filled(name).map(|value| (name.to_owned(), value.to_owned())));
    }
    pairs.into_iter().collect::<Fields>().link()
}

async fn list(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let here = format!("/accounts/{}/people", segment(&id));
    if let (true, Some(user)) = (visit.who.is_member(), &visit.who.user_id) {
        return Ok(Redirect::to(&format!("{here}/{}", segment(user))).into_response());
    }
    let path = format!("{}/users{}", path_of(&id), wanted(&visit.query));
    let (account, users) = tokio::join!(visit.account(&id), visit.api.get::<List<User>>(&path));
    let account = account?;
    let query = visit.query.without("done").without("cursor");
    let link = |query: Fields| format!("{here}{}", query.link());
    let next = users.as_ref().ok().and_then(|users| users.next_cursor.clone());
    let rows = users.map(|users| {
        let most = users.items.iter().map(|user| user.used).max().unwrap_or(Sum::ZERO);
        users.items.into_iter().map(|user| row(&here, account.unit, user, most)).collect()
    });
    layout::page(&PeoplePage {
        frame: Frame::account(&visit, &account, Tab::People, "People").live(&id),
        q: query.get("q").to_owned(),
        sort: query.get("sort").to_owned(),
        over: query.is_on("over_budget"),
        all: link(query.without("over_budget")),
        only_over: link(query.with("over_budget", "true")),
        by_use: link(query.without("sort")),
        by_name: link(query.with("sort", "user")),
        csv: format!("{here}.csv{}", query.link()),
        first: visit.query.filled("cursor").map(|_| link(query.clone())),
        next: next.map(|cursor| link(query.with("cursor", &cursor))),
        here,
        rows,
    })
}

/// Passes on the users of the page as the API writes them.
async fn export(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let query = wanted(&visit.query).replace(&format!("limit={ROWS}"), "limit=500");
    let path = format!("{}/users{query}", path_of(&id));
    visit.api.csv(&path, "people.csv").await
}

fn row(here: &str, unit: Unit, user: User, most: Sum) -> Row {
    let (share, bar) = against_limit(unit, &user, most);
    Row {
        href: format!("{here}/{}", segment(&user.user_id)),
        id: user.user_id,
        used: unit.show(user.used),
        counted: unit.show(user.counted),
        held: unit.show(user.held),
        limit: user.limit.map(|limit| unit.show(limit)),
        share,
        bar,
        blocked: user.blocked,
    }
}
