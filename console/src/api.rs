//! API: the client through which every page reads and writes.
//!
//! Requests go to the routes of this process, and those that it does not serve to the address of the writes.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tower::ServiceExt;
use tracing::warn;
use url::Url;
use web::http::Peer;

/// Largest answer that a page reads, in bytes; lists have at most 500 rows.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Where a request goes whose place is only a path.
const PLACE: &str = "http://ledger";

/// The routes of this process, and where those are that it has not.
#[derive(Clone)]
pub struct Api {
    routes: Router,
    elsewhere: Option<Arc<Elsewhere>>,
}

struct Elsewhere {
    url: Url,
    client: reqwest::Client,
}

/// The API with somebody's key.
#[derive(Clone)]
pub struct Client {
    api: Api,
    bearer: HeaderValue,
    peer: Option<Peer>,
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub struct List<T> {
    pub items: Vec<T>,
    pub next_cursor: Option<String>,
}

/// A field that is wrong, by its path in the body.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FieldError {
    pub field: String,
    pub detail: String,
}

/// A problem of the API, as a page tells it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Failure {
    #[serde(deserialize_with = "status_of")]
    pub status: StatusCode,
    pub code: String,
    #[serde(default)]
    pub title: Box<str>,
    #[serde(default)]
    pub detail: String,
    /// One entry per bad field.
    #[serde(default)]
    pub errors: Vec<FieldError>,
    /// Fields of the case, such as `since`.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

fn status_of<'de, D: serde::Deserializer<'de>>(from: D) -> Result<StatusCode, D::Error> {
    StatusCode::from_u16(u16::deserialize(from)?).map_err(serde::de::Error::custom)
}

impl Failure {
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Failure {
        let title = code.replace('_', " ");
        let title = (title[..1].to_uppercase() + &title[1..]).into();
        let (code, detail) = (code.to_owned(), detail.into());
        Failure { status, code, title, detail, errors: Vec::new(), fields: Map::new() }
    }

    fn unreadable(cause: impl std::fmt::Display) -> Failure {
        warn!(%cause, "the API's answer can't be read");
        Failure::new(StatusCode::BAD_GATEWAY, "unreadable", "the ledger's answer can't be read")
    }

    pub fn not_found(detail: &str) -> Failure {
        Failure::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// Returns whether the same may work in a moment.
    pub fn is_temporary(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE || self.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// Returns whether a form was filled in wrongly, or refused by a rule, so that it is shown again.
    pub fn is_about_form(&self) -> bool {
        matches!(self.status.as_u16(), 402 | 404 | 409 | 412 | 413 | 422)
    }

    /// Returns what is wrong with a field of this path, or with one below it.
    pub fn of_field(&self, path: &str) -> Option<&str> {
        let is_it = |field: &str| {
            field.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.errors.iter().find(|error| is_it(&error.field)).map(|error| error.detail.as_str())
    }
}

/// Returns what is wrong with a field, empty where nothing is.
pub fn wrong<'a>(failure: Option<&'a Failure>, field: &str) -> &'a str {
    failure.and_then(|failure| failure.of_field(field)).unwrap_or_default()
}

impl Api {
    /// `elsewhere` serves what `routes` do not.
    pub fn new(routes: Router, elsewhere: Option<(Url, reqwest::Client)>) -> Api {
        let elsewhere = elsewhere.map(|(url, client)| Arc::new(Elsewhere { url, client }));
        Api { routes, elsewhere }
    }

    /// Returns the API as the holder of this key has it; none if no key looks like this.
    pub fn with_key(&self, key: &str, peer: Option<Peer>) -> Option<Client> {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {key}")).ok()?;
        bearer.set_sensitive(true);
        Some(Client { api: self.clone(), bearer, peer })
    }

    async fn send(&self, asked: Asked, peer: Option<Peer>) -> Result<Response, Failure> {
        let mut request = Request::new(Body::from(asked.body.clone()));
        *request.method_mut() = asked.method.clone();
        *request.uri_mut() = format!("{PLACE}{}", asked.path).parse().map_err(Failure::unreadable)?;
        *request.headers_mut() = asked.headers.clone();
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let response = match self.routes.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if is_served(&response) {
            return Ok(response);
        }
        match &self.elsewhere {
            Some(elsewhere) => elsewhere.send(asked).await,
            None => Err(Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "reads_only",
                "this address only reads; LEDGER_COMMAND_URL names the one that writes",
            )),
        }
    }
}

/// Returns whether a route has answered: one that does not exist has no problem to tell.
fn is_served(response: &Response) -> bool {
    let unserved = matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
    !unserved || response.headers().contains_key(header::CONTENT_TYPE)
}

impl Elsewhere {
    async fn send(&self, asked: Asked) -> Result<Response, Failure> {
        let url = format!("{}{}", self.url.as_str().trim_end_matches('/'), asked.path);
        let request = self.client.request(asked.method, url).headers(asked.headers).body(asked.body);
        let response = request.send().await.map_err(|error| {
            warn!(%error, "the address of the writes does not answer");
            let detail =
                "the address that writes does not answer; it may not be known whether this was stored";
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
        })?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut answer = Response::new(Body::from_stream(response.bytes_stream()));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }
}

/// A request before it is known where it goes.
struct Asked {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// A write that is made up of its parts.
pub struct Write<'a> {
    client: &'a Client,
    asked: Asked,
}

impl Client {
    fn ask(&self, method: Method, path: &str) -> Write<'_> {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, self.bearer.clone())]);
        let asked = Asked { method, path: path.to_owned(), headers, body: Vec::new() };
        Write { client: self, asked }
    }

    /// Reads an object or a page.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.get_tagged(path).await.map(|(found, _)| found)
    }

    /// Reads a setting and its `ETag`, empty where there is none, to send as `If-Match`.
    pub async fn get_tagged<T: DeserializeOwned>(&self, path: &str) -> Result<(T, String), Failure> {
        let response = ok(self.ask(Method::GET, path).answer().await?).await?;
        let tag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
        let tag = tag.unwrap_or_default().to_owned();
        let bytes = to_bytes(response.into_body(), ANSWER_BYTES_MAX).await.map_err(Failure::unreadable)?;
        Ok((serde_json::from_slice(&bytes).map_err(Failure::unreadable)?, tag))
    }

    /// Returns the answer as it comes: a list as CSV, or a stream of events.
    pub async fn pass(&self, path: &str, accept: &'static str, more: HeaderMap) -> Result<Response, Failure> {
        let mut asked = self.ask(Method::GET, path);
        asked.asked.headers.extend(more);
        asked.asked.headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        ok(asked.answer().await?).await
    }

    /// Passes a list on as the API writes it for spreadsheets, to be saved under this name.
    pub async fn csv(&self, path: &str, name: &str) -> Result<Response, Failure> {
        let mut response = self.pass(path, "text/csv", HeaderMap::new()).await?;
        let saved = format!("attachment; filename=\"{name}\"");
        let saved = HeaderValue::try_from(saved).map_err(Failure::unreadable)?;
        response.headers_mut().insert(header::CONTENT_DISPOSITION, saved);
        Ok(response)
    }

    pub fn post(&self, path: &str) -> Write<'_> {
        self.ask(Method::POST, path)
    }

    pub fn put(&self, path: &str) -> Write<'_> {
        self.ask(Method::PUT, path)
    }

    pub fn patch(&self, path: &str) -> Write<'_> {
        self.ask(Method::PATCH, path)
    }

    pub fn delete(&self, path: &str) -> Write<'_> {
        self.ask(Method::DELETE, path)
    }
}

impl Write<'_> {
    pub fn json(mut self, body: &Value) -> Self {
        self.asked.body = body.to_string().into_bytes();
        let json = HeaderValue::from_static("application/json");
        self.asked.headers.insert(header::CONTENT_TYPE, json);
        self
    }

    fn with(mut self, name: header::HeaderName, value: &str) -> Self {
        if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_str(value)) {
            self.asked.headers.insert(name, value);
        }
        self
    }

    /// Refuses the write if the setting has changed since it was read with this tag.
    pub fn if_match(self, tag: &str) -> Self {
        self.with(header::IF_MATCH, tag)
    }

    /// Makes a repetition of the same form count once.
    pub fn once(self, key: &str) -> Self {
        self.with(header::HeaderName::from_static("idempotency-key"), key)
    }

    /// Sends it, and returns the answer; null where it has no body.
    pub async fn send(self) -> Result<Value, Failure> {
        let response = ok(self.answer().await?).await?;
        let bytes = to_bytes(response.into_body(), ANSWER_BYTES_MAX).await.map_err(Failure::unreadable)?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(Failure::unreadable)
    }

    async fn answer(self) -> Result<Response, Failure> {
        self.client.api.send(self.asked, self.client.peer).await
    }
}

/// Returns the answer, or the problem that it is.
async fn ok(response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let bytes = to_bytes(response.into_body(), ANSWER_BYTES_MAX).await.map_err(Failure::unreadable)?;
    let problem = serde_json::from_slice::<Failure>(&bytes);
    Err(problem.unwrap_or_else(|error| Failure { status, ..Failure::unreadable(error) }))
}

#[cfg(test)]
mod tests {
    use axum::Json;
    use axum::routing::get;
    use serde_json::json;
    use web::http::Problem;

    use super::*;

    fn client() -> Client {
        let routes = Router::new()
            .route("/v1/thing", get(|| async { ([("etag", "\"a\"")], Json(json!({"id": "x"}))) }))
            .route(
                "/v1/bad",
                get(|| async { Problem::bad_field("plan.cap", "negative", "must be 0 or more") }),
            )
            .route("/v1/none", get(|| async { Problem::not_found("thing_not_found", "no such thing") }));
        Api::new(routes, None).with_key("k", None).expect("a key")
    }

    #[tokio::test]
    async fn an_answer_comes_with_its_tag() {
        let (found, tag) = client().get_tagged::<Value>("/v1/thing").await.expect("found");
        assert_eq!((found["id"].as_str(), tag.as_str()), (Some("x"), "\"a\""));
    }

    #[tokio::test]
    async fn a_problem_names_its_fields() {
        let failure = client().get::<Value>("/v1/bad").await.expect_err("refused");
        assert_eq!((failure.status.as_u16(), failure.code.as_str()), (422, "invalid"));
        assert_eq!(failure.of_field("plan.cap"), Some("must be 0 or more"));
        assert_eq!((failure.of_field("plan"), failure.of_field("pl")), (Some("must be 0 or more"), None));
    }

    #[tokio::test]
    async fn a_route_that_is_elsewhere_is_not_a_thing_that_does_not_exist() {
        let client = client();
        let missing = client.get::<Value>("/v1/none").await.expect_err("missing");
        assert_eq!(missing.code, "thing_not_found");
        for elsewhere in [client.get::<Value>("/v1/keys").await, client.post("/v1/thing").send().await] {
            assert_eq!(elsewhere.expect_err("not here").code, "reads_only");
        }
    }
}
