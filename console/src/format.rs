//! Format: amounts, times and shares as people read them. Each prints itself as HTML, exact figures included.

use std::fmt;

use askama::filters::HtmlSafe;
use ledger_core::value::credits::{Credits, parse_wide};
use ledger_core::value::time::Time;
use serde::{Deserialize, Deserializer};

/// Millionths of a whole, for shares.
const MILLION: i128 = 1_000_000;
/// A hundredth of a credit, in the units of [`Credits`].
const CENT: i128 = Credits::UNITS_PER_CREDIT / 100;

/// An amount or a sum as the API answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sum(pub Credits);

impl Sum {
    pub const ZERO: Sum = Sum(Credits::ZERO);

    pub const fn units(self) -> i128 {
        self.0.units()
    }

    pub fn plus(self, other: Sum) -> Sum {
        Sum(self.0.plus(other.0).unwrap_or(Credits::MAX_SUM))
    }

    pub fn minus(self, other: Sum) -> Sum {
        self.plus(Sum(other.0.negated()))
    }

    pub fn is_positive(self) -> bool {
        self.0.is_positive()
    }

    pub fn is_negative(self) -> bool {
        self.0.is_negative()
    }

    /// Returns the share of a whole in millionths, from 0 to a million.
    pub fn share_of(self, whole: Sum) -> u32 {
        if whole.units() <= 0 {
            return 0;
        }
        // Sums have up to 38 digits: divided first, so that nothing overflows.
        let per = (whole.units() / MILLION).max(1);
        let share = if whole.units() > i128::MAX / MILLION {
            self.units() / per
        } else {
            self.units().saturating_mul(MILLION) / whole.units()
        };
        u32::try_from(share.clamp(0, MILLION)).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Sum {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Sum, D::Error> {
        let text = String::deserialize(from)?;
        parse_wide(&text).map(Sum).map_err(serde::de::Error::custom)
    }
}

/// What an account counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    #[default]
    Credits,
    Usd,
}

impl Unit {
    /// Returns an amount for a page.
    pub fn show(self, sum: Sum) -> Amount {
        Amount { unit: self, sum, signed: false }
    }

    /// Returns a change for a page: with a plus where it adds.
    pub fn change(self, sum: Sum) -> Amount {
        Amount { unit: self, sum, signed: true }
    }

    /// Returns the word after an amount; dollars have their sign before it.
    pub const fn word(self) -> &'static str {
        match self {
            Unit::Credits => "credits",
            Unit::Usd => "",
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Unit::Credits => "credits",
            Unit::Usd => "usd",
        }
    }
}

/// An amount as HTML: at most 2 decimals, the exact value beside it.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    unit: Unit,
    sum: Sum,
    signed: bool,
}

impl Amount {
    /// Returns the rounded amount as text.
    pub fn text(self) -> String {
        let units = self.sum.units();
        let size = units.unsigned_abs();
        let cent = CENT.unsigned_abs();
        let sign = match (units < 0, self.signed && units > 0) {
            (true, _) => "\u{2212}",
            (_, true) => "+",
            _ => "",
        };
        let dollar = if self.unit == Unit::Usd { "$" } else { "" };
        if size != 0 && size < cent / 2 {
            return format!("{sign}<{dollar}0.01");
        }
        let (mut cents, rest) = (size / cent, size % cent);
        // Half to even, as the ledger rounds.
        if rest * 2 > cent || (rest * 2 == cent && cents % 2 == 1) {
            cents += 1;
        }
        let (whole, cents) = (grouped(cents / 100), cents % 100);
        if cents == 0 && self.unit == Unit::Credits {
            format!("{sign}{dollar}{whole}")
        } else {
            format!("{sign}{dollar}{whole}.{cents:02}")
        }
    }

    fn is_exact(self) -> bool {
        self.sum.units() % CENT == 0
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, exact, word) = (self.text(), self.sum.0, self.unit.name());
        let text = text.replace('<', "&lt;");
        let class = if self.sum.is_negative() { "amount negative" } else { "amount" };
        write!(f, r#"<data class="{class}" value="{exact}" title="{exact} {word}">"#)?;
        if self.is_exact() {
            write!(f, "{text}</data>")
        } else {
            write!(f, r#"<span aria-hidden="true">{text}</span><span class="sr">{exact}</span></data>"#)
        }
    }
}

impl HtmlSafe for Amount {}

/// Groups digits by thousands.
pub fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Returns a count for a page.
pub fn count(number: impl Into<u64>) -> String {
    grouped(number.into().into())
}

/// Returns a share in millionths as a percentage with one decimal; whole ones have none.
pub fn percent(millionths: u32) -> String {
    let tenths = (u64::from(millionths) + 500) / 1_000;
    match (tenths, millionths) {
        (0, 1..) => "<0.1 %".to_owned(),
        (tenths, _) if tenths.is_multiple_of(10) => format!("{} %", tenths / 10),
        (tenths, _) => format!("{}.{} %", tenths / 10, tenths % 10),
    }
}

/// Returns a percentage of the API, such as `12.345`, with one decimal.
pub fn percent_of_api(percent: Sum) -> String {
    let tenths = percent.units() / (Credits::UNITS_PER_CREDIT / 10);
    if tenths % 10 == 0 {
        format!("{} %", tenths / 10)
    } else {
        format!("{}.{} %", tenths / 10, (tenths % 10).abs())
    }
}

/// How much of a time is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Day,
    Minute,
    Second,
}

/// A time as HTML: UTC, which the page's script rewrites to the reader's zone.
#[derive(Debug, Clone, Copy)]
pub struct When {
    time: Time,
    detail: Detail,
}

/// Shows a time to the minute.
pub fn when(time: &Time) -> When {
    When { time: *time, detail: Detail::Minute }
}

/// Shows a time to the second.
pub fn exactly(time: &Time) -> When {
    When { time: *time, detail: Detail::Second }
}

/// Shows the day of a time.
pub fn day(time: &Time) -> When {
    When { time: *time, detail: Detail::Day }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let utc = self.time.to_chrono();
        let (name, text) = match self.detail {
            Detail::Day => ("day", utc.format("%-d %b %Y")),
            Detail::Minute => ("minute", utc.format("%-d %b %Y, %H:%M UTC")),
            Detail::Second => ("second", utc.format("%-d %b %Y, %H:%M:%S UTC")),
        };
        let (machine, title) = (utc.format("%Y-%m-%dT%H:%M:%SZ"), utc.format("%Y-%m-%d %H:%M:%S UTC"));
        write!(f, r#"<time datetime="{machine}" title="{title}" data-show="{name}">{text}</time>"#)
    }
}

impl HtmlSafe for When {}

/// Returns how far off a time is, in the largest unit that fits: `in 3 days`, `2 h ago`.
pub fn distance(from: Time, to: Time) -> String {
    let seconds = to.minus(from) / 1_000_000;
    let size = seconds.unsigned_abs();
    let (number, word) = match size {
        0..60 => return "now".to_owned(),
        60..3_600 => (size / 60, "min"),
        3_600..172_800 => (size / 3_600, "h"),
        _ => (size / 86_400, "days"),
    };
    if seconds > 0 { format!("in {number} {word}") } else { format!("{number} {word} ago") }
}

/// Returns a name of the API for people: `low_balance` reads `Low balance`.
pub fn words(name: &str) -> String {
    let mut words = name.replace(['_', '-'], " ");
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(text: &str) -> Sum {
        Sum(parse_wide(text).expect("an amount"))
    }

    fn check(amount: &str, credits: &str, usd: &str) {
        let shown = [Unit::Credits, Unit::Usd].map(|unit| unit.show(sum(amount)).text());
        assert_eq!(shown, [credits, usd], "{amount}");
    }

    #[test]
    fn an_amount_has_at_most_two_decimals() {
        check("0", "0", "$0.00");
        check("1234567", "1,234,567", "$1,234,567.00");
        check("12.5", "12.50", "$12.50");
        check("0.005", "0", "$0.00");
        check("0.004", "<0.01", "<$0.01");
        check("0.015", "0.02", "$0.02");
        check("0.025", "0.02", "$0.02");
        check("999.999", "1,000", "$1,000.00");
        check("-1234.56", "\u{2212}1,234.56", "\u{2212}$1,234.56");
        check(
            "99999999999999999999999999999",
            "99,999,999,999,999,999,999,999,999,999",
            "$99,999,999,999,999,999,999,999,999,999.00",
        );
        assert_eq!(Unit::Usd.change(sum("3")).text(), "+$3.00");
    }

    #[test]
    fn the_exact_value_stands_beside_a_rounded_one() {
        let shown = Unit::Credits.show(sum("0.123456789")).to_string();
        assert!(shown.contains(r#"title="0.123456789 credits""#), "{shown}");
        assert!(shown.contains(r#"<span class="sr">0.123456789</span>"#), "{shown}");
        assert!(!Unit::Credits.show(sum("5")).to_string().contains("sr"));
    }

    #[test]
    fn a_share_is_of_any_whole() {
        for (part, whole, expected) in [
            ("1", "4", "25 %"),
            ("1", "3", "33.3 %"),
            ("0.0001", "4", "<0.1 %"),
            ("0", "0", "0 %"),
            ("9", "3", "100 %"),
            ("-1", "3", "0 %"),
            ("50000000000000000000000000000", "99999999999999999999999999999", "50 %"),
        ] {
            assert_eq!(percent(sum(part).share_of(sum(whole))), expected, "{part} of {whole}");
        }
        assert_eq!([percent_of_api(sum("12.39")), percent_of_api(sum("100"))], ["12.3 %", "100 %"]);
    }

    #[test]
    fn a_time_says_its_zone_and_how_far_off_it_is() {
        let time: Time = "2026-03-03T10:04:05Z".parse().expect("a time");
        let shown = when(&time).to_string();
        assert!(
            shown.contains(r#"datetime="2026-03-03T10:04:05Z""#) && shown.contains(">3 Mar 2026, 10:04 UTC<"),
            "{shown}"
        );
        let far = |seconds: i64| distance(time, time.plus_seconds(seconds));
        assert_eq!(
            [far(0), far(120), far(-7_200), far(864_000)],
            ["now", "in 2 min", "2 h ago", "in 10 days"]
        );
    }
}
