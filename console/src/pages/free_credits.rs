//! Free credits: invitations and promo codes.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;

use crate::api::Failure;
use crate::layout::{self, Frame, Tab};
use crate::visit::Visit;

#[derive(Template)]
#[template(path = "free_credits.html")]
struct FreeCreditsPage {
    frame: Frame,
}

pub fn routes() -> Router {
    Router::new().route("/accounts/{account}/free-credits", get(show))
}

async fn show(visit: Visit, Path(account): Path<String>) -> Result<Response, Failure> {
    let account = visit.account(&account).await?;
    let frame = Frame::account(&visit, &account, Tab::FreeCredits, "Free credits");
    layout::page(&FreeCreditsPage { frame })
}
