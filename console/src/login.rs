//! Login: a key is exchanged for a session, also by a link that is good once.

use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use platform::clock;
use web::http::{Peer, Problem};

use crate::api::Failure;
use crate::app::App;
use crate::cookie::{Kept, SESSION, THEME, THEME_SECONDS, set, theme_of};
use crate::form::{from_here, read_fields};
use crate::layout::{self, Frame};
use crate::seal::{SESSION_SECONDS, Session};
use crate::visit::{Fields, Theme, Visit, Who};

/// Keys that one peer may get wrong in [`ATTEMPTS_WINDOW`].
pub const ATTEMPTS_MAX: u32 = 10;
pub const ATTEMPTS_WINDOW: Duration = Duration::from_secs(60);

#[derive(Template)]
#[template(path = "login.html")]
struct Login {
    frame: Frame,
    next: String,
    error: Option<String>,
}

#[derive(Template)]
#[template(path = "once.html")]
struct Once {
    frame: Frame,
    token: String,
}

pub fn routes() -> Router<App> {
    Router::new()
        .route("/login", get(ask).post(sign_in))
        .route("/login/once", get(ask_once).post(sign_in_once))
        .route("/theme", post(set_theme))
}

/// What only somebody who is signed in can do.
pub fn signed_in() -> Router {
    Router::new().route("/logout", post(sign_out))
}

/// Returns where to go after the sign-in: a page of this console, whatever the link says.
fn place(next: &str) -> &str {
    // Browsers read a backslash as a slash, and drop tabs and line ends.
    let is_odd = |letter: char| letter == '\\' || letter.is_control();
    let is_path = next.starts_with('/') && !next.starts_with("//") && !next.contains(is_odd);
    if is_path && !next.starts_with("/login") { next } else { "/" }
}

async fn ask(State(app): State<App>, request: Request) -> Result<Response, Failure> {
    let query = Fields::read(request.uri().query().unwrap_or_default().as_bytes());
    let next = place(query.get("next"));
    let is_in = app.session_of(request.headers(), now_seconds()).is_some_and(|_| !query.is_on("next"));
    if is_in {
        return Ok(Redirect::to(next).into_response());
    }
    form(request.headers(), next, StatusCode::OK, None)
}

fn form(
    headers: &HeaderMap,
    next: &str,
    status: StatusCode,
    error: Option<String>,
) -> Result<Response, Failure> {
    let frame = Frame::outside("Sign in", theme_of(headers).name());
    layout::page_with(status, &Login { frame, next: next.to_owned(), error })
}

async fn sign_in(State(app): State<App>, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    from_here(&parts.headers, &parts.uri)?;
    let fields = read_fields(body).await?;
    let next = place(fields.get("next"));
    let peer = parts.extensions.get::<Peer>().copied();
    match enter(&app, &parts.headers, fields.get("key"), peer).await {
        Ok(cookie) => Ok(([(header::SET_COOKIE, cookie)], Redirect::to(next)).into_response()),
        Err(failure) => form(&parts.headers, next, failure.status, Some(sentence(&failure))),
    }
}

/// Checks a key by one request of the API, and returns the cookie of its session.
async fn enter(
    app: &App,
    headers: &HeaderMap,
    key: &str,
    peer: Option<Peer>,
) -> Result<HeaderValue, Failure> {
    if let Some(peer) = &peer {
        app.attempts.begin(peer).map_err(too_many)?;
    }
    let unknown = || Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", "");
    let api = app.api.with_key(key, peer).ok_or_else(unknown)?;
    let _: Who = api.get("/v1/key").await?;
    if let Some(peer) = &peer {
        app.attempts.give_back(peer);
    }
    let session = Session::begin(key, now_seconds());
    Ok(set(SESSION, &app.seal.close(&session), SESSION_SECONDS, Kept::hidden(app.is_secure, headers)))
}

fn too_many(problem: Problem) -> Failure {
    let seconds = problem.retry_after_seconds.unwrap_or(1);
    Failure::new(problem.status, problem.code, format!("Too many wrong keys. Try again in {seconds} s."))
}

fn sentence(failure: &Failure) -> String {
    match failure.status {
        StatusCode::UNAUTHORIZED => "Nobody has made this key, or it has ended.".to_owned(),
        _ => failure.detail.clone(),
    }
}

async fn ask_once(request: Request) -> Result<Response, Failure> {
    let query = Fields::read(request.uri().query().unwrap_or_default().as_bytes());
    let frame = Frame::outside("Sign in", theme_of(request.headers()).name());
    layout::page(&Once { frame, token: query.get("token").to_owned() })
}

/// Takes a link: only a form does, so that a preview of the link does not use it up.
async fn sign_in_once(State(app): State<App>, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    from_here(&parts.headers, &parts.uri)?;
    let fields = read_fields(body).await?;
    let peer = parts.extensions.get::<Peer>().copied();
    if let Some(peer) = &peer {
        app.attempts.begin(peer).map_err(too_many)?;
    }
    let Some(key) = app.links.take(fields.get("token")) else {
        let said = "This link was used already, or is older than 5 minutes. Sign in with a key.";
        return form(&parts.headers, "/", StatusCode::UNAUTHORIZED, Some(said.to_owned()));
    };
    if let Some(peer) = &peer {
        app.attempts.give_back(peer);
    }
    let cookie = enter(&app, &parts.headers, &key, peer).await?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response())
}

async fn sign_out(_: Visit) -> Response {
    let cookie = set(SESSION, "", 0, Kept { is_secure: false, is_hidden: true });
    ([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response()
}

async fn set_theme(State(app): State<App>, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    from_here(&parts.headers, &parts.uri)?;
    let fields = read_fields(body).await?;
    let theme = Theme::by_name(fields.get("theme"));
    let kept = Kept { is_hidden: false, ..Kept::hidden(app.is_secure, &parts.headers) };
    let cookie = set(THEME, theme.name(), THEME_SECONDS, kept);
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(place(fields.get("next")))).into_response())
}

fn now_seconds() -> i64 {
    clock::now().micros() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_leads_to_a_page_of_the_console_only() {
        for (next, expected) in [
            ("/accounts/acme?q=1", "/accounts/acme?q=1"),
            ("", "/"),
            ("//evil.example.test", "/"),
            ("https://evil.example.test", "/"),
            ("/\\evil.example.test", "/"),
            ("/\t/evil.example.test", "/"),
            ("/login", "/"),
        ] {
            assert_eq!(place(next), expected, "{next}");
        }
    }
}
