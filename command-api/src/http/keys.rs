//! Keys: creates, lists and revokes API keys.
//!
//! The first answer shows the secret, which is stored nowhere, so the answer to a repeat omits it. A caller who lost
//! the first answer revokes that key and creates another under a new `Idempotency-Key`.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ledger_core::value::time::Time;
use platform::pg::{self, PgConnection};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use web::auth::{self, Action, Key, NewKey};
use web::http::{Path, Problem, Query, read_body};

use crate::app::App;
use crate::request_context::RequestContext;
use crate::write::idempotency;

/// Keys per page by default.
const LISTED: i64 = 50;
const LISTED_MAX: i64 = 500;

/// `POST /v1/keys`
pub async fn create(
    State(app): State<App>,
    context: RequestContext,
    request: Request,
) -> Result<Response, Problem> {
    context.principal.require_role(Action::Keys)?;
    let key = context.idempotency_key()?.to_string();
    let new: NewKey = read_body(request).await?;
    let (by, now) = (context.principal.key_id.to_string(), context.now);
    let lock = format!("key/{key}");
    let creating = app.write(&lock, move |connection| Box::pin(create_once(connection, key, new, by, now)));
    let answer = creating.await?;
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// The answer to the creation of a key.
#[derive(Debug, Clone, Serialize)]
struct Created {
    #[serde(flatten)]
    key: serde_json::Value,
    /// Null in the answer to a repeat.
    secret: Option<String>,
}

async fn create_once(
    connection: &mut PgConnection,
    name: String,
    new: NewKey,
    by: String,
    now: Time,
) -> Result<Created, Problem> {
    let content = Sha256::digest(serde_json::to_vec(&new).map_err(Problem::internal)?).to_vec();
    if !idempotency::claim_key(connection, &name, &content).await? {
        return first_answer(connection, &name, &content).await;
    }
    new.check_expiry(now).map_err(|error| Problem::invalid(vec![error]))?;
    let created = auth::create_key(connection, &new, &by, now).await?;
    let key = serde_json::to_value(&created.key).map_err(Problem::internal)?;
    idempotency::keep_answer(connection, &name, &key.to_string()).await?;
    Ok(Created { key, secret: Some(created.secret) })
}

async fn first_answer(connection: &mut PgConnection, name: &str, content: &[u8]) -> Result<Created, Problem> {
    let first = idempotency::first_answer(connection, name).await?;
    if first.content != content {
        return Err(Problem::conflict("this Idempotency-Key was used before, with other content"));
    }
    Ok(Created { key: serde_json::from_str(&first.answer).map_err(Problem::internal)?, secret: None })
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    pub limit: Option<i64>,
    /// The `next_cursor` of the previous page.
    pub cursor: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Page {
    pub items: Vec<Key>,
    /// The cursor of the next page; null at the end.
    pub next_cursor: Option<String>,
}

/// `GET /v1/keys`
pub async fn list(
    State(app): State<App>,
    principal: auth::Principal,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page>, Problem> {
    principal.require_role(Action::Keys)?;
    let limit = query.limit.unwrap_or(LISTED);
    if !(1..=LISTED_MAX).contains(&limit) {
        return Err(Problem::bad_field("limit", "out_of_range", "must be 1 to 500"));
    }
    let mut items = auth::list_keys(pg::bounded(&app.pool), query.cursor.as_deref(), limit + 1).await?;
    let limit = usize::try_from(limit).map_err(Problem::internal)?;
    let has_more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| has_more).map(|last| last.key_id.clone());
    Ok(Json(Page { items, next_cursor }))
}

/// `DELETE /v1/keys/{key}`
pub async fn revoke(
    State(app): State<App>,
    context: RequestContext,
    Path(key_id): Path<String>,
) -> Result<Json<Key>, Problem> {
    context.principal.require_role(Action::Keys)?;
    let (name, now) = (key_id.clone(), context.now);
    let lock = format!("key/{key_id}");
    let revoked = app.write(&lock, move |connection| {
        Box::pin(async move { auth::revoke_key(connection, &name, now).await })
    });
    let revoked = revoked.await.map_err(Problem::from)?;
    revoked.map(Json).ok_or_else(|| Problem::not_found("key_not_found", format!("there is no key {key_id}")))
}
