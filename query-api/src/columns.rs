//! Columns: amounts, times and ids of a row, read exactly.

use std::str::FromStr;

use ledger_core::value::credits::Credits;
use ledger_core::value::time::Time;
use platform::pg;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::{Error, Row};

/// Reads a column selected as `amount::text`.
pub(crate) fn amount(row: &PgRow, column: &str) -> Result<Credits, Error> {
    pg::credits_of(row.try_get(column)?)
}

/// Reads a column selected as `amount::text` that may be null.
pub(crate) fn optional_amount(row: &PgRow, column: &str) -> Result<Option<Credits>, Error> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(pg::credits_of).transpose()
}

pub(crate) fn time(row: &PgRow, column: &str) -> Result<Time, Error> {
    row.try_get(column).map(pg::time_of)
}

/// Reads a `timestamptz` that may be null.
pub(crate) fn optional_time(row: &PgRow, column: &str) -> Result<Option<Time>, Error> {
    row.try_get::<Option<_>, _>(column).map(|time| time.map(pg::time_of))
}

/// Reads JSON selected as text, to be passed on as it stands.
pub(crate) fn json(row: &PgRow, column: &str) -> Result<Box<RawValue>, Error> {
    RawValue::from_string(row.try_get(column)?).map_err(|error| Error::Decode(error.into()))
}

/// Reads JSON selected as text into a type.
pub(crate) fn json_of<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, Error> {
    serde_json::from_str(row.try_get(column)?).map_err(|error| Error::Decode(error.into()))
}

/// Reads a text of ours back into its type.
pub(crate) fn name<T: FromStr>(row: &PgRow, column: &str) -> Result<T, Error>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    parsed(row.try_get(column)?)
}

/// Reads a text of ours back into its type.
pub(crate) fn parsed<T: FromStr>(text: &str) -> Result<T, Error>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|error: T::Err| Error::Decode(error.into()))
}

/// Reads the name of a variant.
pub(crate) fn variant<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, Error> {
    let text: &str = row.try_get(column)?;
    let name = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
    T::deserialize(name).map_err(|error| Error::Decode(error.into()))
}
