//! Amounts, percents and times as people read them.

use crate::event::Unit;
use crate::value::credits::Credits;
use crate::value::time::{Time, Zone};

/// Returns an amount as `1,234.5 credits` or `$12.50`.
pub fn amount(amount: Credits, unit: Unit) -> String {
    let sign = if amount.is_negative() { "-" } else { "" };
    let digits = amount.to_string();
    let (whole, places) = split(&digits);
    match unit {
        Unit::Usd => format!("{sign}${}.{places:0<2}", grouped(whole)),
        Unit::Credits => {
            let noun = if whole == "1" && places.is_empty() { "credit" } else { "credits" };
            format!("{sign}{} {noun}", decimal(whole, places))
        }
    }
}

/// Returns an amount as `1,234.5` or `$12.50`, without its noun.
pub fn number(figure: Credits, unit: Unit) -> String {
    let text = amount(figure, unit);
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Returns a day as `1 March`.
pub fn day(time: Time, zone: Zone) -> String {
    time.to_chrono().with_timezone(&zone.tz()).format("%-d %B").to_string()
}

/// Returns a percent as `75.2%`.
pub fn percent(figure: Credits) -> String {
    let sign = if figure.is_negative() { "-" } else { "" };
    let digits = figure.to_string();
    let (whole, places) = split(&digits);
    format!("{sign}{}%", decimal(whole, places))
}

/// Returns a time as `Tue 3 Feb 2026, 11:00 (Europe/Berlin)`.
pub fn time(time: Time, zone: Zone) -> String {
    format!("{} ({})", on_the_wall(time, zone), zone.name())
}

/// Returns a stretch of time as `Sun 1 Feb 2026, 00:00 to Sun 1 Mar 2026, 00:00 (Europe/Berlin)`.
pub fn span(from: Time, to: Time, zone: Zone) -> String {
    format!("{} to {}", on_the_wall(from, zone), time(to, zone))
}

fn on_the_wall(time: Time, zone: Zone) -> String {
    time.to_chrono().with_timezone(&zone.tz()).format("%a %-d %b %Y, %H:%M").to_string()
}

/// Splits into digits before and after the point, without the sign.
fn split(text: &str) -> (&str, &str) {
    let digits = text.trim_start_matches('-');
    digits.split_once('.').unwrap_or((digits, ""))
}

fn decimal(whole: &str, places: &str) -> String {
    let point = if places.is_empty() { "" } else { "." };
    format!("{}{point}{places}", grouped(whole))
}

/// Puts a comma before every three digits from the right.
fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_carry_the_unit_of_the_account() {
        let check = |text: &str, credits: &str, usd: &str| {
            let figure = text.parse().expect("an amount");
            assert_eq!(amount(figure, Unit::Credits), credits);
            assert_eq!(amount(figure, Unit::Usd), usd);
        };
        check("500", "500 credits", "$500.00");
        check("1", "1 credit", "$1.00");
        check("0", "0 credits", "$0.00");
        check("12.5", "12.5 credits", "$12.50");
        check("1.000000001", "1.000000001 credits", "$1.000000001");
        check("-3.2", "-3.2 credits", "-$3.20");
        check("-1", "-1 credit", "-$1.00");
        check("1234567.125", "1,234,567.125 credits", "$1,234,567.125");
        check("100", "100 credits", "$100.00");
        check("1000", "1,000 credits", "$1,000.00");
    }

    #[test]
    fn a_number_and_a_day_fit_into_a_sentence() {
        let figure: Credits = "1234.5".parse().expect("an amount");
        assert_eq!(number(figure, Unit::Credits), "1,234.5");
        assert_eq!(number(figure, Unit::Usd), "$1,234.50");
        let zone: Zone = "Europe/Berlin".parse().expect("a zone");
        assert_eq!(day("2026-02-28T23:00:00Z".parse().expect("a time"), zone), "1 March");
    }

    #[test]
    fn percents_are_shown_exactly() {
        let check = |text: &str, shown: &str| assert_eq!(percent(text.parse().expect("a percent")), shown);
        check("75", "75%");
        check("75.2", "75.2%");
        check("0", "0%");
        check("1250", "1,250%");
    }

    #[test]
    fn times_are_told_on_the_wall_clock_of_the_account() {
        let check = |text: &str, zone: &str, shown: &str| {
            assert_eq!(time(text.parse().expect("a time"), zone.parse().expect("a zone")), shown);
        };
        check("2026-02-03T10:00:00Z", "UTC", "Tue 3 Feb 2026, 10:00 (UTC)");
        check("2026-02-03T23:30:59Z", "Europe/Berlin", "Wed 4 Feb 2026, 00:30 (Europe/Berlin)");
        check("2026-07-03T23:30:00Z", "Europe/Berlin", "Sat 4 Jul 2026, 01:30 (Europe/Berlin)");
        check("2026-02-03T10:00:00Z", "Asia/Kathmandu", "Tue 3 Feb 2026, 15:45 (Asia/Kathmandu)");
    }
}
