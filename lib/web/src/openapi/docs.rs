//! The page that shows the document to people: a viewer that is part of the program, so that it works offline.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

const PAGE: &str = include_str!("../../assets/docs.html");
/// RapiDoc 9.3.8, as published; its licences are beside it.
const VIEWER: &str = include_str!("../../assets/rapidoc/rapidoc-min.js");
/// Everything comes from here. The viewer writes styles into its elements.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Returns `/docs` and what it loads; neither requires a key.
pub fn router() -> Router {
    Router::new()
        .route("/docs", get(async || asset("text/html; charset=utf-8", PAGE)))
        .route("/docs/viewer.js", get(async || asset("text/javascript; charset=utf-8", VIEWER)))
}

fn asset(media_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::extract::Request;
    use tower::ServiceExt;

    use super::*;

    async fn ask(path: &str) -> (String, String) {
        let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
        let response = router().oneshot(request).await.expect("an answer");
        assert_eq!(response.status(), 200, "{path}");
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("text").to_owned();
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("below 1 MiB");
        (policy, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn the_page_loads_nothing_from_elsewhere() {
        let (policy, page) = ask("/docs").await;
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        let loaded: Vec<&str> =
            page.split("src=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(loaded, ["/docs/viewer.js"]);
        assert!(!page.contains("<style") && !page.contains("http"), "{page}");
        let (_, viewer) = ask("/docs/viewer.js").await;
        assert!(viewer.contains("rapi-doc") && viewer.len() < 1_000_000);
    }
}
