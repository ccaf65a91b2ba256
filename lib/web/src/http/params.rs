//! Reads query, path and headers, and reports each bad field, as for a body.

use std::str::FromStr;

use axum::extract::path::ErrorKind;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path as RawPath, Query as RawQuery};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri};
use ledger_core::request::limits::ERRORS_MAX;
use serde::de::DeserializeOwned;

use super::problem::{FieldError, Problem};

/// The query string as `T`; if `T` denies unknown fields, a 422 lists every bad one.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        read_query(query).map(Query).map_err(Problem::invalid)
    }
}

/// The URL-encoded NUL. No text in the database has it, and Postgres refuses it in a parameter.
const ZERO: &str = "%00";

fn read_query<T: DeserializeOwned>(query: &str) -> Result<T, Vec<FieldError>> {
    let mut read = None;
    parse_query(query, &mut |uri| RawQuery::try_from_uri(uri).map(|RawQuery(parsed)| read = Some(parsed)))?;
    read.ok_or_else(Vec::new)
}

/// Parses a query; removes each bad field and parses again, and so finds all of them.
///
/// Without type parameters, it is compiled once and not for every query.
fn parse_query(query: &str, parse: Parse<'_>) -> Result<(), Vec<FieldError>> {
    let mut pairs: Vec<&str> = query.split('&').collect();
    let mut errors = take_zeros(&mut pairs);
    loop {
        let bad = match parse_pairs(&pairs, parse) {
            Ok(()) if errors.is_empty() => return Ok(()),
            Ok(()) => return Err(errors),
            Err(bad) => bad,
        };
        let before = pairs.len();
        pairs.retain(|pair| pair.split('=').next() != Some(bad.field.as_str()));
        let known = errors.iter().any(|error| error.field == bad.field);
        if !known {
            errors.push(bad);
        }
        if pairs.len() == before || errors.len() >= ERRORS_MAX {
            return Err(errors);
        }
    }
}

/// Parses the query of a URI and stores the result.
type Parse<'a> = &'a mut dyn FnMut(&Uri) -> Result<(), QueryRejection>;

/// Removes parameters with NUL, and returns an error for each.
fn take_zeros(pairs: &mut Vec<&str>) -> Vec<FieldError> {
    let zeros = pairs.extract_if(.., |pair| pair.contains(ZERO));
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let refuse = |pair| FieldError::new(name(pair), "control_character", "must not have control characters");
    zeros.map(refuse).take(ERRORS_MAX).collect()
}

fn parse_pairs(pairs: &[&str], parse: Parse<'_>) -> Result<(), FieldError> {
    let uri: Uri = format!("/?{}", pairs.join("&"))
        .parse()
        .map_err(|_| FieldError::new("query", "not_a_query", "is not a query string"))?;
    parse(&uri).map_err(|rejection| {
        let source = std::error::Error::source(&rejection).map(ToString::to_string);
        explain(&source.unwrap_or_else(|| rejection.body_text()))
    })
}

/// Splits the parser's `limit: wrong_type: …` into the field, then our code and detail, or serde's.
fn explain(message: &str) -> FieldError {
    if let Some(field) = quoted(message, "missing field `") {
        return FieldError::new(field, "required", "is required");
    }
    if let Some(field) = quoted(message, "unknown field `") {
        return FieldError::new(field, "unknown_field", "is not a parameter of this read");
    }
    if let Some(field) = quoted(message, "duplicate field `") {
        return FieldError::new(field, "duplicate", "is given twice");
    }
    let (field, rest) = message.split_once(": ").unwrap_or(("query", message));
    match rest.split_once(": ") {
        Some((code, detail)) if is_code(code) => FieldError::new(field, code, detail),
        _ if rest.starts_with("unknown variant ") => {
            let known = rest.split_once(", expected ").map_or(rest, |(_, known)| known);
            FieldError::new(field, "not_one_of", format!("must be {known}"))
        }
        _ => FieldError::new(field, "wrong_type", rest),
    }
}

fn quoted<'a>(message: &'a str, before: &str) -> Option<&'a str> {
    let (_, rest) = message.split_once(before)?;
    rest.split_once('`').map(|(name, _)| name)
}

fn is_code(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// The variables of a path; a malformed one gets a 404, since nothing can have that name.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match RawPath::<T>::from_request_parts(parts, state).await {
            Ok(_) if parts.uri.path().contains(ZERO) => {
                Err(Problem::not_found("not_found", "nothing has a name with control characters"))
            }
            Ok(RawPath(read)) => Ok(Path(read)),
            Err(rejection) => Err(refuse_path(&parts.method, &rejection)),
        }
    }
}

/// 422 for `PUT`, which would create what the path names; 404 otherwise.
fn refuse_path(method: &Method, rejection: &PathRejection) -> Problem {
    let PathRejection::FailedToDeserializePathParams(failed) = rejection else {
        return Problem::internal(rejection);
    };
    if let ErrorKind::WrongNumberOfParameters { .. } | ErrorKind::UnsupportedType { .. } = failed.kind() {
        return Problem::internal(rejection);
    }
    let (field, message) = if let ErrorKind::DeserializeError { key, message, .. } = failed.kind() {
        (key.as_str(), message.clone())
    } else if let ErrorKind::ParseErrorAtKey { key, .. } = failed.kind() {
        (key.as_str(), failed.body_text())
    } else {
        ("path", failed.body_text())
    };
    if method == Method::PUT {
        let bad = explain(&format!("{field}: {message}"));
        return Problem::invalid(vec![bad]);
    }
    Problem::not_found("not_found", format!("nothing has this name: {message}"))
}

/// Reads an optional header; an unreadable one is a 422 with the header's name.
pub fn header<T>(headers: &HeaderMap, name: &str) -> Result<Option<T>, Problem>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::bad_field(name, "duplicate", "is given twice"));
    }
    let text = value.to_str().map_err(|_| Problem::bad_field(name, "not_text", "must be plain text"))?;
    text.parse().map(Some).map_err(|error: T::Err| {
        let bad = explain(&format!("{name}: {error}"));
        let code = if bad.code == "wrong_type" { "invalid" } else { &bad.code };
        Problem::bad_field(name, code, bad.detail.clone())
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use axum::routing::{get, put};
    use axum::{Router, http};
    use ledger_core::value::id::AccountId;
    use ledger_core::value::time::Time;
    use serde::Deserialize;
    use tower::ServiceExt;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Page {
        limit: Option<u32>,
        as_of: Option<Time>,
        #[serde(default)]
        wait: bool,
        kind: Option<Kind>,
        name: Option<String>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Granted,
        Consumed,
    }

    fn check(query: &str, expected: &[(&str, &str)]) {
        let errors = read_query::<Page>(query).map(|_| ()).expect_err("refused");
        let mut found: Vec<_> =
            errors.iter().map(|error| (error.field.as_str(), error.code.as_str())).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{query}: {errors:?}");
    }

    #[test]
    fn a_word_that_is_none_of_those_known_is_answered_with_them() {
        check("kind=spent", &[("kind", "not_one_of")]);
        let errors = read_query::<Page>("kind=spent").expect_err("refused");
        assert_eq!(errors[0].detail, "must be `granted` or `consumed`");
    }

    #[test]
    fn every_bad_parameter_is_named() {
        check("limit=many", &[("limit", "wrong_type")]);
        check("as_of=yesterday", &[("as_of", "not_a_time")]);
        check("colour=red", &[("colour", "unknown_field")]);
        check("limit=1&limit=2", &[("limit", "duplicate")]);
        check("name=%00", &[("name", "control_character")]);
        check(
            "limit=many&name=a%00b&colour%00=red",
            &[("colour%00", "control_character"), ("limit", "wrong_type"), ("name", "control_character")],
        );
        check(
            "as_of=yesterday&colour=red&limit=-1&wait=perhaps",
            &[
                ("as_of", "not_a_time"),
                ("colour", "unknown_field"),
                ("limit", "wrong_type"),
                ("wait", "wrong_type"),
            ],
        );
    }

    #[test]
    fn a_good_query_is_read() {
        let page: Page = read_query("as_of=2026-02-03T10%3A00%3A00Z&limit=7&wait=true").expect("good");
        assert_eq!(page.limit, Some(7));
        assert!(page.wait);
        assert!(read_query::<Page>("").is_ok());
    }

    async fn status_of(method: &str, path: &str) -> (u16, String) {
        let named = |Path(id): Path<AccountId>| async move { id.to_string() };
        let words = get(|Path(word): Path<String>| async move { word });
        let router =
            Router::new().route("/things/{id}", get(named).merge(put(named))).route("/words/{word}", words);
        let request = Request::builder().method(method).uri(path).body(Body::empty());
        let response = router.oneshot(request.expect("a request")).await.expect("an answer");
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 4096).await.expect("small");
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn a_name_that_nothing_can_have_is_not_found_and_can_not_be_put() {
        assert_eq!(status_of("GET", "/things/a%40b").await, (200, "a@b".into()));
        let (status, body) = status_of("GET", "/things/-bad").await;
        assert_eq!(status, 404, "{body}");
        let (status, body) = status_of("PUT", "/things/-bad").await;
        assert_eq!(status, 422, "{body}");
        assert!(body.contains("bad_id"), "{body}");
        assert_eq!(status_of("GET", "/words/a%2500").await, (200, "a%00".into()));
        let (status, body) = status_of("GET", "/words/a%00").await;
        assert_eq!(status, 404, "{body}");
    }

    #[test]
    fn a_header_is_refused_under_its_name() {
        let mut headers = http::HeaderMap::new();
        assert_eq!(header::<Time>(&headers, "Ledger-Time"), Ok(None));
        headers.insert("Ledger-Time", "soon".parse().expect("a header"));
        let refused = header::<Time>(&headers, "Ledger-Time").expect_err("no time");
        assert_eq!(refused.errors[0].field, "Ledger-Time");
        headers.insert("Ledger-Time", "2026-01-01T00:00:00Z".parse().expect("a header"));
        assert!(header::<Time>(&headers, "Ledger-Time").is_ok_and(|time| time.is_some()));
    }
}
