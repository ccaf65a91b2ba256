//! Help: the keys that the pages listen to.

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;

use crate::api::Failure;
use crate::layout::{self, Frame, Tab};
use crate::visit::Visit;

#[derive(Template)]
#[template(path = "help.html")]
struct Help {
    frame: Frame,
}

pub fn routes() -> Router {
    Router::new().route("/help/keys", get(show))
}

async fn show(visit: Visit) -> Result<Response, Failure> {
    layout::page(&Help { frame: Frame::of(&visit, "Keyboard", Tab::None) })
}
