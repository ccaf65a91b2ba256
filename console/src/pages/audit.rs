//! Audit: the account's journal, and what explains a figure.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;

use crate::api::Failure;
use crate::layout::{self, Frame, Tab};
use crate::visit::Visit;

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
}

pub fn routes() -> Router {
    Router::new().route("/accounts/{account}/audit", get(show))
}

async fn show(visit: Visit, Path(account): Path<String>) -> Result<Response, Failure> {
    let account = visit.account(&account).await?;
    let frame = Frame::account(&visit, &account, Tab::Audit, "Audit");
    layout::page(&AuditPage { frame })
}
