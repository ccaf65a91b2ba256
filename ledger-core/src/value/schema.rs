//! JSON schemas of the values that have a reader and a writer of their own; all other types derive theirs.
//!
//! The documents of the HTTP APIs are made from these. What a schema does not say, the readers still check.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use crate::value::credits::{Credits, Quantity};
use crate::value::money::Usd;
use crate::value::time::{Day, Time, Zone};

macro_rules! named_schemas {
    ($($value:ty = $name:literal $schema:tt)*) => {$(
        impl JsonSchema for $value {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

named_schemas! {
    Credits = "Amount" {
        "description": "An exact decimal in the account's unit, without exponent. A request has at most 18 integer digits and 9 decimal places; the ledger writes no trailing zeros.",
        "type": "string",
        "format": "decimal",
        "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?$",
        "examples": ["12.5"],
    }
    Quantity = "Quantity" {
        "description": "How much was used, in the unit that its name says, such as tokens or seconds: a decimal string of 0 or above, or a whole number.",
        "anyOf": [
            {"type": "string", "format": "decimal", "pattern": r"^[0-9]+(\.[0-9]{1,9})?$"},
            {"type": "integer", "format": "int64", "minimum": 0},
        ],
        "examples": ["1200"],
    }
    Usd = "Dollars" {
        "description": "An exact decimal in US dollars.",
        "type": "string",
        "format": "decimal",
        "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?$",
        "examples": ["0.01"],
    }
    Time = "Timestamp" {
        "description": "An instant by RFC 3339. A request may have any offset; the ledger writes UTC, down to the microsecond.",
        "type": "string",
        "format": "date-time",
        "examples": ["2026-02-03T10:00:00Z"],
    }
    Zone = "TimeZone" {
        "description": "A time zone by its name in the IANA database.",
        "type": "string",
        "examples": ["Europe/Berlin"],
    }
    Day = "Day" {
        "description": "A calendar day.",
        "type": "string",
        "format": "date",
        "examples": ["2026-02-03"],
    }
}

/// Stands for objects with any names where a schema is made: every object of the documents has a name.
macro_rules! named_maps {
    ($($(#[doc = $doc:literal])* $name:ident of $value:ty)*) => {$(
        $(#[doc = $doc])*
        pub struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let (value, said) = (generator.subschema_for::<$value>(), concat!($($doc),*));
                json_schema!({"type": "object", "description": said.trim(), "additionalProperties": value})
            }
        }
    )*};
}

named_maps! {
    /// How much of each quantity was used, by the quantity's name.
    Quantities of Quantity
    /// Amounts by name.
    Amounts of Credits
    /// Whatever else the producer records with usage, by name.
    Metadata of Value
    /// An event's data, as in the journal.
    EventData of Value
}

/// Stands for texts and numbers where a schema is made: what may be null is a type with a name.
macro_rules! named_scalars {
    ($keywords:tt: $($(#[doc = $doc:literal])* $name:ident)*) => {$(
        $(#[doc = $doc])*
        pub struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = json_schema!($keywords);
                schema.insert("description".to_owned(), concat!($($doc),*).trim().into());
                schema
            }
        }
    )*};
}

named_scalars! {
    {"type": "string"}:
    /// An address on the web.
    WebAddress
    /// A secret, which is shown once.
    Secret
    /// What the payment provider calls a customer.
    PaymentCustomer
    /// The position of a row in a list: text that only the ledger understands.
    Cursor
    /// What another system answered, in its own words.
    Reply
}

named_scalars! {
    {"type": "integer", "format": "int64"}:
    /// Money in the smallest unit of its currency.
    MinorUnits
    /// A status by HTTP.
    HttpStatus
}
