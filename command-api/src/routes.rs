//! Routes: every path of the write side with its handler.

use axum::Router;
use web::openapi::{self, Route};

use crate::app::App;
use crate::billing::webhooks::receive as webhooks;
use crate::billing::{checkout, parked, payments};
use crate::http::{
    accounts, adjustments, check, clock, contacts, erasures, grants, keys, member_tokens, notifications,
    plan, rate_cards, reservations, reversals, settings, usage, webhook_tests,
};
use crate::promotions::{promo_codes, redemptions, referrals};

/// Builds the router, without the documents and the operator's pages.
pub fn router(app: App) -> Router {
    openapi::router(routes()).with_state(app)
}

/// Returns all routes, by the part of the API that the document lists them under.
pub(crate) fn routes() -> Vec<Route<App>> {
    let parts = [
        ("accounts", vec![accounts::routes(), plan::routes(), clock::routes()]),
        ("usage", vec![usage::routes(), reversals::routes(), rate_cards::routes()]),
        (
            "grants",
            vec![grants::routes(), adjustments::routes(), promo_codes::routes(), redemptions::routes()],
        ),
        ("payments", vec![payments::routes(), parked::routes(), checkout::routes(), webhooks::routes()]),
        ("limits and holds", vec![check::routes(), reservations::routes()]),
        ("alerts", vec![settings::routes(), notifications::routes()]),
        (
            "people",
            vec![contacts::routes(), webhook_tests::routes(), referrals::routes(), erasures::routes()],
        ),
        ("keys", vec![keys::routes(), member_tokens::routes()]),
    ];
    let tagged = |(tag, routes): (&'static str, Vec<Vec<Route<App>>>)| {
        routes.into_iter().flatten().map(move |route| route.tagged(tag))
    };
    parts.into_iter().flat_map(tagged).collect()
}
