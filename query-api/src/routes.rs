//! Routes: every path of the read side with its handler.

use axum::Router;
use web::openapi::{self, Route};

use crate::app::App;
use crate::http::{
    accounts, alerts, audit, backtest, balance, decisions, diff, entries, events, explain, grants, journal,
    key, limits, messages, notifications, periods, plan, referrals, reservations, settings, usage, users,
};
use crate::stream;

/// Builds the routes under `/v1`; the process serves those of every service (`/healthz`, `/openapi.json`).
pub fn router(app: App) -> Router {
    openapi::router(routes()).with_state(app)
}

/// Returns all routes, by the part of the API that the document lists them under.
pub(crate) fn routes() -> Vec<Route<App>> {
    let parts = [
        (
            "accounts",
            vec![
                accounts::routes(),
                plan::routes(),
                balance::routes(),
                stream::routes(),
                periods::routes(),
                entries::routes(),
            ],
        ),
        ("usage", vec![usage::routes(), users::routes(), events::routes(), messages::routes()]),
        ("grants", vec![grants::routes(), referrals::routes()]),
        ("limits and holds", vec![limits::routes(), reservations::routes(), decisions::routes()]),
        ("alerts", vec![alerts::routes(), settings::routes(), backtest::routes(), notifications::routes()]),
        ("audit", vec![explain::routes(), diff::routes(), audit::routes(), journal::routes()]),
        ("keys", vec![key::routes()]),
    ];
    let tagged = |(tag, routes): (&'static str, Vec<Vec<Route<App>>>)| {
        routes.into_iter().flatten().map(move |route| route.tagged(tag))
    };
    parts.into_iter().flat_map(tagged).collect()
}
