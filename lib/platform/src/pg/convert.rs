//! Converts between the ledger's scalars and Postgres values.
//!
//! Amounts are sent as text (`$1::text::numeric` in, `amount::text` out): exact at any width.

use chrono::{DateTime, Utc};
use ledger_core::value::credits::{Credits, parse_wide};
use ledger_core::value::money::Usd;
use ledger_core::value::time::Time;

/// Returns the text to bind where SQL says `$n::text::numeric` (or `$n::text[]::numeric[]`).
pub fn numeric_text(amount: Credits) -> String {
    amount.to_string()
}

/// Reads a column selected as `amount::text`.
pub fn credits_of(text: &str) -> Result<Credits, sqlx::Error> {
    parse_wide(text).map_err(|refusal| sqlx::Error::Decode(format!("amount {text}: {refusal}").into()))
}

/// Reads a column of dollars selected as `usd::text`.
pub fn usd_of(text: &str) -> Result<Usd, sqlx::Error> {
    Usd::try_from(credits_of(text)?)
        .map_err(|refusal| sqlx::Error::Decode(format!("usd {text}: {refusal}").into()))
}

/// Returns the value to bind to a `timestamptz`.
pub fn timestamp(time: Time) -> DateTime<Utc> {
    time.to_chrono()
}

/// Reads a `timestamptz` column.
pub fn time_of(column: DateTime<Utc>) -> Time {
    Time::from_chrono(column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_as_wide_as_the_column_read_back() {
        for text in ["0", "-12.5", "99999999999999999999999999999.999999999", "0.000000001"] {
            let amount = credits_of(text).expect("fits numeric(38,9)");
            assert_eq!(numeric_text(amount), text);
        }
        assert_eq!(credits_of("10.500000000").map(numeric_text).ok().as_deref(), Some("10.5"));
        assert!(credits_of("NaN").is_err());
    }

    #[test]
    fn times_keep_their_microseconds() {
        let time: Time = "2026-02-03T10:00:00.000001Z".parse().expect("a time");
        assert_eq!(time_of(timestamp(time)), time);
    }
}
