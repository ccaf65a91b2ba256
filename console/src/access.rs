//! Access: checks the session, the form token and the origin of every request, and protects every answer.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use flate2::Compression;
use platform::clock;
use subtle::ConstantTimeEq;
use web::http::Peer;

use crate::api::Failure;
use crate::app::App;
use crate::cookie;
use crate::errors;
use crate::files::{gzip, takes_gzip};
use crate::form::{from_here, read_fields};
use crate::visit::{Fields, Form, Visit, Who};

/// Largest page that is compressed in memory, in bytes.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A smaller page would not gain.
const GZIP_BYTES_MIN: usize = 1_024;
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// Serves callers who are signed in, and sends others to the sign-in page.
pub async fn authenticate(State(app): State<App>, request: Request, next: Next) -> Response {
    let theme = cookie::theme_of(request.headers());
    let (visit, request) = match enter(&app, request).await {
        Ok(entered) => entered,
        Err(Refused::SignIn(response)) => return *response,
        Err(Refused::With(failure)) => return errors::shown(None, theme.name(), *failure),
    };
    let request = match read_form(&visit, request).await {
        Ok(request) => request,
        Err(failure) => return errors::shown(Some(&visit), theme.name(), failure),
    };
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Failure>() {
        Some(failure) if failure.status == StatusCode::UNAUTHORIZED => sign_in(&visit.path, &visit.query),
        Some(failure) => errors::shown(Some(&visit), theme.name(), failure),
        None => response,
    }
}

/// Why a request does not come in.
enum Refused {
    SignIn(Box<Response>),
    With(Box<Failure>),
}

async fn enter(app: &App, mut request: Request) -> Result<(Visit, Request), Refused> {
    let query = Fields::read(request.uri().query().unwrap_or_default().as_bytes());
    let path = request.uri().path().to_owned();
    let to_sign_in = || Refused::SignIn(Box::new(sign_in(&path, &query)));
    let now = clock::now();
    let session = app.session_of(request.headers(), now.micros() / 1_000_000).ok_or_else(to_sign_in)?;
    let peer = request.extensions().get::<Peer>().copied();
    let api = app.api.with_key(&session.key, peer).ok_or_else(to_sign_in)?;
    let who: Who = match api.get("/v1/key").await {
        Ok(who) => who,
        Err(failure) if failure.status == StatusCode::UNAUTHORIZED => return Err(to_sign_in()),
        Err(failure) => return Err(Refused::With(Box::new(failure))),
    };
    let theme = cookie::theme_of(request.headers());
    let csrf = session.csrf.into();
    let referral_url = app.referral_url.clone();
    let visit = Visit { who: who.into(), api, csrf, theme, path: path.into(), query, now, referral_url };
    request.extensions_mut().insert(visit.clone());
    Ok((visit, request))
}

fn sign_in(path: &str, query: &Fields) -> Response {
    let next = format!("{path}{}", query.link());
    let to = Fields::from_iter([("next", next)].into_iter().filter(|(_, next)| next != "/"));
    Redirect::to(&format!("/login{}", to.link())).into_response()
}

/// Reads a form and checks its token, so that no page can forget to.
async fn read_form(visit: &Visit, request: Request) -> Result<Request, Failure> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(request);
    }
    from_here(request.headers(), request.uri())?;
    let (mut parts, body) = request.into_parts();
    let form = Form(read_fields(body).await?);
    let token = form.get("csrf").as_bytes();
    if !bool::from(token.ct_eq(visit.csrf.as_bytes())) {
        let detail = "the form is from another session";
        return Err(Failure::new(StatusCode::FORBIDDEN, "form_expired", detail));
    }
    parts.extensions.insert(form);
    Ok(Request::from_parts(parts, Body::empty()))
}

/// Adds to every answer what protects it, and compresses pages.
pub async fn protect(request: Request, next: Next) -> Response {
    let zips = takes_gzip(request.headers());
    let theme = cookie::theme_of(request.headers());
    let mut response = next.run(request).await;
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        response = errors::shown(None, theme.name(), failure);
    }
    guard(response.headers_mut());
    let headers = response.headers();
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if zips && kind.starts_with("text/html") { zipped(response).await } else { response }
}

fn guard(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    let no_store = HeaderValue::from_static("no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(no_store);
}

/// Makes the page of a path that does not exist, the same for everybody.
pub fn not_found_page(headers: &HeaderMap) -> Response {
    let failure = Failure::not_found("there is nothing at this path");
    let mut response = errors::shown(None, cookie::theme_of(headers).name(), failure);
    guard(response.headers_mut());
    response
}

async fn zipped(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let Ok(page) = to_bytes(body, PAGE_BYTES_MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    if page.len() < GZIP_BYTES_MIN {
        return Response::from_parts(parts, Body::from(page));
    }
    let zipped: Bytes = gzip(&page, Compression::fast());
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    Response::from_parts(parts, Body::from(zipped))
}
