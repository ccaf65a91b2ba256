//! Exact decimal amounts, and the only places where one is rounded.
//!
//! Integer arithmetic; no amount ever passes through a float.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use ethnum::{I256, U256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::value::scalar::{self, Refusal, Scalar};

/// Decimal places that an amount may have.
const PLACES_MAX: usize = 9;
/// Integer digits of an amount in a request.
const INTEGER_DIGITS_MAX: usize = 18;
/// Integer digits of a sum: what `numeric(38,9)` holds, and all that fits an `i128` of units.
const WIDE_INTEGER_DIGITS_MAX: usize = 29;
/// Longest text of an amount: sign, 30 integer digits, point, 9 places.
const TEXT_BYTES_MAX: usize = 41;

/// Exact amount: a count of 1e-9 units.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Credits(i128);

/// A result beyond the range of amounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("amount out of range")]
pub struct OutOfRange;

/// Why a text is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not of the form `-?digits(.digits)?`, or not a string.
    #[error("an amount is a string such as \"12.5\"")]
    NotAnAmount,
    /// Not a string of that form, nor a whole number.
    #[error("a quantity is a whole number or a string such as \"12.5\"")]
    NotAQuantity,
    /// Neither an amount nor `unlimited`.
    #[error("a limit is a string such as \"500\", or \"unlimited\"")]
    NotALimit,
    /// Finer than 1e-9.
    #[error("at most 9 decimal places")]
    TooManyPlaces,
    #[error("at most 18 integer digits")]
    TooManyDigits,
    #[error("must not be negative")]
    Negative,
}

impl AmountError {
    pub const fn code(self) -> &'static str {
        match self {
            AmountError::NotAnAmount | AmountError::NotAQuantity | AmountError::NotALimit => "not_an_amount",
            AmountError::TooManyPlaces => "too_many_places",
            AmountError::TooManyDigits => "too_many_digits",
            AmountError::Negative => "negative",
        }
    }
}

impl Refusal for AmountError {
    fn code(&self) -> &'static str {
        AmountError::code(*self)
    }
}

impl Credits {
    pub const ZERO: Credits = Credits(0);
    pub const UNITS_PER_CREDIT: i128 = 1_000_000_000;
    /// The largest amount in a request: 18 integer digits, 9 places. Sums may exceed it.
    pub const MAX_AMOUNT: Credits = Credits(999_999_999_999_999_999_999_999_999);

    /// The largest sum that is stored: 29 integer digits, 9 places.
    pub const MAX_SUM: Credits = Credits(99_999_999_999_999_999_999_999_999_999_999_999_999);

    /// Takes a count of 1e-9 units.
    pub const fn from_units(units: i128) -> Credits {
        Credits(units)
    }

    /// Returns the count of 1e-9 units.
    pub const fn units(self) -> i128 {
        self.0
    }

    pub const fn whole(credits: i64) -> Credits {
        Credits(credits as i128 * Credits::UNITS_PER_CREDIT)
    }

    pub fn plus(self, other: Credits) -> Result<Credits, OutOfRange> {
        self.0.checked_add(other.0).map(Credits).ok_or(OutOfRange)
    }

    pub fn minus(self, other: Credits) -> Result<Credits, OutOfRange> {
        self.0.checked_sub(other.0).map(Credits).ok_or(OutOfRange)
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    pub const fn negated(self) -> Credits {
        Credits(self.0.saturating_neg())
    }

    pub const fn abs(self) -> Credits {
        Credits(self.0.saturating_abs())
    }

    /// Returns `self` x `by` / `per` rounded half-even to 9 places, exact in between. `per` must be above zero.
    pub fn mul_div_half_even(self, by: Credits, per: Credits) -> Result<Credits, OutOfRange> {
        if per.0 <= 0 {
            return Err(OutOfRange);
        }
        let product = magnitude(self.0) * magnitude(by.0);
        let rounded = divide_half_even(product, magnitude(per.0));
        if rounded > magnitude(Credits::MAX_AMOUNT.0) {
            return Err(OutOfRange);
        }
        let negative = self.is_negative() != by.is_negative();
        Ok(Credits(signed(rounded.as_i128(), negative)))
    }

    /// Returns `self` as a percentage of `whole`, rounded half-even to 9 places, for display: rules compare exactly.
    ///
    /// `None` if `whole` is not above zero (or so small that the percentage is out of this type's range).
    pub fn percent_of(self, whole: Credits) -> Option<Credits> {
        if whole.0 <= 0 {
            return None;
        }
        let hundredfold = magnitude(self.0) * magnitude(100 * Credits::UNITS_PER_CREDIT);
        let rounded = divide_half_even(hundredfold, magnitude(whole.0));
        let percent = i128::try_from(rounded).ok()?;
        Some(Credits(signed(percent, self.is_negative())))
    }

    /// Compares with `percent` of `whole`, exactly; `None` if `whole` is not above zero.
    pub fn cmp_percent(self, percent: Credits, whole: Credits) -> Option<Ordering> {
        let hundred = 100 * Credits::UNITS_PER_CREDIT;
        // 127 bits times 90 at most: no product overflows.
        let hundredfold = || I256::from(self.0) * I256::from(hundred);
        let part = || I256::from(percent.0) * I256::from(whole.0);
        (whole.0 > 0).then(|| hundredfold().cmp(&part()))
    }

    /// Appends the canonical decimal (`12.5`, `0`, `-3`) to `text`.
    pub fn push_to(&self, text: &mut String) {
        text.push_str(Text::of(*self).as_str());
    }
}

fn magnitude(units: i128) -> U256 {
    U256::from(units.unsigned_abs())
}

fn signed(magnitude: i128, negative: bool) -> i128 {
    if negative { -magnitude } else { magnitude }
}

fn divide_half_even(dividend: U256, divisor: U256) -> U256 {
    let quotient = dividend / divisor;
    let remainder = dividend % divisor;
    // Divisors stay below 2^127, so the doubled remainder cannot overflow.
    let doubled = remainder + remainder;
    let odd = quotient & U256::ONE == U256::ONE;
    if doubled > divisor || (doubled == divisor && odd) { quotient + U256::ONE } else { quotient }
}

/// Adds sums of one account; the bound on its turnover (`fold::TURNOVER_MAX`) keeps every one of them in range.
pub(crate) fn add(a: Credits, b: Credits) -> Credits {
    a.plus(b).expect("an account's turnover is bounded far below the range of an amount")
}

/// Subtracts sums of one account, which stay in range as in `add`.
pub(crate) fn sub(a: Credits, b: Credits) -> Credits {
    a.minus(b).expect("an account's turnover is bounded far below the range of an amount")
}

/// The canonical decimal of an amount, without allocating.
struct Text {
    bytes: [u8; TEXT_BYTES_MAX],
    start: usize,
}

impl Text {
    /// Writes from the last digit backwards.
    fn of(amount: Credits) -> Text {
        let mut text = Text { bytes: [0; TEXT_BYTES_MAX], start: TEXT_BYTES_MAX };
        let units = amount.0.unsigned_abs();
        let units_per_credit = Credits::UNITS_PER_CREDIT.unsigned_abs();
        text.put_places(units % units_per_credit);
        text.put_integer(units / units_per_credit);
        if amount.is_negative() {
            text.put(b'-');
        }
        text
    }

    fn put(&mut self, byte: u8) {
        self.start -= 1;
        self.bytes[self.start] = byte;
    }

    fn put_digit(&mut self, digit: impl TryInto<u8, Error: fmt::Debug>) {
        self.put(b'0' + digit.try_into().expect("a digit is below 10"));
    }

    fn put_places(&mut self, places: u128) {
        if places == 0 {
            return;
        }
        let mut places = u32::try_from(places).expect("less than a whole credit");
        let mut left = PLACES_MAX;
        while places.is_multiple_of(10) {
            places /= 10;
            left -= 1;
        }
        for _ in 0..left {
            self.put_digit(places % 10);
            places /= 10;
        }
        self.put(b'.');
    }

    fn put_integer(&mut self, mut integer: u128) {
        // 128-bit division is slow and only sums need it.
        while integer > u128::from(u64::MAX) {
            self.put_digit(integer % 10);
            integer /= 10;
        }
        let mut integer = u64::try_from(integer).expect("the loop ends in its range");
        loop {
            self.put_digit(integer % 10);
            integer /= 10;
            if integer == 0 {
                break;
            }
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[self.start..]).expect("only ASCII was put")
    }
}

impl fmt::Display for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Text::of(*self).as_str())
    }
}

impl fmt::Debug for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Credits {
    type Err = AmountError;

    /// Reads `-?`, 1 to 18 digits, and optionally a point with 1 to 9 places; nothing else.
    fn from_str(text: &str) -> Result<Credits, AmountError> {
        parse(text, INTEGER_DIGITS_MAX)
    }
}

/// Reads back what `numeric(38,9)` holds: like an amount, with up to 29 integer digits.
pub fn parse_wide(text: &str) -> Result<Credits, AmountError> {
    parse(text, WIDE_INTEGER_DIGITS_MAX)
}

/// Reads from JSON a sum that the ledger itself wrote, which may have up to 29 integer digits.
pub fn wide<'de, D: Deserializer<'de>>(from: D) -> Result<Credits, D::Error> {
    Wide::deserialize(from).map(|Wide(sum)| sum)
}

/// A sum of amounts, read back from JSON.
pub(crate) struct Wide(pub Credits);

impl<'de> Deserialize<'de> for Wide {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Wide, D::Error> {
        scalar::deserialize(from)
    }
}

impl Scalar for Wide {
    type Refusal = AmountError;
    const NOT_A_STRING: AmountError = AmountError::NotAnAmount;

    fn from_text(text: &str) -> Result<Wide, AmountError> {
        parse_wide(text).map(Wide)
    }
}

fn parse(text: &str, integer_digits_max: usize) -> Result<Credits, AmountError> {
    let bytes = text.as_bytes();
    let (negative, unsigned) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, bytes),
    };
    let point = unsigned.iter().position(|byte| *byte == b'.');
    let (integer, places) = match point {
        Some(at) => (&unsigned[..at], &unsigned[at + 1..]),
        None => (unsigned, &b"0"[..]),
    };
    if !are_digits(integer) || !are_digits(places) {
        return Err(AmountError::NotAnAmount);
    }
    if integer.len() > integer_digits_max {
        return Err(AmountError::TooManyDigits);
    }
    if places.len() > PLACES_MAX {
        return Err(AmountError::TooManyPlaces);
    }
    let padded = places.iter().copied().chain(std::iter::repeat(b'0')).take(PLACES_MAX);
    let fraction = i128::from(digits_value(padded));
    let units = integer_value(integer) * Credits::UNITS_PER_CREDIT + fraction;
    Ok(Credits(signed(units, negative)))
}

fn are_digits(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)
}

/// Returns the value of up to 29 digits.
fn integer_value(digits: &[u8]) -> i128 {
    const STEP_DIGITS: usize = 18;
    const STEP: i128 = 1_000_000_000_000_000_000;
    match digits.len().checked_sub(STEP_DIGITS) {
        None | Some(0) => i128::from(digits_value(digits.iter().copied())),
        Some(split) => {
            let (high, low) = digits.split_at(split);
            i128::from(digits_value(high.iter().copied())) * STEP
                + i128::from(digits_value(low.iter().copied()))
        }
    }
}

/// Returns the value of up to 18 digits, which always fits.
fn digits_value(digits: impl IntoIterator<Item = u8>) -> u64 {
    digits.into_iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))
}

impl Scalar for Credits {
    type Refusal = AmountError;
    const NOT_A_STRING: AmountError = AmountError::NotAnAmount;

    fn from_text(text: &str) -> Result<Credits, AmountError> {
        text.parse()
    }
}

impl Serialize for Credits {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(Text::of(*self).as_str())
    }
}

impl<'de> Deserialize<'de> for Credits {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Credits, D::Error> {
        scalar::deserialize(from)
    }
}

/// An amount of something used, never below zero; accepts whole JSON numbers as well as strings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Quantity(Credits);

impl Quantity {
    /// Errors: a negative amount.
    pub fn new(amount: Credits) -> Result<Quantity, AmountError> {
        if amount.is_negative() {
            return Err(AmountError::Negative);
        }
        Ok(Quantity(amount))
    }

    pub const fn amount(self) -> Credits {
        self.0
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Quantity {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Quantity, AmountError> {
        Quantity::new(text.parse()?)
    }
}

impl Scalar for Quantity {
    type Refusal = AmountError;
    const NOT_A_STRING: AmountError = AmountError::NotAQuantity;

    fn from_text(text: &str) -> Result<Quantity, AmountError> {
        text.parse()
    }

    fn from_whole(number: i128) -> Result<Quantity, AmountError> {
        let quantity = Quantity::new(Credits(number * Credits::UNITS_PER_CREDIT))?;
        if quantity.0 > Credits::MAX_AMOUNT {
            return Err(AmountError::TooManyDigits);
        }
        Ok(quantity)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Quantity, D::Error> {
        scalar::deserialize(from)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn credits(text: &str) -> Credits {
        parse_wide(text).unwrap()
    }

    fn check_read(text: &str, expected: Result<&str, AmountError>) {
        let shown = text.parse::<Credits>().map(|amount| amount.to_string());
        assert_eq!(shown, expected.map(str::to_owned), "reading {text:?}");
    }

    #[test]
    fn an_amount_is_shown_without_exponent_and_trailing_zeros() {
        check_read("12.50", Ok("12.5"));
        check_read("0", Ok("0"));
        check_read("-0", Ok("0"));
        check_read("-0.000000000", Ok("0"));
        check_read("-3", Ok("-3"));
        check_read("-0.5", Ok("-0.5"));
        check_read("007.10", Ok("7.1"));
        check_read("10", Ok("10"));
        check_read("0.000000001", Ok("0.000000001"));
        check_read("100.000000010", Ok("100.00000001"));
        check_read("999999999999999999.999999999", Ok("999999999999999999.999999999"));
        check_read("-999999999999999999.999999999", Ok("-999999999999999999.999999999"));
        assert_eq!(format!("{:>6}|{:?}", credits("1.5"), credits("-1.5")), "   1.5|-1.5");
    }

    #[test]
    fn nothing_but_a_plain_decimal_is_an_amount() {
        let texts = [
            "",
            "-",
            ".",
            "1.",
            ".5",
            "-.5",
            "+1",
            " 1",
            "1 ",
            "1e5",
            "1E5",
            "--1",
            "1-",
            "1,5",
            "1_000",
            "0x10",
            "NaN",
            "inf",
            "1.2.3",
            "1..2",
            "٣",
            "½",
            "1\n",
            "1\0",
            "−1",
            "1.-5",
            "12345678901234567890x",
            "1.1234567890x",
        ];
        for text in texts {
            check_read(text, Err(AmountError::NotAnAmount));
        }
    }

    #[test]
    fn an_amount_has_at_most_18_integer_digits_and_9_places() {
        check_read("1234567890123456789", Err(AmountError::TooManyDigits));
        check_read("0000000000000000001", Err(AmountError::TooManyDigits));
        check_read("1.1234567891", Err(AmountError::TooManyPlaces));
        check_read("1.0000000000", Err(AmountError::TooManyPlaces));
        assert_eq!("999999999999999999.999999999".parse(), Ok(Credits::MAX_AMOUNT));
    }

    #[test]
    fn percents_are_compared_exactly() {
        let check = |part: &str, percent: &str, whole: &str, expected| {
            assert_eq!(
                credits(part).cmp_percent(credits(percent), credits(whole)),
                expected,
                "{part} {percent} {whole}"
            );
        };
        check("7500", "75", "10000", Some(Ordering::Equal));
        check("7499.999999999", "75", "10000", Some(Ordering::Less));
        check("1", "33.333333333", "3", Some(Ordering::Greater));
        check("1", "33.333333334", "3", Some(Ordering::Less));
        check("0.000000001", "0.000000001", "100", Some(Ordering::Equal));
        check("-1", "0", "3", Some(Ordering::Less));
        check("1", "75", "0", None);
        check("1", "75", "-1", None);
        let (most, least) = (Credits::MAX_SUM, Credits::from_units(1));
        assert_eq!(most.cmp_percent(Credits::MAX_AMOUNT, most), Some(Ordering::Less));
        assert_eq!(most.cmp_percent(Credits::whole(100), most), Some(Ordering::Equal));
        assert_eq!(most.cmp_percent(Credits::MAX_AMOUNT, least), Some(Ordering::Greater));
        assert_eq!(most.negated().cmp_percent(Credits::MAX_AMOUNT.negated(), most), Some(Ordering::Greater));
    }

    #[test]
    fn a_sum_is_read_back_from_json_beyond_what_an_amount_may_be() {
        let read = |text: &str| wide(&mut serde_json::Deserializer::from_str(text)).ok();
        let json = serde_json::to_string(&Credits::MAX_SUM).unwrap();
        assert_eq!(read(&json), Some(Credits::MAX_SUM));
        assert_eq!(read("\"-12.5\""), Some(credits("-12.5")));
        assert_eq!((read("12"), read("\"x\"")), (None, None));
    }

    #[test]
    fn sums_are_read_back_beyond_what_an_amount_may_be() {
        let widest = "-99999999999999999999999999999.999999999";
        assert_eq!(credits(widest).to_string(), widest);
        assert_eq!(credits("1000000000000000000").units(), 10_i128.pow(27));
        assert_eq!(parse_wide("100000000000000000000000000000"), Err(AmountError::TooManyDigits));
        assert_eq!(parse_wide("1e5"), Err(AmountError::NotAnAmount));
    }

    #[test]
    fn the_ends_of_the_range_are_shown_and_never_passed() {
        let (lowest, highest) = (Credits::from_units(i128::MIN), Credits::from_units(i128::MAX));
        assert_eq!(lowest.to_string(), "-170141183460469231731687303715.884105728");
        assert_eq!(highest.to_string(), "170141183460469231731687303715.884105727");
        assert_eq!(highest.plus(Credits::from_units(1)), Err(OutOfRange));
        assert_eq!(lowest.minus(Credits::from_units(1)), Err(OutOfRange));
        assert_eq!(lowest.negated(), highest);
        assert_eq!(lowest.abs(), highest);
    }

    fn check_priced(quantity: &str, price: &str, per: &str, expected: Result<&str, OutOfRange>) {
        let priced = credits(quantity).mul_div_half_even(credits(price), credits(per));
        assert_eq!(
            priced.map(|amount| amount.to_string()),
            expected.map(str::to_owned),
            "{quantity} x {price} / {per}"
        );
    }

    #[test]
    fn a_price_line_is_rounded_half_even_to_9_places() {
        check_priced("1200", "250", "1000000", Ok("0.3"));
        check_priced("80", "1000", "1000000", Ok("0.08"));
        check_priced("1", "1", "60", Ok("0.016666667"));
        check_priced("1", "0.000000001", "2", Ok("0"));
        check_priced("3", "0.000000001", "2", Ok("0.000000002"));
        check_priced("5", "0.000000001", "2", Ok("0.000000002"));
        check_priced("5.000000001", "0.000000001", "2", Ok("0.000000003"));
        check_priced("-3", "0.000000001", "2", Ok("-0.000000002"));
        check_priced("-1", "0.000000001", "2", Ok("0"));
        check_priced("1", "-1", "60", Ok("-0.016666667"));
    }

    #[test]
    fn a_price_line_is_exact_at_any_size_and_refused_beyond_the_largest_amount() {
        let max = "999999999999999999.999999999";
        check_priced(max, max, max, Ok(max));
        check_priced(max, "1", "1", Ok(max));
        check_priced(max, "1.000000001", "1", Err(OutOfRange));
        check_priced(max, max, "0.000000001", Err(OutOfRange));
        check_priced("1", "1", "0", Err(OutOfRange));
        check_priced("1", "1", "-1", Err(OutOfRange));
    }

    #[test]
    fn a_percentage_needs_a_whole_above_zero() {
        let check = |part: &str, whole: &str, expected: Option<&str>| {
            let percent = credits(part).percent_of(credits(whole)).map(|percent| percent.to_string());
            assert_eq!(percent.as_deref(), expected, "{part} of {whole}");
        };
        check("7500", "10000", Some("75"));
        check("1", "3", Some("33.333333333"));
        check("2", "3", Some("66.666666667"));
        check("-1", "4", Some("-25"));
        check("15", "10", Some("150"));
        check("1", "0", None);
        check("1", "-5", None);
        check("999999999999999999.999999999", "0.000000001", Some("99999999999999999999999999900"));
        check("99999999999999999999999999999", "0.000000001", None);
    }

    fn refusal<T: serde::de::DeserializeOwned + fmt::Debug>(json: &str) -> String {
        let message = serde_json::from_str::<T>(json).unwrap_err().to_string();
        message.split(" at line").next().unwrap().to_owned()
    }

    #[test]
    fn json_carries_amounts_as_strings_only() {
        assert_eq!(serde_json::from_str::<Credits>("\"12.50\"").unwrap(), credits("12.5"));
        assert_eq!(serde_json::from_str::<Credits>(r#""\u0031""#).unwrap(), credits("1"));
        assert_eq!(serde_json::to_string(&credits("-12.50")).unwrap(), "\"-12.5\"");
        for json in ["12", "-12", "12.5", "true", "null", "[\"1\"]", "{\"a\":[1]}", "\"1e5\"", "\"\""] {
            assert_eq!(
                refusal::<Credits>(json),
                "not_an_amount: an amount is a string such as \"12.5\"",
                "{json}"
            );
        }
        assert_eq!(refusal::<Credits>("\"0.1234567891\""), "too_many_places: at most 9 decimal places");
        assert_eq!(
            refusal::<Credits>("\"1234567890123456789\""),
            "too_many_digits: at most 18 integer digits"
        );
    }

    #[test]
    fn a_quantity_may_be_a_whole_number_and_is_never_negative() {
        let read = |json: &str| serde_json::from_str::<Quantity>(json).unwrap().to_string();
        assert_eq!(read("1200"), "1200");
        assert_eq!(read("\"1200.50\""), "1200.5");
        assert_eq!(read("999999999999999999"), "999999999999999999");
        assert_eq!(read("\"-0\""), "0");
        assert_eq!(refusal::<Quantity>("1000000000000000000"), "too_many_digits: at most 18 integer digits");
        assert_eq!(refusal::<Quantity>("-1"), "negative: must not be negative");
        assert_eq!(refusal::<Quantity>("\"-0.1\""), "negative: must not be negative");
        for json in ["1200.0", "1.2e3", "12e2"] {
            assert_eq!(read(json), "1200", "{json}");
        }
        assert_eq!(read("-0.0"), "0");
        assert_eq!(read("9007199254740992.0"), "9007199254740992");
        assert_eq!(refusal::<Quantity>("-1.0"), "negative: must not be negative");
        for json in ["1.5", "1e-3", "9007199254740994.0", "1e300", "true", "null", "[1]", "{}"] {
            let expected = "not_an_amount: a quantity is a whole number or a string such as \"12.5\"";
            assert_eq!(refusal::<Quantity>(json), expected, "{json}");
        }
        assert_eq!(serde_json::to_string(&Quantity::new(credits("7")).unwrap()).unwrap(), "\"7\"");
    }

    proptest! {
        #[test]
        fn every_amount_reads_back_as_itself(units in any::<i128>(), narrow in 0_u32..100) {
            let amount = Credits::from_units((units >> narrow).clamp(-(10_i128.pow(38) - 1), 10_i128.pow(38) - 1));
            let mut pushed = String::from(">");
            amount.push_to(&mut pushed);
            prop_assert_eq!(&pushed, &format!(">{amount}"));
            prop_assert_eq!(parse_wide(&pushed[1..]), Ok(amount));
            prop_assert_eq!(amount.to_string().parse() == Ok(amount), amount.abs() <= Credits::MAX_AMOUNT);
        }

        #[test]
        fn rounding_is_never_off_by_more_than_half_a_unit(a in -(1_i128 << 60)..1 << 60, b in -(1_i128 << 60)..1 << 60, per in 1_i128..1 << 60) {
            let amount = |units| Credits::from_units(units);
            if let Ok(rounded) = amount(a).mul_div_half_even(amount(b), amount(per)) {
                // rounded * per may need more than 128 bits; wrapping is harmless where the difference is small.
                let error_doubled = rounded.units().wrapping_mul(per).wrapping_sub(a * b).wrapping_mul(2);
                prop_assert!(error_doubled.abs() <= per);
                prop_assert!(error_doubled.abs() < per || rounded.units() % 2 == 0);
            }
        }
    }
}
