//! Live: passes an account's stream of changes on to a page.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::account::path_of;
use crate::api::Failure;
use crate::visit::Visit;

const EVENTS: &str = "text/event-stream";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub fn routes() -> Router {
    Router::new().route("/accounts/{account}/live", get(follow))
}

async fn follow(visit: Visit, Path(account): Path<String>, headers: HeaderMap) -> Result<Response, Failure> {
    let last = headers.get(LAST_EVENT_ID).map(|id| (LAST_EVENT_ID, id.clone()));
    let path = format!("{}/stream", path_of(&account));
    let stream = visit.api.pass(&path, EVENTS, last.into_iter().collect()).await?;
    // A proxy in front must not wait for more.
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(EVENTS)),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, stream.into_body()).into_response())
}
