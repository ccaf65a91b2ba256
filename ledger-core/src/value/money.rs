//! Money in US dollars, and what an amount of an account's unit costs.
//!
//! There are two decimal types. An amount of an account's unit is `Credits`: its sums have up to 38 digits, as
//! `numeric(38,9)` has them, and the fold adds them up billions of times. Money is what a person is charged: it is a
//! `rust_decimal::Decimal`, which is known everywhere but holds only 28 digits and rounds silently past them. So every
//! product is computed by `Credits`, and what a `Decimal` can't hold exactly is refused.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::value::credits::{AmountError, Credits, OutOfRange};
use crate::value::scalar::{self, Scalar};

/// Decimal places of the unit that `Credits` counts.
const PLACES: u32 = 9;
/// Minor units (cents) of a dollar.
const CENTS: Credits = Credits::whole(100);

/// An exact sum of US dollars with at most 9 decimal places.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(Decimal);

impl Usd {
    pub const ONE: Usd = Usd(Decimal::ONE);

    /// Returns the cost of an amount at `usd_per_unit`, rounded half-even to 9 places.
    ///
    /// `None` if the price is out of range: it is never rounded to fit.
    pub fn price_of(amount: Credits, usd_per_unit: Usd) -> Option<Usd> {
        let price = amount.mul_div_half_even(usd_per_unit.to_credits(), Credits::whole(1)).ok()?;
        Usd::try_from(price).ok()
    }

    /// Returns the sum in whole cents, rounded up, so that a payer never pays less than they get; `None` if out
    /// of range.
    pub fn minor_units(self) -> Option<i64> {
        let cents = self.to_credits().mul_div_half_even(CENTS, Credits::whole(1)).ok()?.units();
        let whole = cents.div_euclid(Credits::UNITS_PER_CREDIT);
        let rest = i128::from(cents.rem_euclid(Credits::UNITS_PER_CREDIT) > 0);
        i64::try_from(whole + rest).ok()
    }

    pub fn is_positive(self) -> bool {
        self.0 > Decimal::ZERO
    }

    pub fn to_credits(self) -> Credits {
        let scale = PLACES.checked_sub(self.0.scale()).expect("a sum of dollars has at most 9 places");
        Credits::from_units(self.0.mantissa() * 10_i128.pow(scale))
    }
}

impl TryFrom<Credits> for Usd {
    type Error = OutOfRange;

    fn try_from(dollars: Credits) -> Result<Usd, OutOfRange> {
        let exact = Decimal::try_from_i128_with_scale(dollars.units(), PLACES).map_err(|_| OutOfRange)?;
        Ok(Usd(exact.normalize()))
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Usd {
    type Err = AmountError;

    /// Reads the same texts as `Credits`.
    fn from_str(text: &str) -> Result<Usd, AmountError> {
        let dollars: Credits = text.parse()?;
        Usd::try_from(dollars).map_err(|_| AmountError::TooManyDigits)
    }
}

impl Scalar for Usd {
    type Refusal = AmountError;
    const NOT_A_STRING: AmountError = AmountError::NotAnAmount;

    fn from_text(text: &str) -> Result<Usd, AmountError> {
        text.parse()
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Usd, D::Error> {
        scalar::deserialize(from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usd(text: &str) -> Usd {
        text.parse().expect("a sum of dollars")
    }

    #[test]
    fn a_price_is_in_whole_cents_rounded_up() {
        let check = |text: &str, expected: i64| assert_eq!(usd(text).minor_units(), Some(expected), "{text}");
        check("0.5", 50);
        check("0.501", 51);
        check("12.000000001", 1_201);
        check("100000", 10_000_000);
        check("-0.501", -50);
        check("9999999999999999.999999999", 1_000_000_000_000_000_000);
        assert_eq!(usd("10000000000000000").minor_units(), None);
    }

    #[test]
    fn what_a_decimal_cannot_hold_is_refused_and_never_rounded() {
        let largest = Credits::from_units((1 << 96) - 1);
        let beyond = Credits::from_units(1 << 96);
        assert_eq!(Usd::try_from(largest).map(Usd::to_credits), Ok(largest));
        assert_eq!(Usd::try_from(beyond), Err(OutOfRange));
        assert_eq!(Usd::price_of(beyond, Usd::ONE), None);
        assert_eq!(Usd::price_of(Credits::MAX_AMOUNT, usd("1000")), None);
    }

    #[test]
    fn zero_has_no_sign() {
        assert_eq!(usd("-0.00").to_string(), "0");
        assert_eq!(Usd::price_of(Credits::ZERO, usd("-1")).expect("a price").to_string(), "0");
    }

    /// What the payments layer computed before there was `Usd`.
    fn old_cents(price: Credits) -> Option<i64> {
        let cents = price.mul_div_half_even(Credits::whole(100), Credits::whole(1)).ok()?;
        let whole = cents.units().div_euclid(Credits::UNITS_PER_CREDIT);
        let rest = i128::from(cents.units().rem_euclid(Credits::UNITS_PER_CREDIT) > 0);
        i64::try_from(whole + rest).ok()
    }

    /// Amounts of every length, up to the largest.
    fn amount() -> impl Strategy<Value = Credits> {
        let largest = Credits::MAX_AMOUNT.units();
        (-largest..=largest, 0_u32..=27)
            .prop_map(|(units, digits)| Credits::from_units(units / 10_i128.pow(digits)))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

        #[test]
        fn texts_are_those_of_credits(amount in amount()) {
            let text = amount.to_string();
            let read = usd(&text);
            prop_assert_eq!(read.to_credits(), amount);
            prop_assert_eq!(read.to_string(), text.clone());
            prop_assert_eq!(serde_json::to_string(&read).expect("JSON"), serde_json::to_string(&amount).expect("JSON"));
            prop_assert_eq!(serde_json::from_str::<Usd>(&format!("\"{text}\"")).expect("a sum"), read);
        }

        #[test]
        fn any_text_is_read_or_refused_as_credits_are(text in "-?[0-9]{0,20}(\\.[0-9]{0,11})?|\\PC{0,6}") {
            let (read, expected) = (text.parse::<Usd>(), text.parse::<Credits>());
            prop_assert_eq!(read.map(Usd::to_credits), expected);
            prop_assert_eq!(read.map(|read| read.to_string()), expected.map(|read| read.to_string()));
        }

        #[test]
        fn prices_and_cents_are_those_of_credits(amount in amount(), per_unit in amount()) {
            let expected = amount.mul_div_half_even(per_unit, Credits::whole(1)).ok();
            let price = Usd::price_of(amount, Usd::try_from(per_unit).expect("in range"));
            prop_assert_eq!(price.map(Usd::to_credits), expected);
            prop_assert_eq!(price.map(|price| price.to_string()), expected.map(|price| price.to_string()));
            prop_assert_eq!(price.and_then(Usd::minor_units), expected.and_then(old_cents));
        }
    }
}
