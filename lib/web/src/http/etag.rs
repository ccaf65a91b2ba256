//! ETags of settings, and the condition that a setting has not changed since it was read.
//!
//! A tag is a hash of what the setting holds, so both APIs make the same one from the same state.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::problem::Problem;

/// Bytes of the hash in a tag.
const HASH_BYTES: usize = 16;

/// What a setting holds, as a strong validator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(String);

impl ETag {
    /// Makes the tag of a setting's content.
    pub fn of(content: &impl Serialize) -> Result<ETag, Problem> {
        let content = serde_json::to_vec(content).map_err(Problem::internal)?;
        let hash = Sha256::digest(content);
        Ok(ETag(format!("\"{}\"", hex::encode(&hash[..HASH_BYTES]))))
    }

    /// Makes the tag of what has numbered versions.
    pub fn of_version(version: i32) -> ETag {
        ETag(format!("\"{version}\""))
    }

    /// Adds the tag to an answer.
    pub fn mark(&self, response: &mut Response) -> Result<(), Problem> {
        let value = HeaderValue::from_str(&self.0).map_err(Problem::internal)?;
        response.headers_mut().insert(header::ETAG, value);
        Ok(())
    }
}

/// The tags of `If-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfMatch(Vec<String>);

/// Matches everything that exists.
const ANY: &str = "*";

impl IfMatch {
    /// Returns the condition of a request, if it has one.
    pub fn in_headers(headers: &HeaderMap) -> Option<IfMatch> {
        headers.contains_key(header::IF_MATCH).then(|| {
            let values = headers.get_all(header::IF_MATCH).iter();
            let texts = values.filter_map(|value| value.to_str().ok());
            IfMatch(texts.flat_map(|text| text.split(',')).map(|tag| tag.trim().to_owned()).collect())
        })
    }

    /// Returns whether one of the tags is that of the current state.
    pub fn allows(&self, current: &ETag) -> bool {
        self.0.iter().any(|tag| tag == ANY || *tag == current.0)
    }

    /// 412 unless one of the tags is that of the current state.
    pub fn require(&self, current: &ETag) -> Result<(), Problem> {
        if self.allows(current) {
            return Ok(());
        }
        let detail = "it has changed since it was read: read it again and decide anew";
        Err(Problem::new(StatusCode::PRECONDITION_FAILED, "changed_meanwhile", detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(if_match: &str, content: &str, expected: Option<u16>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, if_match.parse().expect("a header"));
        let condition = IfMatch::in_headers(&headers).expect("a condition");
        let refused = condition.require(&ETag::of(&content).expect("a tag")).err();
        assert_eq!(refused.map(|problem| problem.status.as_u16()), expected, "{if_match}");
    }

    #[test]
    fn a_setting_that_has_changed_is_refused() {
        let ETag(tag) = ETag::of(&"a").expect("a tag");
        check(&tag, "a", None);
        check(&tag, "b", Some(412));
        check(&format!("\"x\", {tag}"), "a", None);
        check("*", "a", None);
        check(&format!("W/{tag}"), "a", Some(412));
        check("", "a", Some(412));
        assert_eq!(IfMatch::in_headers(&HeaderMap::new()), None);
    }
}
