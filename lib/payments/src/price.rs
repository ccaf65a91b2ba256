//! Prices: what an amount of an account's unit costs, in whole cents.
//!
//! A business rule of payments: a price is rounded up to a whole cent, so that a payer never pays less than they get.

use ledger_core::account::Core;
use ledger_core::value::credits::Credits;

/// Cents per dollar.
const CENTS: Credits = Credits::whole(100);

/// Returns what an amount of an account's unit costs.
pub fn price(core: &Core, amount: Credits) -> Option<Credits> {
    amount.mul_div_half_even(core.usd_per_unit?, Credits::whole(1)).ok()
}

/// Returns a price in whole cents, rounded up.
pub fn cents(usd: Credits) -> Option<i64> {
    let cents = usd.mul_div_half_even(CENTS, Credits::whole(1)).ok()?;
    let whole = cents.units().div_euclid(Credits::UNITS_PER_CREDIT);
    let rest = i128::from(cents.units().rem_euclid(Credits::UNITS_PER_CREDIT) > 0);
    i64::try_from(whole + rest).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_in_whole_cents_rounded_up() {
        let check = |usd: &str, expected: i64| {
            assert_eq!(cents(usd.parse().expect("an amount")), Some(expected), "{usd}");
        };
        check("0.5", 50);
        check("0.501", 51);
        check("12.000000001", 1_201);
        check("100000", 10_000_000);
    }
}
