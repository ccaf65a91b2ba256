//! Typed: what somebody has typed into a form, and what the API says to it.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use crate::api::{self, Failure};
use crate::seal::random_text;
use crate::visit::Fields;

/// A form as it was typed: shown again with its errors where the API has refused it.
#[derive(Debug, Clone, Default)]
pub struct Typed {
    pub fields: Fields,
    pub failure: Option<Failure>,
}

impl Typed {
    /// Fills a form with what is there.
    pub fn with<'a>(given: impl IntoIterator<Item = (&'a str, String)>) -> Typed {
        Typed { fields: given.into_iter().collect(), failure: None }
    }

    pub fn refused(fields: &Fields, failure: Failure) -> Typed {
        Typed { fields: fields.clone(), failure: Some(failure) }
    }

    pub fn get(&self, name: &str) -> &str {
        self.fields.get(name)
    }

    /// Returns what is wrong with a field of the API, empty where nothing is.
    pub fn wrong(&self, field: &str) -> &str {
        api::wrong(self.failure.as_ref(), field)
    }

    /// Returns what tells one form from another, so that a form that is sent twice counts once.
    pub fn once(&self) -> String {
        self.fields.filled("once").map_or_else(random_text, str::to_owned)
    }
}

/// The form of a page with several that the API has refused; by default none.
#[derive(Debug, Clone, Default)]
pub struct Again {
    form: &'static str,
    typed: Typed,
}

impl Again {
    pub fn of(form: &'static str, fields: &Fields, failure: Failure) -> Again {
        Again { form, typed: Typed::refused(fields, failure) }
    }

    pub fn is(&self, form: &str) -> bool {
        self.form == form
    }

    /// Returns what a field shows: what was typed into this form, if it was refused, otherwise what is there.
    pub fn value<'a>(&'a self, form: &str, name: &str, now: &'a str) -> &'a str {
        if self.is(form) { self.typed.get(name) } else { now }
    }

    pub fn wrong(&self, form: &str, field: &str) -> &str {
        if self.is(form) { self.typed.wrong(field) } else { "" }
    }

    pub fn failure(&self, form: &str) -> Option<&Failure> {
        self.typed.failure.as_ref().filter(|_| self.is(form))
    }

    /// Returns the status of the page: 422 for a form that is shown again.
    pub fn status(&self) -> StatusCode {
        if self.typed.failure.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK }
    }
}

/// Returns the fields that are filled, as the API names them.
pub fn filled(form: &Fields, names: &[&str]) -> Map<String, Value> {
    let filled = names.iter().filter_map(|name| Some(((*name).to_owned(), form.filled(name)?.into())));
    filled.collect()
}

/// Adds the times that are filled: browsers send them without a zone, and the label says that they are UTC.
pub fn add_times(body: &mut Map<String, Value>, form: &Fields, names: &[&str]) {
    for name in names {
        if let Some(time) = form.filled(name) {
            body.insert((*name).to_owned(), utc(time).into());
        }
    }
}

/// Returns a day or a local time as a time in UTC. What is neither stays as it is, and the API says what it misses.
pub fn utc(text: &str) -> String {
    let has_only = |more: &str| text.chars().all(|c| c.is_ascii_digit() || more.contains(c));
    match text.len() {
        10 if has_only("-") => format!("{text}T00:00:00Z"),
        16 if has_only("-T:") => format!("{text}:00Z"),
        19 if has_only("-T:") => format!("{text}Z"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_a_form_is_utc() {
        assert_eq!(utc("2026-03-03"), "2026-03-03T00:00:00Z");
        assert_eq!(utc("2026-03-03T10:04"), "2026-03-03T10:04:00Z");
        assert_eq!(utc("2026-03-03T10:04:05"), "2026-03-03T10:04:05Z");
        assert_eq!(utc("2026-03-03T10:04:05Z"), "2026-03-03T10:04:05Z");
        assert_eq!(utc("tomorrow"), "tomorrow");
    }

    #[test]
    fn what_is_left_empty_is_not_sent() {
        let form = Fields::read(b"amount=5&reason=&expires_at=2026-03-03");
        let mut body = filled(&form, &["amount", "reason"]);
        add_times(&mut body, &form, &["expires_at", "effective_at"]);
        assert_eq!(
            Value::from(body),
            serde_json::json!({"amount": "5", "expires_at": "2026-03-03T00:00:00Z"})
        );
    }

    #[test]
    fn of_several_forms_the_refused_one_shows_what_was_typed() {
        let failure = Failure::not_found("no");
        let again = Again::of("name", &Fields::read(b"name=Acme"), failure);
        assert_eq!([again.value("name", "name", "old"), again.value("plan", "name", "old")], ["Acme", "old"]);
        assert!(again.failure("name").is_some() && again.failure("plan").is_none());
        let none = Again::default();
        assert_eq!((none.value("name", "name", "old"), none.status()), ("old", StatusCode::OK));
        assert_eq!(again.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[test]
    fn a_form_that_is_shown_again_is_the_same_form() {
        let typed = Typed::with([("once", "k1".to_owned())]);
        assert_eq!(typed.once(), "k1");
        assert_ne!(Typed::default().once(), Typed::default().once());
    }
}
