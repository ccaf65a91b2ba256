//! Embed: the same figures inside other products: elements that a script defines, and pages for a frame.
//!
//! Nobody signs in here and no answer has figures: the script reads them from the API, with a member token that the page
//! around it gives.

use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result, bail};
use askama::Template;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use sha2::{Digest, Sha256};
use url::{Origin, Url};
use web::http::Problem;

use crate::files::File;
use crate::visit::Fields;

/// A page of another origin loads it at every visit, under one name: soon enough it asks whether it has changed.
const FRESH: HeaderValue = HeaderValue::from_static("public, max-age=600");
const ALLOW_ORIGIN: HeaderValue = HeaderValue::from_static("*");
const CROSS_ORIGIN: HeaderValue = HeaderValue::from_static("cross-origin");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const THEMES: [&str; 2] = ["light", "dark"];

/// A script under a name that stays.
struct Script {
    file: File,
    /// Weak: both encodings have it.
    tag: HeaderValue,
}

impl Script {
    fn new(plain: &'static [u8]) -> Script {
        let tag = format!("W/\"{}\"", hex::encode(&Sha256::digest(plain)[..16]));
        let tag = HeaderValue::try_from(tag).expect("hex is a header");
        Script { file: File::new("text/javascript; charset=utf-8", plain, Compression::best()), tag }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let shared = [
            (header::CACHE_CONTROL, FRESH),
            (header::ETAG, self.tag.clone()),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            // It says nothing about anybody: any page may load it, as a module and isolated too.
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW_ORIGIN),
            (RESOURCE_POLICY, CROSS_ORIGIN),
        ];
        if self.is_known(headers) {
            let varies = [(header::VARY, HeaderValue::from_static("accept-encoding"))];
            return (StatusCode::NOT_MODIFIED, shared, varies).into_response();
        }
        self.file.answer(headers, shared)
    }

    /// Returns whether the caller has this content already.
    fn is_known(&self, headers: &HeaderMap) -> bool {
        let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let ours = self.tag.to_str().map(strong).unwrap_or_default();
        let named = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|named| named.to_str().ok());
        named.flat_map(|named| named.split(',')).any(|named| named.trim() == "*" || strong(named) == ours)
    }
}

static ELEMENTS: LazyLock<Script> = LazyLock::new(|| Script::new(include_bytes!("../assets/embed.js")));
static FRAME: LazyLock<Script> = LazyLock::new(|| Script::new(include_bytes!("../assets/embed-frame.js")));

#[derive(Template)]
#[template(path = "embed.html")]
struct Page<'a> {
    title: &'a str,
    element: &'a str,
    account: &'a str,
    theme: &'a str,
}

/// The policy of the pages for a frame.
type Policy = Arc<HeaderValue>;

/// Returns the routes; pages of these origins may frame the pages.
pub fn routes(origins: &[String]) -> Result<Router> {
    let policy = Arc::new(policy(origins)?);
    Ok(Router::new()
        .route("/embed/credit-bar", get(credit_bar))
        .route("/embed/depleted", get(depleted))
        .with_state(policy)
        .route("/embed.js", get(|headers: HeaderMap| async move { ELEMENTS.answer(&headers) }))
        .route("/embed/frame.js", get(|headers: HeaderMap| async move { FRAME.answer(&headers) })))
}

async fn credit_bar(State(policy): State<Policy>, request: Request) -> Result<Response, Problem> {
    page(&policy, &request, "Credits", "ledger-credit-bar")
}

async fn depleted(State(policy): State<Policy>, request: Request) -> Result<Response, Problem> {
    page(&policy, &request, "Out of credits", "ledger-depleted")
}

fn page(policy: &HeaderValue, request: &Request, title: &str, element: &str) -> Result<Response, Problem> {
    let query = Fields::read(request.uri().query().unwrap_or_default().as_bytes());
    let (account, theme) = (query.get("account"), query.get("theme"));
    if account.is_empty() {
        return Err(Problem::bad_field("account", "required", "the page is of one account"));
    }
    let theme = THEMES.into_iter().find(|known| *known == theme).unwrap_or_default();
    let page = Page { title, element, account, theme }.render().map_err(Problem::internal)?;
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy.clone()),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Html(page)).into_response())
}

/// Returns the policy of the pages: they load this origin's scripts and figures, and the origins may frame them.
fn policy(origins: &[String]) -> Result<HeaderValue> {
    let origins: Vec<String> = origins
        .iter()
        .filter(|origin| !origin.is_empty())
        .map(|origin| read(origin))
        .collect::<Result<_>>()?;
    let ancestors = if origins.is_empty() { "'none'".to_owned() } else { origins.join(" ") };
    let policy = format!(
        "default-src 'none'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors {ancestors}"
    );
    HeaderValue::try_from(policy).context("the policy of the pages to embed is no header")
}

/// Reads an origin exactly as browsers send it; anything else would silently allow nothing, or add to the policy.
fn read(origin: &str) -> Result<String> {
    let url: Option<Url> = origin.parse().ok();
    match url.map(|url| url.origin()) {
        Some(known @ Origin::Tuple(..)) if known.ascii_serialization() == origin => Ok(origin.to_owned()),
        _ => {
            bail!("LEDGER_ALLOWED_ORIGINS has {origin:?}, which is no origin such as https://app.example.com")
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use tower::ServiceExt;

    use super::*;

    /// Most bytes of `embed.js` as it is sent.
    const GZIPPED_BYTES_MAX: usize = 10_000;

    async fn ask(origins: &[&str], path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, String) {
        let origins: Vec<String> = origins.iter().map(|origin| (*origin).to_owned()).collect();
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        let response = routes(&origins).expect("origins").oneshot(request).await.expect("served");
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, headers, String::from_utf8_lossy(&body).into_owned())
    }

    fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
        headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    #[test]
    fn the_script_is_small_and_needs_nothing() {
        assert!(ELEMENTS.file.gzipped.len() < GZIPPED_BYTES_MAX, "{} bytes", ELEMENTS.file.gzipped.len());
        let source = std::str::from_utf8(ELEMENTS.file.plain).expect("text");
        // What a strict policy of the page around it forbids.
        for forbidden in ["import ", "innerHTML", "eval(", "new Function", ".style.", "'style'", "http://cdn"]
        {
            assert!(!source.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn the_document_has_every_variable_part_and_event() {
        let document = include_str!("../../docs/embedding.md");
        for source in [ELEMENTS.file.plain, FRAME.file.plain] {
            let source = std::str::from_utf8(source).expect("text");
            for (start, prefix) in [("(--ledger-", "--ledger-"), ("part: '", ""), ("'ledger-", "ledger-")] {
                for rest in source.split(start).skip(1) {
                    let is_name = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '-';
                    let name: String = rest.chars().take_while(is_name).collect();
                    let named = [format!("`{prefix}{name}`"), format!("<{prefix}{name}")];
                    assert!(named.iter().any(|named| document.contains(named)), "{prefix}{name}");
                }
            }
        }
    }

    #[tokio::test]
    async fn any_page_may_load_the_script_and_asks_whether_it_has_changed() {
        let (status, headers, body) = ask(&[], "/embed.js", &[("origin", "https://app.example.test")]).await;
        assert!(status == StatusCode::OK && body.contains("ledger-credit-bar"), "{status} {body}");
        assert_eq!(text(&headers, "content-type"), "text/javascript; charset=utf-8");
        assert_eq!(text(&headers, "access-control-allow-origin"), "*");
        assert_eq!(text(&headers, "cross-origin-resource-policy"), "cross-origin");
        let tag = text(&headers, "etag");
        let strong = tag.trim_start_matches("W/");
        for known in [tag, strong, "\"other\", *", &format!("\"other\", {tag}")] {
            let (status, headers, body) = ask(&[], "/embed.js", &[("if-none-match", known)]).await;
            assert_eq!((status, body.as_str()), (StatusCode::NOT_MODIFIED, ""), "{known}");
            assert_eq!(text(&headers, "etag"), tag);
        }
        let (status, ..) = ask(&[], "/embed.js", &[("if-none-match", "\"other\"")]).await;
        assert_eq!(status, StatusCode::OK);
        let (_, headers, _) = ask(&[], "/embed/frame.js", &[("accept-encoding", "br, gzip")]).await;
        assert_eq!(text(&headers, "content-encoding"), "gzip");
    }

    async fn check(origins: &[&str], expected: &str) {
        let (status, headers, _) = ask(origins, "/embed/credit-bar?account=acme", &[]).await;
        assert_eq!(status, StatusCode::OK);
        let policy = text(&headers, "content-security-policy");
        let (rest, ancestors) = policy.split_once("frame-ancestors ").expect("named");
        assert_eq!(ancestors, expected);
        assert!(rest.contains("default-src 'none'") && !rest.contains("unsafe"), "{rest}");
    }

    #[tokio::test]
    async fn pages_of_the_allowed_origins_may_frame_and_no_others() {
        check(&[], "'none'").await;
        check(&[""], "'none'").await;
        check(&["https://app.example.test"], "https://app.example.test").await;
        let two = ["https://app.example.test", "http://localhost:3000"];
        check(&two, "https://app.example.test http://localhost:3000").await;
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for bad in [
            "*",
            "null",
            "app.example.test",
            "https://app.example.test/",
            "https://a.test; script-src *",
            "https://A.test",
            "data:x",
        ] {
            let error = routes(&[bad.to_owned()]).expect_err(bad).to_string();
            assert!(error.contains("LEDGER_ALLOWED_ORIGINS"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_page_is_of_one_account_and_takes_no_markup() {
        let (status, _, body) = ask(&[], "/embed/depleted?account=a%22%3E%3Cscript%3E&theme=dark", &[]).await;
        assert_eq!(status, StatusCode::OK);
        assert!(
            body.contains("<ledger-depleted account=\"a&#34;&#62;&#60;script&#62;\" theme=\"dark\">"),
            "{body}"
        );
        let (_, _, body) = ask(&[], "/embed/depleted?account=a&theme=%22x", &[]).await;
        assert!(body.contains("<ledger-depleted account=\"a\">"), "{body}");
        assert_eq!(ask(&[], "/embed/depleted", &[]).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    }
}
