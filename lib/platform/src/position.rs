//! The position of a record in the journal.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// A journal partition and an offset in it; text form `3:1041`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Position {
    pub partition: i32,
    pub offset: i64,
}

/// The text is not a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position: want partition and offset like 3:1041")]
pub struct NotAPosition;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let (partition, offset) = text.split_once(':').ok_or(NotAPosition)?;
        Ok(Self { partition: whole_number(partition)?, offset: whole_number(offset)? })
    }
}

/// A position that a projection must have reached, as in the query `at_least=3:1041`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtLeast(pub Position);

impl<'de> Deserialize<'de> for AtLeast {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let position = text.parse().map_err(|error| D::Error::custom(format!("not_a_position: {error}")))?;
        Ok(Self(position))
    }
}

impl JsonSchema for AtLeast {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AtLeast".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]+:[0-9]+$", "examples": ["3:1041"]})
    }
}

/// Parses digits only: the standard parser would also accept a sign.
fn whole_number<T: FromStr>(text: &str) -> Result<T, NotAPosition> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NotAPosition);
    }
    text.parse().map_err(|_| NotAPosition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_as_written() {
        let position = Position { partition: 3, offset: 1041 };
        assert_eq!(position.to_string(), "3:1041");
        assert_eq!("3:1041".parse(), Ok(position));
        assert_eq!(
            serde_json::to_string(&position).expect("plain numbers"),
            r#"{"partition":3,"offset":1041}"#
        );
    }

    #[test]
    fn other_text_is_no_position() {
        for text in
            ["", ":", "3", "3:", ":1", "-1:2", "1:-2", "+1:2", "1:2:3", " 1:2", "1:99999999999999999999"]
        {
            assert_eq!(text.parse::<Position>(), Err(NotAPosition), "{text}");
        }
    }
}
