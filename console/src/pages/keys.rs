//! Keys: API keys.

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;

use crate::api::Failure;
use crate::layout::{self, Frame, Tab};
use crate::visit::Visit;

#[derive(Template)]
#[template(path = "keys.html")]
struct KeysPage {
    frame: Frame,
}

pub fn routes() -> Router {
    Router::new().route("/keys", get(show))
}

async fn show(visit: Visit) -> Result<Response, Failure> {
    let frame = Frame::of(&visit, "Keys", Tab::Keys);
    layout::page(&KeysPage { frame })
}
