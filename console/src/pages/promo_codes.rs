//! Promo codes: codes that give credits.

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;

use crate::api::Failure;
use crate::layout::{self, Frame, Tab};
use crate::visit::Visit;

#[derive(Template)]
#[template(path = "promo_codes.html")]
struct PromoCodesPage {
    frame: Frame,
}

pub fn routes() -> Router {
    Router::new().route("/promo-codes", get(show))
}

async fn show(visit: Visit) -> Result<Response, Failure> {
    let frame = Frame::of(&visit, "Promo codes", Tab::PromoCodes);
    layout::page(&PromoCodesPage { frame })
}
