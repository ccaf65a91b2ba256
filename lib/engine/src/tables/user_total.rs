//! Table `user_total`: the usage of users by which a large account lists them.

use ledger_core::value::credits::Credits;
use platform::pg::PgConnection;

/// Counters of a period up to which it has no totals: so many are read whole and sorted within some 10 ms.
pub const COUNTERS_WITHOUT_TOTALS: i64 = 5_000;

/// Leading digits that a magnitude has of an amount.
const DIGITS: usize = 16;
/// One digit before those, the number of digits.
const PER_LENGTH: i64 = 10_i64.pow(16);
/// What the leading two digits count in a magnitude.
const BUCKET: i64 = 10_i64.pow(14);

/// An amount as a whole number of the same order: how many digits it has in units, then the leading ones.
///
/// Whole numbers, because row security lets no condition on `numeric` reach an index. The function `magnitude` of the
/// migration says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Magnitude(pub i64);

impl Magnitude {
    /// Returns the magnitude of an amount that is not negative, and 0 for others.
    pub fn of(amount: Credits) -> Self {
        if amount.is_negative() {
            return Self(0);
        }
        let digits = amount.units().to_string();
        let leading = format!("{:0<DIGITS$}", &digits[..digits.len().min(DIGITS)]);
        let length = i64::try_from(digits.len()).unwrap_or(i64::MAX / PER_LENGTH);
        Self(length * PER_LENGTH + leading.parse::<i64>().unwrap_or_default())
    }

    /// Returns whether no other amount has it: up to ten million credits.
    pub fn is_exact(self) -> bool {
        self.0 / PER_LENGTH <= 16
    }

    /// Returns the largest magnitude with the same number of digits and the same leading two.
    pub fn bucket_end(self) -> Self {
        Self(self.0 / BUCKET * BUCKET + BUCKET - 1)
    }

    /// Returns where the index has it: the largest come first.
    pub fn rank(self) -> i64 {
        -self.0
    }
}

/// Returns whether a period of an account has totals.
pub async fn has_totals(
    connection: &mut PgConnection,
    account: &str,
    period_index: i64,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from user_usage_count
                        where account_id = $1 and period_index = $2 and counters > $3)",
    )
    .bind(account)
    .bind(period_index)
    .bind(COUNTERS_WITHOUT_TOTALS)
    .fetch_one(connection)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magnitudes_are_in_the_order_of_amounts() {
        let mut units: Vec<i128> = vec![0, 1, 9, 10, 99, 100, 1_000_000_000, 999_999_999_999];
        units.extend([10_i128.pow(16) - 1, 10_i128.pow(16), 10_i128.pow(37), 10_i128.pow(38) - 1]);
        let of = |units: &i128| Magnitude::of(Credits::from_units(*units));
        assert!(units.windows(2).all(|pair| of(&pair[0]) < of(&pair[1])));
        assert!(units.iter().all(|units| of(units) <= of(units).bucket_end()));
        assert!(of(&(10_i128.pow(16) - 1)).is_exact() && !of(&10_i128.pow(16)).is_exact());
        // More than 16 digits share one with their neighbours.
        assert_eq!(of(&10_i128.pow(17)), of(&(10_i128.pow(17) + 1)));
    }

    #[test]
    fn a_bucket_is_a_hundredth_to_a_tenth_wide() {
        let end = |units: i128| Magnitude::of(Credits::from_units(units)).bucket_end();
        for (amount, same, other) in [(120, 129, 130), (100, 109, 110), (990, 999, 1_000), (119, 110, 120)] {
            assert_eq!(end(amount), end(same));
            assert!(end(amount) < end(other));
        }
    }
}
