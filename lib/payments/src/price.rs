//! What an amount of an account's unit costs at a provider: one rule for the sandbox and for Stripe.

use ledger_core::event;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::Currency;
use ledger_core::value::money::Usd;

/// The currency of every order and charge, as the provider names it.
pub const CURRENCY: &str = "usd";
/// Least that one payment may be, in cents: Stripe's minimum for dollars.
pub const MINOR_UNITS_MIN: i64 = 50;
/// Most that one payment may be, in cents: Stripe takes eight digits.
pub const MINOR_UNITS_MAX: i64 = 99_999_999;
const MINOR_UNITS_PER_USD: Credits = Credits::whole(100);
/// Currencies whose smallest unit at Stripe is the whole one.
const WITHOUT_MINOR_UNITS: [&str; 15] =
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"];
/// Currencies of a thousand units each.
const WITH_THOUSANDTHS: [&str; 5] = ["bhd", "jod", "kwd", "omr", "tnd"];

/// A price that a provider accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    pub usd: Usd,
    /// The same in cents.
    pub minor_units: i64,
}

/// Why an amount can't be paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unpayable {
    #[error("the account's unit has no price: set usd_per_unit when it is opened")]
    NoPrice,
    #[error("costs less than the least that can be paid at once, 0.50 USD")]
    TooSmall,
    #[error("costs more than can be paid at once, 999999.99 USD")]
    TooLarge,
    #[error("costs a fraction of a cent, which can't be paid")]
    TooFine,
}

impl Unpayable {
    /// Returns the code of a problem or of a bad field.
    pub fn code(self) -> &'static str {
        match self {
            Unpayable::NoPrice => "no_price",
            Unpayable::TooSmall => "too_small",
            Unpayable::TooLarge => "out_of_range",
            Unpayable::TooFine => "too_fine",
        }
    }
}

impl Price {
    /// Returns the price of an amount at `usd_per_unit`.
    pub fn of(amount: Credits, usd_per_unit: Option<Usd>) -> Result<Price, Unpayable> {
        let per_unit = usd_per_unit.ok_or(Unpayable::NoPrice)?;
        let usd = Usd::price_of(amount, per_unit).ok_or(Unpayable::TooLarge)?;
        let minor_units = usd.minor_units().ok_or(Unpayable::TooLarge)?;
        if minor_units > MINOR_UNITS_MAX {
            return Err(Unpayable::TooLarge);
        }
        if minor_units < MINOR_UNITS_MIN {
            return Err(Unpayable::TooSmall);
        }
        let price = Price { usd, minor_units };
        if price.is_whole() { Ok(price) } else { Err(Unpayable::TooFine) }
    }

    /// Returns whether the dollars are whole cents.
    fn is_whole(self) -> bool {
        let whole = Credits::whole(self.minor_units);
        let cents = self.usd.to_credits().mul_div_half_even(MINOR_UNITS_PER_USD, Credits::whole(1));
        cents.is_ok_and(|cents| cents == whole)
    }
}

/// Returns minor units of [`CURRENCY`] as dollars.
pub fn usd_of_minor_units(minor_units: i64) -> Option<Usd> {
    let usd = Credits::whole(minor_units).mul_div_half_even(Credits::whole(1), MINOR_UNITS_PER_USD).ok()?;
    Usd::try_from(usd).ok()
}

/// Returns the money that a provider says was paid; none where it does not name the currency, in lower case.
pub fn paid_price(minor_units: i64, currency: &str) -> Option<event::Price> {
    let per_unit = match currency {
        _ if WITHOUT_MINOR_UNITS.contains(&currency) => 1,
        _ if WITH_THOUSANDTHS.contains(&currency) => 1_000,
        _ => 100,
    };
    let amount = Credits::whole(minor_units).mul_div_half_even(Credits::whole(1), Credits::whole(per_unit));
    let price = event::Price { amount: amount.ok()?, currency: Currency::new(currency).ok()? };
    (minor_units >= 0).then_some(price)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_paid_is_in_whole_units_of_its_currency() {
        let check = |minor_units: i64, currency: &str, expected: Option<&str>| {
            let price = paid_price(minor_units, currency);
            assert_eq!(price.map(|price| price.amount.to_string()).as_deref(), expected, "{currency}");
        };
        check(9_001, "usd", Some("90.01"));
        check(9_001, "jpy", Some("9001"));
        check(9_001, "kwd", Some("9.001"));
        check(0, "usd", Some("0"));
        check(-1, "usd", None);
        check(9_001, "USD", None);
        check(9_001, "", None);
    }

    fn check(amount: &str, per_unit: &str, expected: Result<i64, Unpayable>) {
        let per_unit = per_unit.parse().ok();
        let price = Price::of(amount.parse().expect("an amount"), per_unit);
        assert_eq!(price.map(|price| price.minor_units), expected, "{amount} at {per_unit:?}");
    }

    #[test]
    fn what_a_provider_would_refuse_has_no_price() {
        check("50", "0.01", Ok(50));
        check("49", "0.01", Err(Unpayable::TooSmall));
        check("0.001", "1", Err(Unpayable::TooSmall));
        check("101", "0.015", Err(Unpayable::TooFine));
        check("102", "0.015", Ok(153));
        check("999999.99", "1", Ok(MINOR_UNITS_MAX));
        check("1000000", "1", Err(Unpayable::TooLarge));
        check("999999999999999999", "1", Err(Unpayable::TooLarge));
        check("100", "none", Err(Unpayable::NoPrice));
    }

    #[test]
    fn minor_units_read_back_as_dollars() {
        for (minor_units, usd) in [(50, "0.5"), (153, "1.53"), (MINOR_UNITS_MAX, "999999.99")] {
            assert_eq!(usd_of_minor_units(minor_units).expect("in range").to_string(), usd);
        }
    }
}
