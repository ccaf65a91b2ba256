//! Usage: what the account used, by any dimension and over any days.

mod asked;
mod charts;
mod groups;
mod picker;
mod seen;
mod table;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

use self::asked::{Asked, DIMENSIONS, ROWS_MAX, named};
use self::groups::read;
use self::picker::{Picker, picker};
use self::seen::seen;
use self::table::{Shown, shown};
use crate::account::path_of;
use crate::api::{self, Failure};
use crate::format;
use crate::layout::{self, Frame};
use crate::visit::{Visit, segment};

#[derive(Template)]
#[template(path = "usage.html")]
struct UsagePage {
    frame: Frame,
    here: String,
    form: Picker,
    filters: Vec<Chip>,
    /// None: the question itself is wrong.
    found: Option<Shown>,
    failure: Option<Failure>,
    csv: String,
}

impl UsagePage {
    fn wrong(&self, field: &str) -> &str {
        api::wrong(self.failure.as_ref(), field)
    }
}

/// A filter in force.
struct Chip {
    dimension: String,
    value: String,
    without: String,
}

pub fn routes() -> Router {
    Router::new()
        .route("/accounts/{account}/usage", get(show))
        .route("/accounts/{account}/usage.csv", get(export))
}

async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let asked = Asked::read(&visit.query);
    let here = format!("/accounts/{}/usage", segment(&id));
    if let Some(dimension) = visit.query.filled("filter_by").filter(|name| DIMENSIONS.contains(name)) {
        let asked = asked.with_filter(dimension, visit.query.get("filter"));
        return Ok(Redirect::to(&format!("{here}{}", asked.link())).into_response());
    }
    let seen = seen(&visit, &id).await?;
    let path = format!("{}/usage", path_of(&id));
    let read = read(&visit.api, &path, &asked).await;
    let (shown, failure) = match read {
        Ok(found) => (Some(shown(&here, &seen, &asked, found)), None),
        Err(failure) if failure.is_about_form() && failure.status != StatusCode::NOT_FOUND => {
            (None, Some(failure))
        }
        Err(failure) => return Err(failure),
    };
    let status = if failure.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let chip = |(dimension, value): &(String, String)| Chip {
        dimension: format::words(dimension),
        value: named(value),
        without: format!("{here}{}", asked.without_filter(dimension).link()),
    };
    let page = UsagePage {
        form: picker(&here, &seen, &asked),
        filters: asked.filters.iter().map(chip).collect(),
        csv: format!("{here}.csv{}", asked.link()),
        frame: seen.frame,
        here,
        found: shown,
        failure,
    };
    layout::page_with(status, &page)
}

/// Passes on the groups of the page as the API writes them.
async fn export(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let asked = Asked::read(&visit.query);
    let query = asked.groups(&asked.by, ROWS_MAX);
    let path = format!("{}/usage{query}", path_of(&id));
    visit.api.csv(&path, "usage.csv").await
}
