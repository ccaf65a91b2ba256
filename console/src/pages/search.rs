//! Search: finds accounts, users and events.

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;

use crate::api::Failure;
use crate::layout::{self, Frame, Tab};
use crate::visit::Visit;

#[derive(Template)]
#[template(path = "search.html")]
struct SearchPage {
    frame: Frame,
}

pub fn routes() -> Router {
    Router::new().route("/search", get(show))
}

async fn show(visit: Visit) -> Result<Response, Failure> {
    let frame = Frame::of(&visit, "Search", Tab::None);
    layout::page(&SearchPage { frame })
}
