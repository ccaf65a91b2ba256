//! Gives every route a span, metrics, and problem+json for all errors.

use std::any::Any;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use metrics::{gauge, histogram};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument, debug, error, info_span, warn};

use super::problem::Problem;

/// Completes a router, once and last: unknown routes, wrong methods and panics answer as problems, and each
/// request is measured under its route.
pub fn finish(router: Router) -> Router {
    finish_with(router, None)
}

/// The same with a page for browsers that ask for a path that does not exist; programs still get a problem.
pub fn finish_with(router: Router, not_found_page: Option<NotFoundPage>) -> Router {
    router
        .fallback(move |headers: HeaderMap| async move {
            match not_found_page {
                Some(page) if wants_html(&headers) => page(&headers),
                _ => Problem::not_found("not_found", "there is nothing at this path").into_response(),
            }
        })
        .method_not_allowed_fallback(|| async {
            let detail = "this path does not take this method";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
        })
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(middleware::from_fn(observe))
}

/// Makes the page of a path that does not exist, by the request's headers.
pub type NotFoundPage = fn(&HeaderMap) -> Response;

/// Returns whether the caller names HTML, as browsers do.
fn wants_html(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = accepts.flat_map(|value| value.split(','));
    ranges.any(|range| {
        range.split(';').next().is_some_and(|named| named.trim().eq_ignore_ascii_case("text/html"))
    })
}

fn answer_panic(panic: Box<dyn Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    error!(message, "a handler panicked");
    Problem::internal_without_cause().into_response()
}

async fn observe(request: Request, next: Next) -> Response {
    let method = method_name(request.method());
    // The pattern, not the path: the number of metrics must not depend on callers.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unknown".to_owned(), |path| path.as_str().to_owned());
    let span = info_span!("http.request", method, route);
    let started = Instant::now();
    let _in_flight = InFlight::new();
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    let seconds = started.elapsed().as_secs_f64();
    span.in_scope(|| note(status, seconds));
    histogram!("ledger_http_request_seconds", "method" => method, "route" => route, "status" => status.as_str().to_owned())
        .record(seconds);
    response
}

fn note(status: StatusCode, seconds: f64) {
    if status.is_server_error() {
        warn!(status = status.as_u16(), seconds, "answered");
    } else {
        debug!(status = status.as_u16(), seconds, "answered");
    }
}

/// Counts a request while it runs, even if its client disconnects.
struct InFlight;

impl InFlight {
    fn new() -> Self {
        gauge!("ledger_http_requests_in_flight").increment(1.0);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        gauge!("ledger_http_requests_in_flight").decrement(1.0);
    }
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use platform::telemetry;

    async fn panics() -> &'static str {
        panic!("the secret of the house")
    }

    async fn ask(method: &str, path: &str) -> (u16, String) {
        let routes = Router::new()
            .route("/accounts/{account}", get(|| async { "fine" }))
            .route("/panics", get(panics));
        let request = Request::builder().method(method).uri(path).body(Body::empty());
        let response = finish(routes).oneshot(request.expect("a request")).await.expect("an answer");
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 4096).await.expect("small");
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn check(method: &str, path: &str, status: u16, code: &str) {
        let (answered, body) = ask(method, path).await;
        let problem: Value = serde_json::from_str(&body).expect("a problem");
        assert_eq!((answered, problem["code"].as_str()), (status, Some(code)), "{body}");
        assert!(!body.contains("secret"), "{body}");
    }

    #[tokio::test]
    async fn whatever_goes_wrong_is_a_problem() {
        check("GET", "/nowhere", 404, "not_found").await;
        check("DELETE", "/accounts/acme", 405, "method_not_allowed").await;
        check("GET", "/panics", 500, "internal").await;
    }

    #[tokio::test]
    async fn requests_are_measured_under_their_route_not_their_path() {
        let recorder = telemetry::metrics().expect("installed");
        ask("GET", "/accounts/acme").await;
        ask("BREW", "/tea/for/two").await;
        let page = recorder.render();
        assert!(page.contains(r#"route="/accounts/{account}""#), "{page}");
        assert!(page.contains(r#"method="other",route="unknown""#), "{page}");
        assert!(!page.contains("tea"), "{page}");
    }
}
