//! Pages: one file and one template each. They share the layout and know nothing of each other.

mod accounts;
mod audit;
mod audit_log;
mod billing;
mod explain;
mod free_credits;
mod grants;
mod help;
mod history;
mod keys;
mod limits;
mod messages;
mod notifications;
mod open;
mod overview;
mod parked;
mod people;
mod promo_codes;
mod rate_cards;
mod search;
mod settings;
mod usage;

use axum::Router;

/// Returns the pages that need somebody who is signed in.
pub fn routes() -> Router {
    Router::new()
        .merge(accounts::routes())
        .merge(audit::routes())
        .merge(audit_log::routes())
        .merge(billing::routes())
        .merge(explain::routes())
        .merge(free_credits::routes())
        .merge(grants::routes())
        .merge(help::routes())
        .merge(history::routes())
        .merge(keys::routes())
        .merge(limits::routes())
        .merge(messages::routes())
        .merge(notifications::routes())
        .merge(open::routes())
        .merge(overview::routes())
        .merge(people::routes())
        .merge(promo_codes::routes())
        .merge(rate_cards::routes())
        .merge(search::routes())
        .merge(settings::routes())
        .merge(usage::routes())
}
