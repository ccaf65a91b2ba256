//! Messages: what one message or event cost.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;

use crate::api::Failure;
use crate::layout::{self, Frame, Tab};
use crate::visit::Visit;

#[derive(Template)]
#[template(path = "messages.html")]
struct MessagesPage {
    frame: Frame,
}

pub fn routes() -> Router {
    Router::new().route("/accounts/{account}/messages", get(show))
}

async fn show(visit: Visit, Path(account): Path<String>) -> Result<Response, Failure> {
    let account = visit.account(&account).await?;
    let frame = Frame::account(&visit, &account, Tab::Messages, "Messages");
    layout::page(&MessagesPage { frame })
}
