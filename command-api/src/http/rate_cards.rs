//! Rate cards: publishes the next version.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;
use ledger_core::policy::rate_card::RateCard;
use ledger_core::request;
use ledger_core::value::id::RateCardId;
use serde::Serialize;
use web::auth::Action;
use web::http::{Path, Problem, read_json};

use crate::admission::rate_cards::{Publication, publish};
use crate::app::App;
use crate::request_context::RequestContext;

/// Largest card in bytes: a thousand meters with several prices each.
pub const CARD_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    pub card: RateCardId,
    pub version: i32,
}

/// `PUT /v1/rate-cards/{card}`
pub async fn put(
    State(app): State<App>,
    context: RequestContext,
    Path(card): Path<RateCardId>,
    request: Request,
) -> Result<Json<Published>, Problem> {
    context.principal.require_role(Action::RateCards)?;
    let knows = known_version(request.headers());
    let value = read_json(request, CARD_BYTES_MAX).await?;
    let prices: RateCard = request::read(value).map_err(Problem::invalid)?;
    match publish(&app.pool, &card, &prices, &context.principal.key_id, knows).await? {
        Publication::Published(version) => Ok(Json(Published { card, version })),
        Publication::Older { has, newest } => {
            let detail = format!(
                "these are the prices of version {has}, and version {newest} is the newest: to publish them again, \
                 send If-Match: \"{newest}\""
            );
            Err(Problem::conflict(detail).with("version", has).with("newest", newest))
        }
    }
}

/// Returns the version that the caller says is the newest, by `If-Match`.
fn known_version(headers: &HeaderMap) -> Option<i32> {
    headers.get(IF_MATCH)?.to_str().ok()?.trim().trim_matches('"').parse().ok()
}
