//! Rate cards: publishes the next version, and shows those published.

use axum::Json;
use axum::extract::State;
use ledger_core::policy::rate_card::RateCard;
use ledger_core::request;
use ledger_core::value::id::RateCardId;
use ledger_core::value::schema::Cursor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use web::auth::{Action, Principal};
use web::http::{ETag, Path, Problem, Query, read_json};
use web::openapi::{self, Route, Sent, Tagged, get};

use crate::admission::rate_cards::{self, LastVersion, Publication, publish};
use crate::app::App;
use crate::paging::PageQuery;
use crate::request_context::{RequestContext, conditional};

/// Largest card in bytes: a thousand meters with several prices each.
pub const CARD_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "PublishedRateCard")]
pub struct Published {
    pub card: RateCardId,
    pub version: i32,
}

pub fn routes() -> Vec<Route<App>> {
    vec![
        openapi::put("/v1/rate-cards/{card}", put)
            .named("publishRateCard", "Publishes the next version of a rate card.")
            .says(
                "By the operator. The prices of the newest version again get its answer; those of an older one need \
                 `If-Match` with the newest version.",
            )
            .refuses(&["changed_meanwhile"])
            .with(conditional),
        get("/v1/rate-cards", list)
            .named("listRateCards", "Lists the rate cards with the last version of each.")
            .says("By the operator and auditors."),
        get("/v1/rate-cards/{card}", one)
            .named("getRateCard", "Returns a version of a rate card, by default the last.")
            .says("By the operator and auditors.")
            .refuses(&["rate_card_unknown"]),
    ]
}

/// `PUT /v1/rate-cards/{card}`
async fn put(
    State(app): State<App>,
    context: RequestContext,
    Path(card): Path<RateCardId>,
    sent: Sent<RateCard>,
) -> Result<Tagged<Json<Published>>, Problem> {
    context.principal.require_role(Action::RateCards)?;
    let value = read_json(sent.into_request(), CARD_BYTES_MAX).await?;
    let prices: RateCard = request::read(value).map_err(Problem::invalid)?;
    match publish(&app.pool, &card, &prices, &context.principal.key_id, context.if_match).await? {
        Publication::Published(version) => {
            Ok(Tagged(Json(Published { card, version }), Some(ETag::of_version(version))))
        }
        Publication::Older { has, newest } => {
            let detail = format!(
                "these are the prices of version {has}, and version {newest} is the newest: to publish them again, \
                 send If-Match: \"{newest}\""
            );
            Err(Problem::conflict(detail).with("version", has).with("newest", newest))
        }
    }
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "RateCardPage")]
pub struct Page {
    items: Vec<LastVersion>,
    /// The cursor of the next page; null at the end.
    #[schemars(with = "Option<Cursor>")]
    next_cursor: Option<String>,
}

/// `GET /v1/rate-cards`
async fn list(
    State(app): State<App>,
    principal: Principal,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page>, Problem> {
    principal.require_role(Action::Catalog)?;
    let size = query.size()?;
    let found = rate_cards::list(&app.pool, query.cursor.as_deref(), size.rows_to_ask()).await?;
    let (items, next_cursor) = size.cut(found, |last| last.card.clone());
    Ok(Json(Page { items, next_cursor }))
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OneQuery {
    /// None: the last.
    pub version: Option<i32>,
}

/// `GET /v1/rate-cards/{card}`
async fn one(
    State(app): State<App>,
    principal: Principal,
    Path(card): Path<RateCardId>,
    Query(query): Query<OneQuery>,
) -> Result<Tagged<Json<rate_cards::CardView>>, Problem> {
    principal.require_role(Action::Catalog)?;
    let found = rate_cards::one(&app.pool, &card, query.version).await?;
    let unknown = || Problem::not_found("rate_card_unknown", format!("there is no such version of {card}"));
    let (version, view) = found.ok_or_else(unknown)?;
    // The tag is that of the card, which a new version replaces; an older version is no state of it.
    let etag = query.version.is_none().then(|| ETag::of_version(version));
    Ok(Tagged(Json(view), etag))
}
