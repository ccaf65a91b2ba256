//! Reads columns of a row exactly into the ledger's types, by name or by number.

use std::error::Error;
use std::str::FromStr;

use ledger_core::value::credits::Credits;
use ledger_core::value::time::Time;
use serde::de::DeserializeOwned;
use serde::de::value::StrDeserializer;
use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::{ColumnIndex, Row};

use super::convert::{credits_of, time_of};

/// Reads a column selected as `amount::text`.
pub fn amount(row: &PgRow, column: impl ColumnIndex<PgRow>) -> Result<Credits, sqlx::Error> {
    credits_of(row.try_get(column)?)
}

/// Reads a column selected as `amount::text` that may be null.
pub fn optional_amount(row: &PgRow, column: impl ColumnIndex<PgRow>) -> Result<Option<Credits>, sqlx::Error> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(credits_of).transpose()
}

pub fn time(row: &PgRow, column: impl ColumnIndex<PgRow>) -> Result<Time, sqlx::Error> {
    row.try_get(column).map(time_of)
}

/// Reads a `timestamptz` that may be null.
pub fn optional_time(row: &PgRow, column: impl ColumnIndex<PgRow>) -> Result<Option<Time>, sqlx::Error> {
    row.try_get::<Option<_>, _>(column).map(|time| time.map(time_of))
}

/// Reads a text into the type that it was written from, such as an id.
pub fn name<T: FromStr>(row: &PgRow, column: impl ColumnIndex<PgRow>) -> Result<T, sqlx::Error>
where
    T::Err: Error + Send + Sync + 'static,
{
    parsed(row.try_get(column)?)
}

/// Reads a text that may be null into the type that it was written from.
pub fn optional_name<T: FromStr>(
    row: &PgRow,
    column: impl ColumnIndex<PgRow>,
) -> Result<Option<T>, sqlx::Error>
where
    T::Err: Error + Send + Sync + 'static,
{
    let text: Option<&str> = row.try_get(column)?;
    text.map(parsed).transpose()
}

/// Reads JSON selected as text, to pass it on unchanged.
pub fn json(row: &PgRow, column: impl ColumnIndex<PgRow>) -> Result<Box<RawValue>, sqlx::Error> {
    RawValue::from_string(row.try_get(column)?).map_err(undecodable)
}

/// Reads JSON selected as text into a type.
pub fn json_of<T: DeserializeOwned>(row: &PgRow, column: impl ColumnIndex<PgRow>) -> Result<T, sqlx::Error> {
    serde_json::from_str(row.try_get(column)?).map_err(undecodable)
}

pub fn variant<T: DeserializeOwned>(row: &PgRow, column: impl ColumnIndex<PgRow>) -> Result<T, sqlx::Error> {
    variant_of(row.try_get(column)?)
}

/// Reads the stored name of a variant.
pub fn variant_of<T: DeserializeOwned>(name: &str) -> Result<T, sqlx::Error> {
    let name: StrDeserializer<'_, serde::de::value::Error> = StrDeserializer::new(name);
    T::deserialize(name).map_err(undecodable)
}

/// Reads a stored text into the type that it was written from.
pub fn parsed<T: FromStr>(text: &str) -> Result<T, sqlx::Error>
where
    T::Err: Error + Send + Sync + 'static,
{
    text.parse().map_err(undecodable::<T::Err>)
}

/// Makes the error of a value that this program did not write so.
pub fn undecodable<E>(cause: E) -> sqlx::Error
where
    E: Into<Box<dyn Error + Send + Sync + 'static>>,
{
    sqlx::Error::Decode(cause.into())
}
