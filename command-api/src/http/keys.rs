//! Keys: creates, lists and revokes API keys.
//!
//! The first answer shows the secret, which is stored nowhere, so the answer to a repeat omits it. A caller who lost
//! the first answer revokes that key and creates another under a new `Idempotency-Key`.

use axum::Json;
use axum::extract::State;
use ledger_core::value::schema::{Cursor, Secret};
use ledger_core::value::time::Time;
use platform::pg::{self, PgConnection};
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest, Sha256};
use web::auth::{self, Action, Key, NewKey};
use web::http::{Path, Problem, Query};
use web::openapi::{Created, Route, Sent, delete, get, post};

use crate::app::App;
use crate::paging::PageQuery;
use crate::request_context::{RequestContext, keyed};
use crate::write::idempotency;

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/keys", create)
            .named("createKey", "Creates a key.")
            .says("By the operator. The secret is shown once: the answer to a repeat has none.")
            .with(keyed),
        get("/v1/keys", list)
            .named("listKeys", "Lists the keys, without their secrets.")
            .says("By the operator."),
        delete("/v1/keys/{key}", revoke)
            .named("revokeKey", "Ends a key.")
            .says("By the operator. Its open streams end within 5 s.")
            .refuses(&["key_not_found"]),
    ]
}

/// `POST /v1/keys`
async fn create(
    State(app): State<App>,
    context: RequestContext,
    sent: Sent<NewKey>,
) -> Result<Created<Made>, Problem> {
    context.principal.require_role(Action::Keys)?;
    let key = context.idempotency_key()?.to_string();
    let new: NewKey = sent.read().await?;
    let (by, now) = (context.principal.key_id.to_string(), context.now);
    let lock = format!("key/{key}");
    let creating = app.write(&lock, move |connection| Box::pin(create_once(connection, key, new, by, now)));
    let answer = creating.await?;
    Ok(web::openapi::Created(answer))
}

/// The answer to the creation of a key.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "CreatedKey")]
pub struct Made {
    #[serde(flatten)]
    #[schemars(with = "Key")]
    key: serde_json::Value,
    /// Null in the answer to a repeat.
    #[schemars(with = "Option<Secret>")]
    secret: Option<String>,
}

async fn create_once(
    connection: &mut PgConnection,
    name: String,
    new: NewKey,
    by: String,
    now: Time,
) -> Result<Made, Problem> {
    let content = Sha256::digest(serde_json::to_vec(&new).map_err(Problem::internal)?).to_vec();
    if !idempotency::claim_key(connection, &name, &content).await? {
        return first_answer(connection, &name, &content).await;
    }
    new.check_expiry(now).map_err(|error| Problem::invalid(vec![error]))?;
    let created = auth::create_key(connection, &new, &by, now).await?;
    let key = serde_json::to_value(&created.key).map_err(Problem::internal)?;
    idempotency::keep_answer(connection, &name, &key.to_string()).await?;
    Ok(Made { key, secret: Some(created.secret) })
}

async fn first_answer(connection: &mut PgConnection, name: &str, content: &[u8]) -> Result<Made, Problem> {
    let first = idempotency::first_answer(connection, name).await?;
    if first.content != content {
        return Err(Problem::conflict("this Idempotency-Key was used before, with other content"));
    }
    Ok(Made { key: serde_json::from_str(&first.answer).map_err(Problem::internal)?, secret: None })
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "KeyPage")]
pub struct Page {
    pub items: Vec<Key>,
    /// The cursor of the next page; null at the end.
    #[schemars(with = "Option<Cursor>")]
    pub next_cursor: Option<String>,
}

/// `GET /v1/keys`
async fn list(
    State(app): State<App>,
    principal: auth::Principal,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page>, Problem> {
    principal.require_role(Action::Keys)?;
    let size = query.size()?;
    let found = auth::list_keys(pg::bounded(&app.pool), query.cursor.as_deref(), size.rows_to_ask()).await?;
    let (items, next_cursor) = size.cut(found, |last| last.key_id.clone());
    Ok(Json(Page { items, next_cursor }))
}

/// `DELETE /v1/keys/{key}`
async fn revoke(
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
