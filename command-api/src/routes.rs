//! Routes: maps every path of the write side to its handler.

use axum::Router;
use axum::routing::{MethodRouter, delete, get, patch, post, put};

use crate::app::App;
use crate::billing::webhooks::receive as webhooks;
use crate::billing::{checkout, payments};
use crate::http::{
    accounts, adjustments, check, clock, contacts, erasures, grants, keys, member_tokens, plan, rate_cards,
    reservations, reversals, settings, usage,
};
use crate::promotions::{promo_codes, redemptions, referrals};

/// Builds the router, without `/openapi.json` and the operator's pages.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    for (path, handler) in routes() {
        router = router.route(path, handler);
    }
    router.with_state(app)
}

/// The document in `openapi.json` describes these and no others.
fn routes() -> [(&'static str, MethodRouter<App>); 37] {
    [
        ("/v1/accounts", post(accounts::open)),
        ("/v1/accounts/{account}", patch(accounts::change)),
        ("/v1/accounts/{account}/close", post(accounts::close)),
        ("/v1/accounts/{account}/plan", put(plan::put)),
        ("/v1/accounts/{account}/clock", post(clock::advance)),
        ("/v1/accounts/{account}/usage", post(usage::plain)),
        ("/v1/accounts/{account}/usage/{event_id}/reversal", post(reversals::reverse)),
        ("/v1/accounts/{account}/grants", post(grants::grant)),
        ("/v1/accounts/{account}/grants/{grant_id}", delete(grants::void)),
        ("/v1/accounts/{account}/adjustments", post(adjustments::adjust)),
        ("/v1/accounts/{account}/purchases", post(payments::purchase)),
        ("/v1/accounts/{account}/refunds", post(payments::refund)),
        ("/v1/accounts/{account}/checkout", post(checkout::create)),
        ("/v1/accounts/{account}/redemptions", post(redemptions::create)),
        ("/v1/accounts/{account}/referrals", post(referrals::invite)),
        ("/v1/accounts/{account}/erase-person", post(erasures::erase)),
        ("/v1/accounts/{account}/member-tokens", post(member_tokens::create)),
        ("/v1/promo-codes", post(promo_codes::create)),
        ("/v1/promo-codes/{code}", get(promo_codes::get).delete(promo_codes::end)),
        ("/v1/rate-cards", get(rate_cards::list)),
        ("/v1/webhooks/stripe", post(webhooks::stripe)),
        ("/v1/accounts/{account}/limits", put(settings::put_limits)),
        (
            "/v1/accounts/{account}/limits/users/{user}",
            put(settings::put_user_limit).delete(settings::remove_user_limit),
        ),
        ("/v1/accounts/{account}/user-alert", put(settings::put_user_alert)),
        ("/v1/accounts/{account}/auto-top-up", put(settings::put_auto_top_up)),
        (
            "/v1/accounts/{account}/alerts/{alert}",
            put(settings::put_org_alert).delete(settings::remove_org_alert),
        ),
        ("/v1/accounts/{account}/contacts", put(contacts::put).get(contacts::get)),
        ("/v1/accounts/{account}/contacts/webhook-secret", post(contacts::rotate_secret)),
        ("/v1/accounts/{account}/check", post(check::check)),
        ("/v1/accounts/{account}/reservations", post(reservations::reserve)),
        ("/v1/accounts/{account}/reservations/{reservation}", patch(reservations::extend)),
        ("/v1/accounts/{account}/reservations/{reservation}/settle", post(reservations::settle)),
        ("/v1/accounts/{account}/reservations/{reservation}/release", post(reservations::release)),
        ("/v1/events", post(usage::events)),
        ("/v1/rate-cards/{card}", put(rate_cards::put).get(rate_cards::one)),
        ("/v1/keys", post(keys::create).get(keys::list)),
        ("/v1/keys/{key}", delete(keys::revoke)),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The process serves these around the routes.
    const OPERATIONS: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/openapi.json"];

    #[test]
    fn the_openapi_document_describes_what_is_served_and_nothing_else() {
        let document = crate::openapi::openapi();
        let paths = document["paths"].as_object().expect("paths");
        let described: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
        let served: BTreeSet<&str> = routes().iter().map(|(path, _)| *path).chain(OPERATIONS).collect();
        assert_eq!(described, served);
    }
}
