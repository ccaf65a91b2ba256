//! Rows to insert into one table, kept by column as arrays in Postgres's binary form.
//!
//! One statement inserts them all by `unnest`. Not by `COPY`: sqlx sends its end as a packet of its own and without
//! `TCP_NODELAY`, so each would wait 40 ms for the server's delayed acknowledgement.

use ledger_core::value::credits::Credits;
use ledger_core::value::time::Time;
use serde::Serialize;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgHasArrayType, PgRow, PgTypeInfo};
use sqlx::{PgConnection, Postgres};
use uuid::Uuid;

use crate::heartbeat;

/// First byte of a `jsonb`.
const JSONB_VERSION: u8 = 1;
/// The length that marks a null.
const NULL: i32 = -1;
/// From the Unix epoch to 2000-01-01, where Postgres counts from.
const MICROS_TO_2000: i64 = 946_684_800_000_000;

/// A type of Postgres by its object id and its array's, which never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    element: Oid,
    array: Oid,
}

impl Kind {
    const BYTEA: Kind = Kind::new(17, 1001);
    const BIGINT: Kind = Kind::new(20, 1016);
    const INT: Kind = Kind::new(23, 1007);
    const TEXT: Kind = Kind::new(25, 1009);
    const JSON: Kind = Kind::new(114, 199);
    const TIMESTAMPTZ: Kind = Kind::new(1184, 1185);
    const UUID: Kind = Kind::new(2950, 2951);
    const NUMERIC: Kind = Kind::new(1700, 1231);
    const JSONB: Kind = Kind::new(3802, 3807);

    const fn new(element: u32, array: u32) -> Self {
        Self { element: Oid(element), array: Oid(array) }
    }
}

#[derive(Debug, Default)]
pub struct Rows {
    columns: Vec<Column>,
    count: i32,
    /// The next column of the current row.
    next: usize,
}

/// The fields of one column, each with its length.
#[derive(Debug)]
struct Column {
    kind: Kind,
    count: i32,
    has_nulls: bool,
    bytes: Vec<u8>,
}

impl Rows {
    /// Starts a row; its fields follow in order, of the same kinds in every row.
    pub fn row(&mut self) -> &mut Self {
        debug_assert_eq!(self.next, self.columns.len(), "the row before is whole");
        self.count += 1;
        self.next = 0;
        self
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or_default()
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.maybe_text(Some(text))
    }

    pub fn maybe_text(&mut self, text: Option<&str>) -> &mut Self {
        self.field(Kind::TEXT, text, |text, bytes| bytes.extend_from_slice(text.as_bytes()))
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.maybe_bytes(Some(bytes))
    }

    pub fn maybe_bytes(&mut self, field: Option<&[u8]>) -> &mut Self {
        self.field(Kind::BYTEA, field, |field, bytes| bytes.extend_from_slice(field))
    }

    pub fn int(&mut self, number: i32) -> &mut Self {
        self.maybe_int(Some(number))
    }

    pub fn maybe_int(&mut self, number: Option<i32>) -> &mut Self {
        self.field(Kind::INT, number, |number, bytes| bytes.extend_from_slice(&number.to_be_bytes()))
    }

    pub fn bigint(&mut self, number: i64) -> &mut Self {
        self.maybe_bigint(Some(number))
    }

    pub fn maybe_bigint(&mut self, number: Option<i64>) -> &mut Self {
        let push = |number: i64, bytes: &mut Vec<u8>| bytes.extend_from_slice(&number.to_be_bytes());
        self.field(Kind::BIGINT, number, push)
    }

    pub fn uuid(&mut self, id: Uuid) -> &mut Self {
        self.field(Kind::UUID, Some(id), |id, bytes| bytes.extend_from_slice(id.as_bytes()))
    }

    pub fn time(&mut self, time: Time) -> &mut Self {
        let since_2000 = time.micros() - MICROS_TO_2000;
        let push = |micros: i64, bytes: &mut Vec<u8>| bytes.extend_from_slice(&micros.to_be_bytes());
        self.field(Kind::TIMESTAMPTZ, Some(since_2000), push)
    }

    pub fn amount(&mut self, amount: Credits) -> &mut Self {
        self.maybe_amount(Some(amount))
    }

    pub fn maybe_amount(&mut self, amount: Option<Credits>) -> &mut Self {
        self.field(Kind::NUMERIC, amount, |amount, bytes| push_numeric(bytes, amount))
    }

    pub fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> &mut Self {
        self.maybe_json(Some(value))
    }

    pub fn maybe_json<T: Serialize + ?Sized>(&mut self, value: Option<&T>) -> &mut Self {
        self.field(Kind::JSON, value, |value, bytes| push_json(bytes, value))
    }

    /// Puts a `json` that is already serialised.
    pub fn json_text(&mut self, json: &[u8]) -> &mut Self {
        self.field(Kind::JSON, Some(json), |json, bytes| bytes.extend_from_slice(json))
    }

    pub fn jsonb<T: Serialize + ?Sized>(&mut self, value: &T) -> &mut Self {
        self.field(Kind::JSONB, Some(value), |value, bytes| {
            bytes.push(JSONB_VERSION);
            push_json(bytes, value);
        })
    }

    /// Inserts the rows by a statement whose parameters are the columns in order.
    pub async fn send(&self, tx: &mut PgConnection, statement: &'static str) -> Result<(), sqlx::Error> {
        self.insert(tx, statement).await.map(drop)
    }

    /// Sends the rows, and returns how many the statement wrote.
    pub async fn insert(&self, tx: &mut PgConnection, statement: &'static str) -> Result<u64, sqlx::Error> {
        if self.is_empty() {
            return Ok(0);
        }
        heartbeat::beat();
        Ok(Rows::query(&[self], statement).execute(tx).await?.rows_affected())
    }

    /// Sends the rows to a statement that answers with rows.
    pub async fn ask(
        &self,
        tx: &mut PgConnection,
        statement: &'static str,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        if self.is_empty() { Ok(Vec::new()) } else { Rows::query(&[self], statement).fetch_all(tx).await }
    }

    /// Inserts rows of several tables, none of them empty, by a statement whose parameters are their columns in order.
    pub async fn send_all(
        tx: &mut PgConnection,
        all: &[&Rows],
        statement: &'static str,
    ) -> Result<(), sqlx::Error> {
        Rows::query(all, statement).execute(tx).await.map(drop)
    }

    fn query<'r>(all: &[&'r Rows], statement: &'static str) -> sqlx::query::Query<'r, Postgres, PgArguments> {
        debug_assert!(all.iter().all(|rows| !rows.is_empty()), "columns are known by their first row");
        let columns = all.iter().flat_map(|rows| &rows.columns);
        columns.fold(sqlx::query(statement), |query, column| query.bind(column))
    }

    fn field<T>(&mut self, kind: Kind, value: Option<T>, push: impl FnOnce(T, &mut Vec<u8>)) -> &mut Self {
        if self.next == self.columns.len() {
            debug_assert_eq!(self.count, 1, "only the first row says which columns there are");
            self.columns.push(Column { kind, count: 0, has_nulls: false, bytes: Vec::new() });
        }
        self.columns[self.next].put(kind, value, push);
        self.next += 1;
        self
    }
}

impl Column {
    fn put<T>(&mut self, kind: Kind, value: Option<T>, push: impl FnOnce(T, &mut Vec<u8>)) {
        debug_assert_eq!(self.kind, kind, "a column is of one kind");
        self.count += 1;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&NULL.to_be_bytes());
        let Some(value) = value else {
            self.has_nulls = true;
            return;
        };
        push(value, &mut self.bytes);
        // A field comes from a record of at most 64 KiB or from a core: far below the 2 GiB of an i32.
        let length = self.bytes.len() - start - 4;
        let length = i32::try_from(length).expect("a field of less than 2 GiB");
        self.bytes[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
}

impl sqlx::Type<sqlx::Postgres> for Column {
    fn type_info() -> PgTypeInfo {
        // Unused: `produces` returns the type of each column.
        PgTypeInfo::with_oid(Kind::TEXT.array)
    }
}

impl sqlx::Encode<'_, sqlx::Postgres> for Column {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let (dimensions, first_index) = (1_i32, 1_i32);
        buffer.extend_from_slice(&dimensions.to_be_bytes());
        buffer.extend_from_slice(&i32::from(self.has_nulls).to_be_bytes());
        buffer.extend_from_slice(&self.kind.element.0.to_be_bytes());
        buffer.extend_from_slice(&self.count.to_be_bytes());
        buffer.extend_from_slice(&first_index.to_be_bytes());
        buffer.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(self.kind.array))
    }
}

fn push_json<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(bytes, value).expect("the ledger's own types are plain JSON with string keys");
}

/// Returns one column of rows, to bind as an array.
pub fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// Groups of four digits before and after the decimal point of an amount: 30 and 9 digits at most.
const WHOLE_GROUPS: usize = 8;
const GROUPS: usize = WHOLE_GROUPS + 3;
const NEGATIVE: u16 = 0x4000;
/// Decimal places of an amount.
const SCALE: u16 = 9;

/// Returns one base-10,000 digit.
fn group(digit: u128) -> u16 {
    u16::try_from(digit).expect("below 10,000")
}

/// Converts a count of groups to its wire type.
fn groups_sent(groups: usize) -> i16 {
    i16::try_from(groups).expect("at most 11 groups")
}

/// Appends a `numeric` in Postgres's binary format: base-10,000 digits.
fn push_numeric(bytes: &mut Vec<u8>, amount: Credits) {
    let magnitude = amount.units().unsigned_abs();
    let per_credit = Credits::UNITS_PER_CREDIT.unsigned_abs();
    let (mut whole, fraction) = (magnitude / per_credit, magnitude % per_credit * 1_000);
    let mut groups = [0_u16; GROUPS];
    groups[WHOLE_GROUPS] = group(fraction / 100_000_000);
    groups[WHOLE_GROUPS + 1] = group(fraction / 10_000 % 10_000);
    groups[WHOLE_GROUPS + 2] = group(fraction % 10_000);
    let mut at = WHOLE_GROUPS;
    while whole > 0 {
        at -= 1;
        groups[at] = group(whole % 10_000);
        whole /= 10_000;
    }
    let first = groups.iter().position(|group| *group != 0).unwrap_or(GROUPS);
    let last = groups.iter().rposition(|group| *group != 0).map_or(first, |last| last + 1);
    let weight = if first == GROUPS { 0 } else { groups_sent(WHOLE_GROUPS) - 1 - groups_sent(first) };
    bytes.extend_from_slice(&groups_sent(last - first).to_be_bytes());
    bytes.extend_from_slice(&weight.to_be_bytes());
    bytes.extend_from_slice(&(if amount.is_negative() { NEGATIVE } else { 0 }).to_be_bytes());
    bytes.extend_from_slice(&SCALE.to_be_bytes());
    for group in &groups[first..last] {
        bytes.extend_from_slice(&group.to_be_bytes());
    }
}

/// An amount as a `numeric` parameter, without conversion to text.
#[derive(Debug, Clone, Copy)]
pub struct Amount(pub Credits);

impl sqlx::Type<sqlx::Postgres> for Amount {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Kind::NUMERIC.element)
    }
}

impl PgHasArrayType for Amount {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Kind::NUMERIC.array)
    }
}

impl sqlx::Encode<'_, sqlx::Postgres> for Amount {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
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
        assert_eq!(usize::try_from(words[0]), Ok(words.len() - 4), "digits announced");
        assert_eq!(words[3], 9, "scale");
        [&words[1..3], &words[4..]].concat()
    }

    #[test]
    fn amounts_are_digits_to_base_10000() {
        // weight, sign, digits
        let check = |units: i128, expected: &[i32]| assert_eq!(numeric(units), expected, "{units}");
        check(0, &[0, 0]);
        check(1, &[-3, 0, 1_000]);
        check(1_000_000_000, &[0, 0, 1]);
        check(-12_500_000_000, &[0, 0x4000, 12, 5_000]);
        check(10_000 * 1_000_000_000, &[1, 0, 1]);
        check(123_456_789_000_000_001, &[2, 0, 1, 2345, 6789, 0, 0, 1_000]);
        check(10_i128.pow(37), &[7, 0, 1]);
    }

    #[test]
    fn a_column_is_its_fields_with_their_lengths() {
        let mut rows = Rows::default();
        rows.row().text("ab").maybe_int(None);
        rows.row().text("").maybe_int(Some(7));
        let [names, numbers] = rows.columns.as_slice() else { panic!("two columns") };
        assert_eq!((names.count, names.has_nulls), (2, false));
        assert_eq!(names.bytes, b"\0\0\0\x02ab\0\0\0\0");
        assert_eq!((numbers.count, numbers.has_nulls), (2, true));
        assert_eq!(numbers.bytes, b"\xff\xff\xff\xff\0\0\0\x04\0\0\0\x07");
    }
}
