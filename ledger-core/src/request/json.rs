//! Strict JSON from callers: bounded depth, no name twice in an object.
//!
//! JSON parsers differ in which of two `amount`s they use, so a body with both is refused.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::limits::{ERRORS_MAX, JSON_DEPTH_MAX};
use crate::event::field_error::FieldError;
use crate::event::wire::depth;

/// Why bytes are refused as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Not JSON, with the reason.
    NotJson(String),
    /// JSON, but these fields are bad.
    Fields(Vec<FieldError>),
}

pub fn read(bytes: &[u8]) -> Result<Value, Refused> {
    // Checked before parsing, because depth costs the parser stack.
    if depth(bytes) > JSON_DEPTH_MAX {
        let detail = format!("nests at most {JSON_DEPTH_MAX} deep");
        return Err(Refused::Fields(vec![FieldError::new("body", "too_deep", detail)]));
    }
    let tracker = Tracker::default();
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let read = Once(&tracker).deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    let value = read.map_err(|error| Refused::NotJson(error.to_string()))?;
    let twice = tracker.twice.into_inner();
    if twice.is_empty() { Ok(value) } else { Err(Refused::Fields(twice)) }
}

/// The parser's path, and the first duplicate name.
#[derive(Default)]
struct Tracker {
    path: RefCell<Vec<String>>,
    twice: RefCell<Vec<FieldError>>,
}

impl Tracker {
    fn within<T>(&self, name: String, read: impl FnOnce() -> T) -> T {
        self.path.borrow_mut().push(name);
        let read = read();
        self.path.borrow_mut().pop();
        read
    }

    /// Records that the name at this path is a duplicate.
    fn note(&self) {
        let mut twice = self.twice.borrow_mut();
        let field = self.path.borrow().join(".");
        if twice.len() < ERRORS_MAX && !twice.iter().any(|error| error.field == field) {
            twice.push(FieldError::new(field, "duplicate", "is given twice"));
        }
    }
}

#[derive(Clone, Copy)]
struct Once<'a>(&'a Tracker);

impl<'de> DeserializeSeed<'de> for Once<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = self.0.within(items.len().to_string(), || list.next_element_seed(self))? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = self.0.within(name.clone(), || {
                if object.contains_key(&name) {
                    self.0.note();
                }
                map.next_value_seed(self)
            })?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let said = match read(text.as_bytes()) {
            Ok(value) => value.to_string(),
            Err(Refused::NotJson(_)) => "not json".to_owned(),
            Err(Refused::Fields(errors)) => {
                let fields = errors.iter().map(|error| format!("{} {}", error.field, error.code));
                fields.collect::<Vec<_>>().join(", ")
            }
        };
        assert_eq!(said, expected, "{text}");
    }

    #[test]
    fn json_reads_as_it_stands() {
        for text in
            ["null", "true", "-1", "18446744073709551615", "1.5", r#""ü""#, r#"{"a":[1,{"b":null}],"c":{}}"#]
        {
            check(text, text);
        }
        for text in ["", "{", "{} {}", "nul", r#"{"a":1,}"#] {
            check(text, "not json");
        }
    }

    #[test]
    fn a_name_said_twice_is_refused_wherever_it_stands() {
        check(r#"{"a":1,"a":1}"#, "a duplicate");
        check(r#"{"a":1,"\u0061":2,"a":3}"#, "a duplicate");
        check(r#"{"a":[{"b":1},{"b":1,"b":2}],"c":{"d":1,"d":2}}"#, "a.1.b duplicate, c.d duplicate");
        check(r#"[{"a":1},{"a":1}]"#, r#"[{"a":1},{"a":1}]"#);
    }

    #[test]
    fn json_nests_8_deep_at_most() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        check(&nested(8), &nested(8));
        check(&nested(9), "body too_deep");
        check(&"[".repeat(100_000), "body too_deep");
    }
}
