//! Usage: what the account used, by any dimension and over any days.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;

use crate::api::Failure;
use crate::layout::{self, Frame, Tab};
use crate::visit::Visit;

#[derive(Template)]
#[template(path = "usage.html")]
struct UsagePage {
    frame: Frame,
}

pub fn routes() -> Router {
    Router::new().route("/accounts/{account}/usage", get(show))
}

async fn show(visit: Visit, Path(account): Path<String>) -> Result<Response, Failure> {
    let account = visit.account(&account).await?;
    let frame = Frame::account(&visit, &account, Tab::Usage, "Usage");
    layout::page(&UsagePage { frame })
}
