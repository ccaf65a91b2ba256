//! Rate cards: prices of usage.

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;

use crate::api::Failure;
use crate::layout::{self, Frame, Tab};
use crate::visit::Visit;

#[derive(Template)]
#[template(path = "rate_cards.html")]
struct RateCardsPage {
    frame: Frame,
}

pub fn routes() -> Router {
    Router::new().route("/rate-cards", get(show))
}

async fn show(visit: Visit) -> Result<Response, Failure> {
    let frame = Frame::of(&visit, "Rate cards", Tab::RateCards);
    layout::page(&RateCardsPage { frame })
}
