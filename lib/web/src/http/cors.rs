//! CORS: lets pages of allowed origins read with member tokens. Keys never get an answer in a browser.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

/// How every member token begins.
pub const MEMBER_TOKEN_PREFIX: &str = "ldm_";
/// What a page may do with a member token.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");
const HEADERS: HeaderValue = HeaderValue::from_static("authorization, accept, last-event-id");
/// Answer headers that a page may read.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("ledger-position, ledger-recorded-at, next-cursor, retry-after, etag");
/// Seconds that a browser remembers the answer to a preflight.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const REQUEST_METHOD: HeaderName = header::ACCESS_CONTROL_REQUEST_METHOD;

/// Adds the answers for these origins; without any, nothing is added.
pub(super) fn allow(router: Router, origins: &[String]) -> Router {
    if origins.is_empty() {
        return router;
    }
    let origins: Arc<[String]> = origins.into();
    router.layer(middleware::from_fn(move |request, next| answer(Arc::clone(&origins), request, next)))
}

async fn answer(origins: Arc<[String]>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let is_allowed = origin
        .as_ref()
        .and_then(|origin| origin.to_str().ok())
        .is_some_and(|origin| origins.iter().any(|allowed| allowed == origin));
    let preflight = request.method() == Method::OPTIONS && request.headers().contains_key(REQUEST_METHOD);
    let by_member = has_member_token(request.headers());
    let mut response = if is_allowed && preflight {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin.filter(|_| is_allowed && (preflight || by_member)) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if preflight {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        } else {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
    response
}

fn has_member_token(headers: &HeaderMap) -> bool {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| value.split_once(' ')).map(|(_, token)| token.trim_start());
    token.is_some_and(|token| token.starts_with(MEMBER_TOKEN_PREFIX))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    const PAGE: &str = "https://app.example.test";

    async fn check(headers: &[(&str, &str)], method: &str, expected: (u16, Option<&str>)) {
        let router = allow(Router::new().route("/", get(|| async { "fine" })), &[PAGE.to_owned()]);
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = router.oneshot(request.body(Body::empty()).expect("a request")).await.expect("served");
        let allowed = response.headers().get("access-control-allow-origin");
        let allowed = allowed.map(|value| value.to_str().expect("text"));
        assert_eq!((response.status().as_u16(), allowed), expected, "{method} {headers:?}");
    }

    #[tokio::test]
    async fn pages_of_allowed_origins_read_with_member_tokens_only() {
        let (page, other) = (("origin", PAGE), ("origin", "https://other.example.test"));
        let token = ("authorization", "Bearer ldm_a.b");
        let key = ("authorization", "Bearer ldg_0123456789abcdef_x");
        let preflight = ("access-control-request-method", "GET");
        check(&[page, preflight], "OPTIONS", (204, Some(PAGE))).await;
        check(&[other, preflight], "OPTIONS", (405, None)).await;
        check(&[page, token], "GET", (200, Some(PAGE))).await;
        check(&[page, key], "GET", (200, None)).await;
        check(&[other, token], "GET", (200, None)).await;
        check(&[token], "GET", (200, None)).await;
    }
}
