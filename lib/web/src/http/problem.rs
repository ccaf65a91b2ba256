//! Every error of the API, as problem+json with a stable code.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
pub use ledger_core::event::field_error::FieldError;
use ledger_core::fold::Reason;
use ledger_core::value::time::Time;
use platform::position::Position;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tracing::{error, warn};

use platform::pg;

/// Code of the problem that an account is halted.
pub const ACCOUNT_HALTED: &str = "account_halted";

/// `Retry-After` if the log or the database is unavailable: a restart takes seconds, not minutes.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Codes that any operation may answer with; its own ones stand at each operation.
const COMMON_CODES: &str = "invalid, not_json, bad_request, unauthorized, forbidden, not_found, account_not_found, account_closed, conflict, clock_is_live, changed_meanwhile, too_large, unsupported_media_type, request_timeout, too_many_requests, behind, account_halted, unavailable, internal";

/// The code of a problem, for the documents.
struct Code;

impl JsonSchema for Code {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Code".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let reasons: Vec<&str> = Reason::ALL.iter().map(Reason::code).collect();
        let said = format!(
            "Says what happened; codes are never renamed. Of any operation: {COMMON_CODES}. Of a write that the \
             journal has and the fold rejects: {}. An operation's own codes stand in its description.",
            reasons.join(", ")
        );
        json_schema!({"type": "string", "description": said})
    }
}

/// The body of a problem, for the documents.
#[derive(JsonSchema)]
#[schemars(rename = "Problem", extend("additionalProperties" = true))]
#[allow(dead_code, reason = "stands for its schema")]
pub struct ProblemBody {
    r#type: String,
    title: String,
    status: u16,
    #[schemars(with = "Code")]
    code: String,
    /// A sentence for people.
    detail: String,
    /// With `invalid`: every bad field.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<FieldError>>,
    /// With `conflict`: the fields that differ from what came before, without their values.
    #[serde(skip_serializing_if = "Option::is_none")]
    differs: Option<Vec<String>>,
    /// With `account_halted`: the worker that can't go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    halted_by: Option<String>,
    /// With `account_halted`: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The record that is refused, or that halts the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
    /// With `account_halted`: since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Time>,
}

/// An error response: status, stable code, a sentence, and extra fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub status: StatusCode,
    /// Stable code; the title is made from it.
    pub code: &'static str,
    /// A sentence for the reader.
    pub detail: String,
    /// Extra fields, such as `available` and `resets_at`.
    pub fields: Map<String, Value>,
    /// One entry per bad field, for 422.
    pub errors: Vec<FieldError>,
    /// `Retry-After`, in seconds.
    pub retry_after_seconds: Option<u32>,
}

impl Problem {
    /// Makes a problem; codes are never renamed.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            fields: Map::new(),
            errors: Vec::new(),
            retry_after_seconds: None,
        }
    }

    /// Adds an extra field.
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        self.fields.insert(name.to_owned(), value);
        self
    }

    pub fn retry_after(mut self, wait: Duration) -> Self {
        let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_after_seconds = Some(u32::try_from(whole.max(1)).unwrap_or(u32::MAX));
        self
    }

    /// 400: the body is not JSON.
    pub fn not_json(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "not_json", detail)
    }

    /// 400: the request is malformed.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// 401: no key, or an unknown one.
    pub fn unauthorized() -> Self {
        let detail = "send a valid API key as Authorization: Bearer <key>";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// 402: the team's balance does not cover it.
    pub fn credits_exhausted(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYMENT_REQUIRED, "credits_exhausted", detail)
    }

    /// 402: the user's own limit does not cover it.
    pub fn user_limit_reached(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYMENT_REQUIRED, "user_limit_reached", detail)
    }

    /// 403: not allowed by role or account; the same whether or not the account exists.
    pub fn forbidden() -> Self {
        let detail = "this key may not do that";
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404 with its own code, such as `event_not_found`.
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 404: the account does not exist.
    pub fn account_not_found(account: &str) -> Self {
        let detail = format!("account {account} does not exist");
        Self::not_found("account_not_found", detail)
    }

    /// 409: the same id or key was used with other content.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::conflicting("conflict", detail)
    }

    /// 409 with its own code, such as `clock_is_live` or `hold_ended`.
    pub fn conflicting(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 413: the body is too large.
    pub fn too_large(bytes_max: usize) -> Self {
        let detail = format!("at most {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// 415: a content type that is not accepted, or none.
    pub fn unsupported_media_type(accepted: &str) -> Self {
        let detail = format!("send Content-Type: {accepted}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    /// 422: one entry per bad field.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] => format!("{}: {}", one.field, one.detail),
            many => format!("{} fields are not as they should be", many.len()),
        };
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail);
        problem.errors = errors;
        problem
    }

    /// 422 for a single field.
    pub fn bad_field(field: &str, code: &str, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError::new(field, code, detail)])
    }

    /// 422 with its own code, such as `unpriced_usage`, `too_old` or a rejection's reason.
    pub fn unprocessable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// 429: too many concurrent requests from this caller.
    pub fn too_many_requests(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail)
            .retry_after(Duration::from_secs(RETRY_AFTER_SECONDS.into()))
    }

    /// 503: the log or the database is temporarily unavailable.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::not_now("unavailable", detail)
    }

    /// 503: the read model has not reached the requested position.
    pub fn behind(detail: impl Into<String>) -> Self {
        Self::not_now("behind", detail)
    }

    /// 503: the account is halted until a newer binary runs, or until an operator resumes it.
    pub fn account_halted(account: &str) -> Self {
        let detail =
            format!("account {account} is halted: an event of it can't be folded, and its operator is told");
        Self::not_now(ACCOUNT_HALTED, detail)
    }

    /// 503 with its own code.
    pub fn not_now(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
            .retry_after(Duration::from_secs(RETRY_AFTER_SECONDS.into()))
    }

    /// 500: an internal error; the cause is only logged.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        error!(%cause, "request failed");
        Self::internal_without_cause()
    }

    pub(super) fn internal_without_cause() -> Self {
        let detail = "something went wrong on our side";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// Returns the response body.
    pub fn body(&self) -> Value {
        let mut body = json!({
            "type": "about:blank",
            "title": title(self.code),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        if let Value::Object(object) = &mut body {
            object.extend(self.fields.clone());
            if !self.errors.is_empty() {
                object.insert("errors".to_owned(), json!(self.errors));
            }
        }
        body
    }
}

/// Makes the title of a code: `credits_exhausted` reads `Credits exhausted`.
fn title(code: &str) -> String {
    let mut words = code.replace('_', " ");
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    words
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/problem+json");
        let body = self.body().to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, json)], body).into_response();
        let headers = response.headers_mut();
        // What is missing now may be there in a second.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        if pg::is_unavailable(&error) {
            warn!(%error, "database can't take it now");
            return Self::unavailable("the database can't take it now");
        }
        Self::internal(error)
    }
}

impl From<pg::Error> for Problem {
    fn from(error: pg::Error) -> Self {
        match error {
            pg::Error::Database(error) => error.into(),
            other @ (pg::Error::MigrationChanged { .. }
            | pg::Error::MigrationUnknown { .. }
            | pg::Error::MigrationMissing { .. }
            | pg::Error::NotMigrated
            | pg::Error::RoleTooMighty(_)
            | pg::Error::GenerationExists(_)
            | pg::Error::GenerationMissing(_)
            | pg::Error::GenerationLive(_)) => Self::internal(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn a_problem_says_what_the_case_needs() {
        let problem = Problem::credits_exhausted("Your team has used all its credits.")
            .with("available", "1.2")
            .with("resets_at", None::<String>);
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::PAYMENT_REQUIRED);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let body = to_bytes(response.into_body(), 1024).await.expect("small");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let expected = json!({
            "type": "about:blank", "title": "Credits exhausted", "status": 402, "code": "credits_exhausted",
            "detail": "Your team has used all its credits.", "available": "1.2", "resets_at": null,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn bad_fields_are_listed_one_by_one() {
        let body = Problem::invalid(vec![
            FieldError::new("plan.anchor", "not_a_time", "an RFC 3339 time"),
            FieldError::new("amount", "negative", "must not be negative"),
        ])
        .body();
        assert_eq!(body["status"], 422);
        assert_eq!(body["code"], "invalid");
        assert_eq!(
            body["errors"][0],
            json!({"field": "plan.anchor", "code": "not_a_time", "detail": "an RFC 3339 time"})
        );
        assert_eq!(body["errors"][1]["field"], "amount");
    }

    #[test]
    fn what_may_work_later_says_when() {
        for problem in [
            Problem::too_many_requests("slow down"),
            Problem::unavailable("the log is away"),
            sqlx::Error::PoolTimedOut.into(),
        ] {
            let response = problem.into_response();
            assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        }
    }

    #[test]
    fn a_failure_of_ours_tells_its_cause_to_the_log_alone() {
        let body = Problem::internal("relation secret does not exist").body();
        assert_eq!(body["status"], 500);
        assert!(!body.to_string().contains("secret"));
    }
}
