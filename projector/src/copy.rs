//! Copy: rows in Postgres's binary `COPY` format, the fastest way in for rows that are only inserted.
//!
//! One buffer a table and batch; a field is its length and its bytes.

use ledger_core::credits::Credits;
use ledger_core::time::Time;
use serde::Serialize;
use sqlx::PgConnection;
use sqlx::encode::IsNull;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};

/// Signature, flags and length of the header's extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Ends the rows.
const TRAILER: i16 = -1;
/// Stands in place of a field's length.
const NULL: i32 = -1;
/// First byte of a `jsonb`.
const JSONB_VERSION: u8 = 1;
/// From the Unix epoch to 2000-01-01, where Postgres counts from.
const MICROS_TO_2000: i64 = 946_684_800_000_000;
/// Object ids of `numeric` and `numeric[]`, fixed in Postgres.
const NUMERIC: Oid = Oid(1700);
const NUMERIC_ARRAY: Oid = Oid(1231);

/// Rows of one table.
#[derive(Debug, Default)]
pub struct CopyRows {
    bytes: Vec<u8>,
}

impl CopyRows {
    /// Begins a row of so many fields; each is then put in order.
    pub fn row(&mut self, fields: i16) -> &mut Self {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(HEADER);
        }
        self.bytes.extend_from_slice(&fields.to_be_bytes());
        self
    }

    /// Puts a text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Puts a text or null.
    pub fn maybe_text(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    /// Puts a `bytea`.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.length(bytes.len());
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Puts an `int`.
    pub fn int(&mut self, number: i32) -> &mut Self {
        self.bytes(&number.to_be_bytes())
    }

    /// Puts an `int` or null.
    pub fn maybe_int(&mut self, number: Option<i32>) -> &mut Self {
        match number {
            Some(number) => self.int(number),
            None => self.null(),
        }
    }

    /// Puts a `bigint`.
    pub fn bigint(&mut self, number: i64) -> &mut Self {
        self.bytes(&number.to_be_bytes())
    }

    /// Puts a `timestamptz`.
    pub fn time(&mut self, time: Time) -> &mut Self {
        self.bigint(time.micros() - MICROS_TO_2000)
    }

    /// Puts a `numeric`.
    pub fn amount(&mut self, amount: Credits) -> &mut Self {
        self.field(|bytes| push_numeric(bytes, amount))
    }

    /// Puts a `numeric` or null.
    pub fn maybe_amount(&mut self, amount: Option<Credits>) -> &mut Self {
        match amount {
            Some(amount) => self.amount(amount),
            None => self.null(),
        }
    }

    /// Puts a `json`.
    pub fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> &mut Self {
        self.field(|bytes| push_json(bytes, value))
    }

    /// Puts a `jsonb`.
    pub fn jsonb<T: Serialize + ?Sized>(&mut self, value: &T) -> &mut Self {
        self.field(|bytes| {
            bytes.push(JSONB_VERSION);
            push_json(bytes, value);
        })
    }

    /// Puts a null.
    pub fn null(&mut self) -> &mut Self {
        self.bytes.extend_from_slice(&NULL.to_be_bytes());
        self
    }

    /// Writes the rows by `statement`, a `copy … from stdin with (format binary)`.
    pub async fn send(mut self, tx: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        self.bytes.extend_from_slice(&TRAILER.to_be_bytes());
        let mut copy = tx.copy_in_raw(statement).await?;
        copy.send(self.bytes).await?;
        copy.finish().await.map(drop)
    }

    /// Puts a field whose length is known only once it is written.
    fn field(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        write(&mut self.bytes);
        let length = (self.bytes.len() - start - 4) as i32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_be_bytes());
        self
    }

    fn length(&mut self, bytes: usize) {
        // A field comes from a record of at most 64 KiB or from a core: far below the 2 GiB of an i32.
        self.bytes.extend_from_slice(&(bytes as i32).to_be_bytes());
    }
}

fn push_json<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(bytes, value).expect("the ledger's own types are plain JSON with string keys");
}

/// Groups of four digits before and after the decimal point of an amount: 30 and 9 digits at most.
const WHOLE_GROUPS: usize = 8;
const GROUPS: usize = WHOLE_GROUPS + 3;
const NEGATIVE: u16 = 0x4000;
/// Places that an amount shows.
const SCALE: u16 = 9;

/// Appends a `numeric` as Postgres sends and receives it: digits to base 10,000.
fn push_numeric(bytes: &mut Vec<u8>, amount: Credits) {
    let magnitude = amount.units().unsigned_abs();
    let per_credit = Credits::UNITS_PER_CREDIT.unsigned_abs();
    let (mut whole, fraction) = (magnitude / per_credit, magnitude % per_credit * 1_000);
    let mut groups = [0_u16; GROUPS];
    groups[WHOLE_GROUPS] = (fraction / 100_000_000) as u16;
    groups[WHOLE_GROUPS + 1] = (fraction / 10_000 % 10_000) as u16;
    groups[WHOLE_GROUPS + 2] = (fraction % 10_000) as u16;
    let mut at = WHOLE_GROUPS;
    while whole > 0 {
        at -= 1;
        groups[at] = (whole % 10_000) as u16;
        whole /= 10_000;
    }
    let first = groups.iter().position(|group| *group != 0).unwrap_or(GROUPS);
    let last = groups.iter().rposition(|group| *group != 0).map_or(first, |last| last + 1);
    let weight = if first == GROUPS { 0 } else { WHOLE_GROUPS as i16 - 1 - first as i16 };
    bytes.extend_from_slice(&((last - first) as u16).to_be_bytes());
    bytes.extend_from_slice(&weight.to_be_bytes());
    bytes.extend_from_slice(&(if amount.is_negative() { NEGATIVE } else { 0 }).to_be_bytes());
    bytes.extend_from_slice(&SCALE.to_be_bytes());
    for group in &groups[first..last] {
        bytes.extend_from_slice(&group.to_be_bytes());
    }
}

/// An amount as a parameter: `numeric` without a detour by text.
#[derive(Debug, Clone, Copy)]
pub struct Amount(pub Credits);

impl sqlx::Type<sqlx::Postgres> for Amount {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(NUMERIC)
    }
}

impl PgHasArrayType for Amount {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(NUMERIC_ARRAY)
    }
}

impl sqlx::Encode<'_, sqlx::Postgres> for Amount {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, sqlx::error::BoxDynError> {
        push_numeric(buffer, self.0);
        Ok(IsNull::No)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(units: i128) -> Vec<i32> {
        let mut bytes = Vec::new();
        push_numeric(&mut bytes, Credits::from_units(units));
        let words: Vec<i32> =
            bytes.chunks(2).map(|word| i32::from(i16::from_be_bytes([word[0], word[1]]))).collect();
        assert_eq!(words[0] as usize, words.len() - 4, "digits announced");
        assert_eq!(words[3], 9, "scale");
        [&words[1..3], &words[4..]].concat()
    }

    #[test]
    fn amounts_are_digits_to_base_10000() {
        // weight, sign, digits
        let check = |units: i128, expected: &[i32]| assert_eq!(numeric(units), expected, "{units}");
        check(0, &[0, 0]);
        check(1, &[-3, 0, 10]);
        check(1_000_000_000, &[0, 0, 1]);
        check(-12_500_000_000, &[0, 0x4000, 12, 5_000]);
        check(10_000 * 1_000_000_000, &[1, 0, 1]);
        check(123_456_789_000_000_001, &[2, 0, 1, 2345, 6789, 0, 0, 10]);
        check(10_i128.pow(37), &[7, 0, 1]);
    }

    #[test]
    fn a_row_is_its_field_count_and_fields_with_lengths() {
        let mut rows = CopyRows::default();
        rows.row(3).text("ab").null().json("x");
        let body = &rows.bytes[HEADER.len()..];
        assert_eq!(body, b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\x03\"x\"");
    }
}
