//! Forms: what a browser sends from a page of this console.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};

use crate::api::Failure;
use crate::visit::Fields;

/// Largest form, in bytes: contacts and rate cards have up to 1 MiB.
const FORM_BYTES_MAX: usize = 1024 * 1024;
/// Reads a form of any visitor.
pub async fn read_fields(body: Body) -> Result<Fields, Failure> {
    let too_large = |_| Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "at most 1 MiB");
    Ok(Fields::read(&to_bytes(body, FORM_BYTES_MAX).await.map_err(too_large)?))
}

/// Refuses a form that a page of another origin has sent.
pub fn from_here(headers: &HeaderMap, uri: &Uri) -> Result<(), Failure> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let by_site = text(header::HeaderName::from_static("sec-fetch-site"));
    let host = text(header::HOST).or_else(|| uri.host()).unwrap_or_default();
    let origin = text(header::ORIGIN).map(|origin| origin.split_once("://").map_or("", |(_, host)| host));
    let is_ours = by_site.is_none_or(|site| matches!(site, "same-origin" | "none"))
        && origin.is_none_or(|origin| origin == host);
    if is_ours {
        return Ok(());
    }
    Err(Failure::new(StatusCode::FORBIDDEN, "other_origin", "the form is from a page of another origin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &str)], is_ours: bool) {
        let pairs = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().expect("a value")));
        let found = from_here(&pairs.collect(), &Uri::from_static("/"));
        assert_eq!(found.is_ok(), is_ours, "{headers:?}");
    }

    #[test]
    fn a_form_comes_from_a_page_of_this_origin() {
        let host = ("host", "ledger.example.test");
        check(&[host], true);
        check(&[host, ("origin", "https://ledger.example.test")], true);
        check(&[host, ("origin", "https://ledger.example.test"), ("sec-fetch-site", "same-origin")], true);
        check(&[host, ("origin", "https://evil.example.test")], false);
        check(&[host, ("origin", "null")], false);
        check(&[host, ("sec-fetch-site", "cross-site")], false);
        check(&[host, ("sec-fetch-site", "same-site")], false);
    }
}
