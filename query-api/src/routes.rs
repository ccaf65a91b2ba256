//! Routes: maps every path of the read side to its handler.

use axum::Router;
use axum::routing::{MethodRouter, get, post};

use crate::app::App;
use crate::http::{
    accounts, alerts, audit, backtest, balance, decisions, entries, events, grants, limits, messages,
    notifications, periods, plan, referrals, reservations, settings, usage, users,
};
use crate::stream;

/// Builds the routes under `/v1`; the process serves those of every service (`/healthz`, `/openapi.json`).
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    for (path, handler) in routes() {
        router = router.route(path, handler);
    }
    router.with_state(app)
}

/// The document in `openapi.json` describes these and no others.
fn routes() -> [(&'static str, MethodRouter<App>); 27] {
    [
        ("/v1/accounts", get(accounts::list)),
        ("/v1/accounts/{account}", get(accounts::one)),
        ("/v1/accounts/{account}/plan", get(plan::read)),
        ("/v1/accounts/{account}/balance", get(balance::balance)),
        ("/v1/accounts/{account}/usage", get(usage::usage)),
        ("/v1/accounts/{account}/users", get(users::list)),
        ("/v1/accounts/{account}/limits", get(limits::one)),
        ("/v1/accounts/{account}/limits/users", get(limits::users)),
        ("/v1/accounts/{account}/limits/users/{user}", get(limits::user)),
        ("/v1/accounts/{account}/grants", get(grants::list)),
        ("/v1/accounts/{account}/periods", get(periods::list)),
        ("/v1/accounts/{account}/referrals", get(referrals::read)),
        ("/v1/accounts/{account}/entries", get(entries::list)),
        ("/v1/accounts/{account}/events/{event_id}", get(events::one)),
        ("/v1/accounts/{account}/messages/{message_id}", get(messages::one)),
        ("/v1/accounts/{account}/alerts", get(alerts::list)),
        ("/v1/accounts/{account}/alerts/{alert}", get(settings::org_alert)),
        ("/v1/accounts/{account}/user-alert", get(settings::user_alert)),
        ("/v1/accounts/{account}/auto-top-up", get(settings::auto_top_up)),
        ("/v1/accounts/{account}/alerts/backtest", post(backtest::run)),
        ("/v1/accounts/{account}/firings", get(alerts::firings)),
        ("/v1/accounts/{account}/notifications", get(notifications::list)),
        ("/v1/accounts/{account}/reservations", get(reservations::list)),
        ("/v1/accounts/{account}/reservations/{reservation}", get(reservations::one)),
        ("/v1/accounts/{account}/decisions", get(decisions::list)),
        ("/v1/accounts/{account}/stream", get(stream::stream)),
        ("/v1/audit/events", get(audit::events)),
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
