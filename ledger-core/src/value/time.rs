//! Instants, time zones and calendar days.
//!
//! Pure: nothing here reads a clock. The zone data comes with the pinned `chrono-tz`.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::value::scalar::{self, Refusal, Scalar};

pub(crate) const MICROS_PER_SECOND: i64 = 1_000_000;
pub(crate) const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// Longest text of a time: `2026-02-03T10:00:00.000001Z`.
const TIME_BYTES_MAX: usize = 27;

/// An instant: microseconds since the Unix epoch, UTC; finer is cut.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an RFC 3339 time such as 2026-02-03T10:00:00Z")]
pub struct NotATime;

impl Refusal for NotATime {
    fn code(&self) -> &'static str {
        "not_a_time"
    }
}

impl Time {
    /// 0001-01-01T00:00:00Z.
    pub const MIN: Time = Time(-62_135_596_800 * MICROS_PER_SECOND);
    /// 9999-12-31T23:59:59.999999Z: no four-digit year reaches further.
    pub const MAX: Time = Time(253_402_300_800 * MICROS_PER_SECOND - 1);

    /// Takes microseconds since the epoch, clamped into `MIN..=MAX`.
    pub const fn from_micros(micros: i64) -> Time {
        if micros < Time::MIN.0 {
            Time::MIN
        } else if micros > Time::MAX.0 {
            Time::MAX
        } else {
            Time(micros)
        }
    }

    /// Takes milliseconds since the epoch, clamped into `MIN..=MAX`.
    pub const fn from_millis(millis: i64) -> Time {
        Time::from_micros(millis.saturating_mul(1_000))
    }

    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Moves by seconds, stopping at `MIN` and `MAX`.
    pub const fn plus_seconds(self, seconds: i64) -> Time {
        self.plus_micros(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// Moves by microseconds, stopping at `MIN` and `MAX`.
    pub const fn plus_micros(self, micros: i64) -> Time {
        Time::from_micros(self.0.saturating_add(micros))
    }

    /// Returns the microseconds from `other` to this.
    pub const fn minus(self, other: Time) -> i64 {
        self.0 - other.0
    }

    /// Converts for APIs of chrono.
    pub fn to_chrono(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).expect("MIN..=MAX lies within chrono's range")
    }

    /// Takes a chrono time, cut to microseconds and clamped into `MIN..=MAX`.
    pub fn from_chrono(time: DateTime<Utc>) -> Time {
        Time::from_micros(time.timestamp_micros())
    }

    fn within_range(micros: i64) -> Result<Time, NotATime> {
        let time = Time::from_micros(micros);
        if time.0 == micros { Ok(time) } else { Err(NotATime) }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(TimeText::of(*self).as_str())
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// RFC 3339 of a time with 0, 3 or 6 places, without allocating.
struct TimeText {
    bytes: [u8; TIME_BYTES_MAX],
    length: usize,
}

impl TimeText {
    fn of(time: Time) -> TimeText {
        let date = Civil::of_day(time.0.div_euclid(MICROS_PER_DAY));
        let micros = time.0.rem_euclid(MICROS_PER_DAY);
        let seconds = micros / MICROS_PER_SECOND;
        let mut text = TimeText { bytes: *b"0000-00-00T00:00:00.000000Z", length: TIME_BYTES_MAX };
        text.put(0, 4, date.year);
        text.put(5, 2, date.month);
        text.put(8, 2, date.day);
        text.put(11, 2, seconds / 3_600);
        text.put(14, 2, seconds / 60 % 60);
        text.put(17, 2, seconds % 60);
        text.put_fraction(micros % MICROS_PER_SECOND);
        text
    }

    /// Writes a number over the zeros at `start`.
    fn put(&mut self, start: usize, digits: usize, mut number: i64) {
        for byte in self.bytes[start..start + digits].iter_mut().rev() {
            *byte = b'0' + u8::try_from(number % 10).expect("a digit is below 10");
            number /= 10;
        }
    }

    fn put_fraction(&mut self, micros: i64) {
        self.put(20, 6, micros);
        let end = match micros {
            0 => 19,
            _ if micros % 1_000 == 0 => 23,
            _ => 26,
        };
        self.bytes[end] = b'Z';
        self.length = end + 1;
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).expect("only ASCII was put")
    }
}

impl FromStr for Time {
    type Err = NotATime;

    /// Reads RFC 3339 with any offset, in years 0001 to 9999 of UTC. A leap second is the second after it.
    fn from_str(text: &str) -> Result<Time, NotATime> {
        match read_plain(text.as_bytes()) {
            Some(micros) => Time::within_range(micros),
            None => read_any_offset(text),
        }
    }
}

/// Reads the form that nearly every time has: `2026-02-03T10:00:00[.fraction]Z`.
fn read_plain(text: &[u8]) -> Option<i64> {
    let (fixed, rest) = text.split_first_chunk::<19>()?;
    let marks = [fixed[4], fixed[7], fixed[10], fixed[13], fixed[16]];
    if marks != *b"--T::" {
        return None;
    }
    let date =
        Civil { year: number(&fixed[..4])?, month: number(&fixed[5..7])?, day: number(&fixed[8..10])? };
    let (hour, minute, second) = (number(&fixed[11..13])?, number(&fixed[14..16])?, number(&fixed[17..19])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = (hour * 60 + minute) * 60 + second;
    let micros = read_fraction(rest.strip_suffix(b"Z")?)?;
    Some(date.checked_day()? * MICROS_PER_DAY + seconds * MICROS_PER_SECOND + micros)
}

/// Reads nothing, or a point and digits, of which the first six count.
fn read_fraction(text: &[u8]) -> Option<i64> {
    let Some((point, digits)) = text.split_first() else {
        return Some(0);
    };
    if *point != b'.' || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let kept = &digits[..digits.len().min(6)];
    let missing_digits = u32::try_from(6 - kept.len()).expect("at most 6");
    Some(number(kept)? * 10_i64.pow(missing_digits))
}

fn read_any_offset(text: &str) -> Result<Time, NotATime> {
    // chrono takes a space here and a typographic minus later; we write and take RFC 3339 only.
    if !text.is_ascii() || !matches!(text.as_bytes().get(10), Some(b'T' | b't')) {
        return Err(NotATime);
    }
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| NotATime)?;
    Time::within_range(time.timestamp_micros())
}

/// Returns the value of at most 18 digits; `None` for anything else.
fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

impl Scalar for Time {
    type Refusal = NotATime;
    const NOT_A_STRING: NotATime = NotATime;

    fn from_text(text: &str) -> Result<Time, NotATime> {
        text.parse()
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(TimeText::of(*self).as_str())
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Time, D::Error> {
        scalar::deserialize(from)
    }
}

/// A date of the proleptic Gregorian calendar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Civil {
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
}

/// Days in the 400 years after which the calendar repeats.
const DAYS_PER_ERA: i64 = 146_097;
/// From 0000-03-01 to 1970-01-01. Years are counted from March, so that leap days come last.
const DAYS_TO_EPOCH: i64 = 719_468;

impl Civil {
    /// Returns the date of a day counted from 1970-01-01.
    ///
    /// After Howard Hinnant, "chrono-compatible low-level date algorithms".
    pub(crate) fn of_day(day: i64) -> Civil {
        let shifted = day + DAYS_TO_EPOCH;
        let era = shifted.div_euclid(DAYS_PER_ERA);
        let day_of_era = shifted.rem_euclid(DAYS_PER_ERA);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Civil {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
        }
    }

    /// Returns the day counted from 1970-01-01; the inverse of `of_day`.
    pub(crate) fn to_day(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let month_from_march = (self.month + 9) % 12;
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * month_from_march + 2) / 5 + self.day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        year.div_euclid(400) * DAYS_PER_ERA + day_of_era - DAYS_TO_EPOCH
    }

    /// Like `to_day`, for a date that may not exist.
    fn checked_day(self) -> Option<i64> {
        let exists =
            (1..=12).contains(&self.month) && (1..=days_in_month(self.year, self.month)).contains(&self.day);
        exists.then(|| self.to_day())
    }
}

/// Returns the length of a month (1 to 12).
pub(crate) fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Zone(Tz);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an IANA time zone such as Europe/Berlin")]
pub struct UnknownTimeZone;

impl Refusal for UnknownTimeZone {
    fn code(&self) -> &'static str {
        "unknown_time_zone"
    }
}

impl Zone {
    pub const UTC: Zone = Zone(Tz::UTC);

    pub const fn new(tz: Tz) -> Zone {
        Zone(tz)
    }

    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Returns the zone for APIs of chrono.
    pub const fn tz(self) -> Tz {
        self.0
    }

    /// Returns the calendar day in this zone.
    pub fn local_day(self, time: Time) -> Day {
        let days = self.local_micros(time).div_euclid(MICROS_PER_DAY);
        Day(i32::try_from(days).expect("at most 3.7 million days from the epoch"))
    }

    /// Returns the wall-clock time, as microseconds from its own 1970-01-01T00:00:00.
    pub(crate) fn local_micros(self, time: Time) -> i64 {
        let offset = self.0.offset_from_utc_datetime(&time.to_chrono().naive_utc());
        time.0 + i64::from(offset.fix().local_minus_utc()) * MICROS_PER_SECOND
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Zone {
    type Err = UnknownTimeZone;

    fn from_str(name: &str) -> Result<Zone, UnknownTimeZone> {
        name.parse().map(Zone).map_err(|_| UnknownTimeZone)
    }
}

impl Scalar for Zone {
    type Refusal = UnknownTimeZone;
    const NOT_A_STRING: UnknownTimeZone = UnknownTimeZone;

    fn from_text(text: &str) -> Result<Zone, UnknownTimeZone> {
        text.parse()
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Zone, D::Error> {
        scalar::deserialize(from)
    }
}

/// A calendar day: days since 1970-01-01.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a date such as 2026-02-03")]
pub struct NotADay;

impl Refusal for NotADay {
    fn code(&self) -> &'static str {
        "not_a_day"
    }
}

impl Day {
    /// Takes days since 1970-01-01.
    pub const fn from_days(days: i32) -> Day {
        Day(days)
    }

    /// Returns the days since 1970-01-01.
    pub const fn days(self) -> i32 {
        self.0
    }

    /// Converts for APIs of chrono; `None` outside chrono's range.
    pub fn to_chrono(self) -> Option<NaiveDate> {
        DateTime::from_timestamp(i64::from(self.0) * 86_400, 0).map(|time| time.date_naive())
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = Civil::of_day(i64::from(self.0));
        write!(f, "{:04}-{:02}-{:02}", date.year, date.month, date.day)
    }
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Day {
    type Err = NotADay;

    fn from_str(text: &str) -> Result<Day, NotADay> {
        let read = |text: &[u8]| {
            let fixed: &[u8; 10] = text.try_into().ok()?;
            if [fixed[4], fixed[7]] != *b"--" {
                return None;
            }
            let date =
                Civil { year: number(&fixed[..4])?, month: number(&fixed[5..7])?, day: number(&fixed[8..])? };
            i32::try_from(date.checked_day()?).ok()
        };
        read(text.as_bytes()).map(Day).ok_or(NotADay)
    }
}

impl Scalar for Day {
    type Refusal = NotADay;
    const NOT_A_STRING: NotADay = NotADay;

    fn from_text(text: &str) -> Result<Day, NotADay> {
        text.parse()
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Day, D::Error> {
        scalar::deserialize(from)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use chrono::{Datelike, SecondsFormat};
    use proptest::prelude::*;

    use super::*;

    fn check_read(text: &str, expected: Result<&str, NotATime>) {
        let shown = text.parse::<Time>().map(|time| time.to_string());
        assert_eq!(shown, expected.map(str::to_owned), "reading {text:?}");
    }

    #[test]
    fn a_time_is_shown_in_utc_with_as_many_places_as_it_needs() {
        check_read("2026-02-03T10:00:00Z", Ok("2026-02-03T10:00:00Z"));
        check_read("2026-02-03T10:00:00.000Z", Ok("2026-02-03T10:00:00Z"));
        check_read("2026-02-03T10:00:00.5Z", Ok("2026-02-03T10:00:00.500Z"));
        check_read("2026-02-03T10:00:00.0001Z", Ok("2026-02-03T10:00:00.000100Z"));
        check_read("2026-02-03T10:00:00+01:00", Ok("2026-02-03T09:00:00Z"));
        check_read("2026-02-03T10:00:00.25-05:30", Ok("2026-02-03T15:30:00.250Z"));
        check_read("2026-02-03t10:00:00z", Ok("2026-02-03T10:00:00Z"));
        check_read("2024-02-29T23:59:59Z", Ok("2024-02-29T23:59:59Z"));
        check_read("1969-12-31T23:59:59.999999Z", Ok("1969-12-31T23:59:59.999999Z"));
    }

    #[test]
    fn finer_than_a_microsecond_is_cut() {
        check_read("2026-02-03T10:00:00.1234569Z", Ok("2026-02-03T10:00:00.123456Z"));
        check_read("2026-02-03T10:00:00.9999999999999Z", Ok("2026-02-03T10:00:00.999999Z"));
        check_read("1901-02-03T10:00:00.9999999+00:00", Ok("1901-02-03T10:00:00.999999Z"));
        let before_epoch = DateTime::from_timestamp(-1, 999_999_999).unwrap();
        assert_eq!(Time::from_chrono(before_epoch).micros(), -1);
    }

    #[test]
    fn a_leap_second_is_the_second_after_it() {
        check_read("2016-12-31T23:59:60Z", Ok("2017-01-01T00:00:00Z"));
        check_read("2016-12-31T23:59:60.5Z", Ok("2017-01-01T00:00:00.500Z"));
    }

    #[test]
    fn only_rfc_3339_is_a_time() {
        let texts = [
            "",
            "now",
            "2026-02-03",
            "2026-02-03T10:00Z",
            "2026-02-03T10:00:00",
            "2026-02-03 10:00:00Z",
            "2026-02-03T10:00:00.Z",
            "2026-02-30T10:00:00Z",
            "2025-02-29T10:00:00Z",
            "2026-13-01T10:00:00Z",
            "2026-00-01T10:00:00Z",
            "2026-01-00T10:00:00Z",
            "2026-02-03T24:00:00Z",
            "2026-02-03T10:60:00Z",
            "2026-02-03T10:00:61Z",
            "2026-2-3T10:00:00Z",
            "2026-02-03T10:00:00ZZ",
            "2026-02-03T10:00:00+0100",
            "2026-02-03T10:00:00+24:00",
            " 2026-02-03T10:00:00Z",
            "2026-02-03T10:00:00Z ",
            "1770112800",
            "+2026-02-03T10:00:00Z",
            "-026-02-03T10:00:00Z",
            "2026-02-03T10:00:00\u{2212}01:00",
            "2026-02-03T10:00:00,5Z",
            "2026-02-03T1\u{0660}:00:00Z",
            "2026-02-03T10:00:00.1x2Z",
        ];
        for text in texts {
            check_read(text, Err(NotATime));
        }
    }

    #[test]
    fn times_reach_from_year_1_to_year_9999() {
        check_read("0001-01-01T00:00:00Z", Ok("0001-01-01T00:00:00Z"));
        check_read("9999-12-31T23:59:59.999999Z", Ok("9999-12-31T23:59:59.999999Z"));
        check_read("0000-12-31T23:59:59Z", Err(NotATime));
        check_read("0001-01-01T00:00:00+01:00", Err(NotATime));
        check_read("9999-12-31T23:59:59-01:00", Err(NotATime));
        check_read("9999-12-31T23:59:60Z", Err(NotATime));
        check_read("12026-02-03T10:00:00Z", Err(NotATime));
        assert_eq!(Time::MIN.to_string(), "0001-01-01T00:00:00Z");
        assert_eq!(Time::MAX.to_string(), "9999-12-31T23:59:59.999999Z");
        assert_eq!((Time::from_micros(i64::MIN), Time::from_millis(i64::MAX)), (Time::MIN, Time::MAX));
        assert_eq!((Time::MAX.plus_seconds(i64::MAX), Time::MIN.plus_micros(-1)), (Time::MAX, Time::MIN));
        assert_eq!(Time::from_micros(0).plus_seconds(-2).minus(Time::from_millis(1)), -2_001_000);
    }

    fn refusal<T: serde::de::DeserializeOwned + fmt::Debug>(json: &str) -> String {
        let message = serde_json::from_str::<T>(json).unwrap_err().to_string();
        message.split(" at line").next().unwrap().to_owned()
    }

    #[test]
    fn json_carries_times_and_zones_as_strings() {
        let time: Time = "2026-02-03T10:00:00.5Z".parse().unwrap();
        assert_eq!(serde_json::to_string(&time).unwrap(), "\"2026-02-03T10:00:00.500Z\"");
        assert_eq!(serde_json::from_str::<Time>("\"2026-02-03T11:00:00.5+01:00\"").unwrap(), time);
        let zone: Zone = serde_json::from_str("\"Europe/Berlin\"").unwrap();
        assert_eq!(serde_json::to_string(&zone).unwrap(), "\"Europe/Berlin\"");
        let day: Day = serde_json::from_str("\"2026-02-03\"").unwrap();
        assert_eq!(serde_json::to_string(&day).unwrap(), "\"2026-02-03\"");
        for json in ["1770112800", "-1", "1.5", "null", "true", "[]", "{}", "\"tomorrow\""] {
            assert_eq!(
                refusal::<Time>(json),
                "not_a_time: an RFC 3339 time such as 2026-02-03T10:00:00Z",
                "{json}"
            );
            assert_eq!(
                refusal::<Zone>(json),
                "unknown_time_zone: an IANA time zone such as Europe/Berlin",
                "{json}"
            );
            assert_eq!(refusal::<Day>(json), "not_a_day: a date such as 2026-02-03", "{json}");
        }
    }

    #[test]
    fn a_day_is_the_date_on_the_wall() {
        let check = |zone: &str, time: &str, day: &str| {
            let zone: Zone = zone.parse().unwrap();
            assert_eq!(zone.local_day(time.parse().unwrap()).to_string(), day, "{zone} {time}");
        };
        check("UTC", "2026-02-03T23:59:59.999999Z", "2026-02-03");
        check("Europe/Berlin", "2026-02-03T22:59:59Z", "2026-02-03");
        check("Europe/Berlin", "2026-02-03T23:00:00Z", "2026-02-04");
        check("America/New_York", "2026-02-03T04:59:59Z", "2026-02-02");
        check("Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29");
        check("Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-31");
        check("America/New_York", "0001-01-01T00:00:00Z", "0000-12-31");
        assert!("2026-02-30".parse::<Day>().is_err() && "2026-2-3".parse::<Day>().is_err());
    }

    proptest! {
        #[test]
        fn times_are_shown_as_chrono_shows_them(micros in Time::MIN.0..=Time::MAX.0, coarse in prop::sample::select(vec![1, 1_000, 1_000_000])) {
            let time = Time::from_micros(micros / coarse * coarse);
            prop_assert_eq!(time.to_string(), time.to_chrono().to_rfc3339_opts(SecondsFormat::AutoSi, true));
            prop_assert_eq!(time.to_string().parse(), Ok(time));
            prop_assert_eq!(Time::from_chrono(time.to_chrono()), time);
        }

        #[test]
        fn times_are_read_as_chrono_reads_them(text in "(00|19|20|99)[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{1,12})?(Z|z|[+-][0-2][0-9]:[0-6][0-9])") {
            let chrono = DateTime::parse_from_rfc3339(&text).ok().map(|time| time.timestamp_micros());
            let expected = chrono.filter(|micros| (Time::MIN.0..=Time::MAX.0).contains(micros));
            prop_assert_eq!(text.parse::<Time>().ok().map(Time::micros), expected);
        }

        #[test]
        fn days_are_counted_as_chrono_counts_them(days in -1_000_000_i32..4_000_000) {
            let chrono = Day(days).to_chrono().unwrap();
            let date = Civil::of_day(i64::from(days));
            prop_assert_eq!((date.year, date.month, date.day), (i64::from(chrono.year()), i64::from(chrono.month()), i64::from(chrono.day())));
            prop_assert_eq!(date.to_day(), i64::from(days));
            if (0..=9999).contains(&date.year) {
                prop_assert_eq!(Day(days).to_string(), chrono.to_string());
                prop_assert_eq!(Day(days).to_string().parse(), Ok(Day(days)));
            }
        }
    }
}
