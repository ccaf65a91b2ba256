//! Visit: who asks for a page, with what, and what a form has brought.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use ledger_core::value::time::Time;
use serde::Deserialize;
use url::{Url, form_urlencoded};
use web::auth::Role;

use crate::api::{Client, Failure};
use crate::format::Unit;

/// How a page looks, whatever the system prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Theme {
    #[default]
    System,
    Light,
    Dark,
}

impl Theme {
    pub fn by_name(name: &str) -> Theme {
        match name {
            "light" => Theme::Light,
            "dark" => Theme::Dark,
            _ => Theme::System,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Theme::System => "system",
            Theme::Light => "light",
            Theme::Dark => "dark",
        }
    }
}

/// The key of whoever is signed in, as `GET /v1/key` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Who {
    pub key_id: String,
    pub role: Role,
    /// `*` stands for all.
    pub accounts: Vec<String>,
    #[serde(default)]
    pub user_id: Option<String>,
    /// What amounts of a member's account are in.
    #[serde(default)]
    pub unit: Option<Unit>,
}

impl Who {
    pub fn sees_all_accounts(&self) -> bool {
        self.accounts.iter().any(|account| account == "*")
    }

    pub fn is_operator(&self) -> bool {
        self.role == Role::Operator
    }

    /// Returns whether the key may change an account's settings.
    pub fn may_set(&self) -> bool {
        matches!(self.role, Role::Operator | Role::Admin)
    }

    /// Returns the unit of a member's account: there is no account to read it from.
    pub fn own_unit(&self) -> Unit {
        self.unit.unwrap_or(Unit::Credits)
    }

    pub fn is_member(&self) -> bool {
        self.role == Role::Member
    }
}

/// Names and values of a query or a form, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    pub fn read(encoded: &[u8]) -> Fields {
        Fields(form_urlencoded::parse(encoded).into_owned().collect())
    }

    /// Returns the first value of a name without spaces around it, empty where there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }

    /// Returns the value unless it is empty.
    pub fn filled(&self, name: &str) -> Option<&str> {
        Some(self.get(name)).filter(|value| !value.is_empty())
    }

    /// Returns whether a box is ticked.
    pub fn is_on(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.trim())
    }

    /// Returns these with one value in place of those of its name; an empty value removes them.
    pub fn with(&self, name: &str, value: &str) -> Fields {
        let mut fields = self.without(name);
        if !value.is_empty() {
            fields.0.push((name.to_owned(), value.to_owned()));
        }
        fields
    }

    pub fn without(&self, name: &str) -> Fields {
        Fields(self.0.iter().filter(|(known, _)| known != name).cloned().collect())
    }

    /// Returns them as the query of a link, with its `?`; empty where there are none.
    pub fn link(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let mut link = String::from("?");
        link.push_str(&form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish());
        link
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Fields {
        Fields(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Encodes a text as one segment of a path.
pub fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("text grows");
        }
    }
    encoded
}

/// Somebody who is signed in and asks for a page.
#[derive(Clone)]
pub struct Visit {
    pub who: Arc<Who>,
    /// The API with the visitor's key.
    pub api: Client,
    /// Stands in every form.
    pub csrf: Arc<str>,
    pub theme: Theme,
    pub path: Arc<str>,
    pub query: Fields,
    pub now: Time,
    /// The sign-up page of the product, if there is one.
    pub referral_url: Option<Arc<Url>>,
}

/// What a form has brought; its token has been checked.
#[derive(Debug, Clone, Default)]
pub struct Form(pub Fields);

impl std::ops::Deref for Form {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for Visit {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Visit, Failure> {
        let visit = parts.extensions.get::<Visit>().cloned();
        visit.ok_or_else(|| Failure::not_found("this page has no visitor"))
    }
}

impl<S: Sync> FromRequestParts<S> for Form {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Form, Failure> {
        Ok(parts.extensions.get::<Form>().cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_changes_one_name_at_a_time() {
        let query = Fields::read(b"q=a+b&status=open&cursor=x");
        assert_eq!((query.get("q"), query.get("none")), ("a b", ""));
        assert_eq!(query.without("cursor").with("q", "c&d").link(), "?status=open&q=c%26d");
        assert_eq!(query.with("q", "").with("status", "").with("cursor", "").link(), "");
    }

    #[test]
    fn no_text_leaves_its_segment() {
        assert_eq!(segment("a/b?c#d %é"), "a%2Fb%3Fc%23d%20%25%C3%A9");
        assert_eq!(segment("acme-1_x.~"), "acme-1_x.~");
    }
}
