//! Rate cards: publishes the next version.

use axum::Json;
use axum::extract::{Request, State};
use ledger_core::policy::rate_card::RateCard;
use ledger_core::request;
use ledger_core::value::id::RateCardId;
use serde::Serialize;
use web::auth::Action;
use web::http::{Path, Problem, read_json};

use crate::admission::rate_cards::publish;
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
    let value = read_json(request, CARD_BYTES_MAX).await?;
    let prices: RateCard = request::read(value).map_err(Problem::invalid)?;
    let version = publish(&app.pool, &card, &prices, &context.principal.key_id).await?;
    Ok(Json(Published { card, version }))
}
