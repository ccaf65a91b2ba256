//! Lists: bounded pages, and opaque cursors to the row after which the next page begins.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ledger_core::value::schema::Cursor;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use web::http::Problem;

/// Rows of a page by default.
pub const LIMIT_DEFAULT: u16 = 50;
pub const LIMIT_MAX: u16 = 500;
/// Longest accepted cursor, in characters; the longest valid one has seven labels.
const CURSOR_LENGTH_MAX: usize = 8 * 1024;

/// The zero character as JSON escapes it.
const NUL: &[u8] = b"\\u0000";

/// The number of rows of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(u16);

impl Default for Limit {
    fn default() -> Self {
        Self(LIMIT_DEFAULT)
    }
}

impl Limit {
    /// Returns how many rows to read: one more than the page has, which shows whether another page follows.
    ///
    /// Written into statements, not bound: a plan for an unknown number of rows assumes a tenth of the table.
    pub fn rows_to_ask(self) -> i64 {
        i64::from(self.0) + 1
    }

    fn rows(self) -> usize {
        usize::from(self.0)
    }
}

impl JsonSchema for Limit {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Rows of a page.",
            "type": "integer",
            "minimum": 1,
            "maximum": LIMIT_MAX,
            "default": LIMIT_DEFAULT,
        })
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number: i64 =
            text.parse().map_err(|_| D::Error::custom("not_a_number: limit is a whole number"))?;
        match u16::try_from(number) {
            Ok(rows) if (1..=LIMIT_MAX).contains(&rows) => Ok(Self(rows)),
            _ => Err(D::Error::custom(format!("out_of_range: limit is 1 to {LIMIT_MAX}"))),
        }
    }
}

/// Most characters of a beginning: as many as an account's name is found by, and no id has more.
const BEGINNING_CHARACTERS_MAX: usize = 256;

/// How the ids or names of a list begin; every character stands for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beginning(pub String);

impl Beginning {
    /// Returns the first text after all that begin so, in the order of code points: that of `collate "C"`.
    ///
    /// A range and not `like`, which would need escapes and which a plan for any parameter can't look up.
    pub fn end(&self) -> String {
        let mut rest = self.0.as_str();
        while let Some(last) = rest.chars().next_back() {
            rest = &rest[..rest.len() - last.len_utf8()];
            if let Some(next) = (last..=char::MAX).nth(1) {
                return format!("{rest}{next}");
            }
        }
        // Only the last character there is: what is longer than any text comes after all of them.
        format!("{}{}", self.0, String::from(char::MAX).repeat(BEGINNING_CHARACTERS_MAX))
    }
}

impl JsonSchema for Beginning {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Beginning".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "maxLength": BEGINNING_CHARACTERS_MAX})
    }
}

impl<'de> Deserialize<'de> for Beginning {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Err(D::Error::custom("empty: must have at least one character"));
        }
        if text.chars().count() > BEGINNING_CHARACTERS_MAX {
            let refusal = format!("too_long: must have at most {BEGINNING_CHARACTERS_MAX} characters");
            return Err(D::Error::custom(refusal));
        }
        Ok(Self(text))
    }
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub(crate) struct Page<T> {
    pub items: Vec<T>,
    /// The cursor of the next page; null at the list's end.
    #[schemars(with = "Option<Cursor>")]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Cuts the rows read by [`Limit::rows_to_ask`] to a page; `key` returns a row's position in the list.
    pub fn cut<K: Serialize>(mut rows: Vec<T>, limit: Limit, key: impl Fn(&T) -> K) -> Self {
        let more = rows.len() > limit.rows();
        rows.truncate(limit.rows());
        let next_cursor = rows.last().filter(|_| more).map(|last| encode(&key(last)));
        Self { items: rows, next_cursor }
    }
}

impl<T> Page<T> {
    /// Lets a page that is not full go on after this row: it has looked at no older one.
    pub fn or_after<K: Serialize>(mut self, last: Option<K>) -> Self {
        self.next_cursor = self.next_cursor.or_else(|| last.map(|last| encode(&last)));
        self
    }
}

/// Encodes a row's position as a cursor.
pub(crate) fn encode<K: Serialize>(key: &K) -> String {
    let json = serde_json::to_vec(key).expect("a place is numbers and texts");
    URL_SAFE_NO_PAD.encode(json)
}

/// Decodes a cursor; 422 for text that is not a cursor of this list.
pub(crate) fn decode<K: DeserializeOwned>(cursor: Option<&str>) -> Result<Option<K>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    let refusal = || Problem::bad_field("cursor", "bad_cursor", "is not a cursor of this list");
    if cursor.len() > CURSOR_LENGTH_MAX {
        return Err(refusal());
    }
    let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refusal())?;
    // Postgres can't store text with this character.
    if json.windows(NUL.len()).any(|escape| escape == NUL) {
        return Err(refusal());
    }
    serde_json::from_slice(&json).map(Some).map_err(|_| refusal())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(text: &str) -> Result<Limit, String> {
        let value = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
        Limit::deserialize(value).map_err(|error| error.to_string())
    }

    #[test]
    fn a_page_has_1_to_500_rows() {
        for (text, rows) in [("1", 1), ("500", 500)] {
            assert_eq!(limit(text).map(Limit::rows), Ok(rows));
        }
        for text in ["0", "-1", "501", "70000", "99999999999"] {
            assert!(limit(text).is_err_and(|error| error.starts_with("out_of_range")), "{text}");
        }
        for text in ["", "ten", "1.5", "99999999999999999999"] {
            assert!(limit(text).is_err_and(|error| error.starts_with("not_a_number")), "{text}");
        }
    }

    #[test]
    fn a_full_page_names_the_row_to_go_on_after_and_the_last_page_none() {
        let rows: Vec<i64> = vec![9, 8, 7];
        let page = Page::cut(rows.clone(), Limit(2), |row| (*row, 0));
        assert_eq!(page.items, [9, 8]);
        let next: Option<(i64, i32)> = decode(page.next_cursor.as_deref()).expect("ours");
        assert_eq!(next, Some((8, 0)));
        assert_eq!(Page::cut(rows, Limit(3), |row| *row).next_cursor, None);
    }

    fn beginning(text: &str) -> Result<Beginning, String> {
        let value = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
        Beginning::deserialize(value).map_err(|error| error.to_string())
    }

    #[test]
    fn a_beginning_has_1_to_256_characters() {
        for text in ["a", "%", "\u{10ffff}", &"é".repeat(256)] {
            assert!(beginning(text).is_ok(), "{text}");
        }
        assert!(beginning("").is_err_and(|error| error.starts_with("empty")));
        assert!(beginning(&"a".repeat(257)).is_err_and(|error| error.starts_with("too_long")));
    }

    #[test]
    fn a_beginning_ends_before_the_next_text_that_begins_otherwise() {
        let last = char::MAX;
        for (text, end) in [
            ("a", "b".to_owned()),
            ("user_", "user`".to_owned()),
            ("50%", "50&".to_owned()),
            ("\u{7f}", "\u{80}".to_owned()),
            ("\u{d7ff}", "\u{e000}".to_owned()),
            (&format!("a{last}{last}"), "b".to_owned()),
        ] {
            let beginning = Beginning(text.to_owned());
            assert_eq!(beginning.end(), end);
            assert!(format!("{text}{last}{last}") < beginning.end());
        }
        let of_lasts = Beginning(format!("{last}{last}"));
        assert!(format!("{last}{last}zz") < of_lasts.end());
        assert!(String::from(last).repeat(64) < of_lasts.end(), "the longest id");
    }

    #[test]
    fn text_that_is_no_cursor_is_refused_by_name() {
        let other_list = encode(&"acme");
        let zero = encode(&("a\0", 0));
        assert!(decode::<(String, i32)>(Some(&zero)).is_err(), "the database has no such text");
        for text in ["", "%", "bm90IGpzb24", other_list.as_str(), &"A".repeat(CURSOR_LENGTH_MAX + 1)] {
            let refused = decode::<(i64, i32)>(Some(text)).expect_err("no cursor");
            assert_eq!(refused.status, 422, "{text}");
            assert_eq!(refused.errors[0].field, "cursor");
        }
    }
}
