//! Notifications: what was sent to whom.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;

use crate::api::Failure;
use crate::layout::{self, Frame, Tab};
use crate::visit::Visit;

#[derive(Template)]
#[template(path = "notifications.html")]
struct NotificationsPage {
    frame: Frame,
}

pub fn routes() -> Router {
    Router::new().route("/accounts/{account}/notifications", get(show))
}

async fn show(visit: Visit, Path(account): Path<String>) -> Result<Response, Failure> {
    let account = visit.account(&account).await?;
    let frame = Frame::account(&visit, &account, Tab::Notifications, "Notifications");
    layout::page(&NotificationsPage { frame })
}
