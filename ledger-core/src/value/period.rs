//! Where billing periods begin and end.
//!
//! Pure. Balances, limits, alerts and history all use this module, so they cannot disagree. The zone data reaches to 2099;
//! after that each zone keeps the offset that it has then.

use chrono::{DateTime, MappedLocalTime, Offset, TimeZone};
use chrono_tz::GapInfo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::time::{Civil, MICROS_PER_DAY, MICROS_PER_SECOND, Time, Zone, days_in_month};

const MONTHS_PER_YEAR: i64 = 12;
const DAYS_PER_WEEK: i64 = 7;
/// Longest offset of a wall clock from UTC: two days, since the date line once moved by a day.
const OFFSET_MAX_MICROS: i64 = 2 * MICROS_PER_DAY;
/// Serves as a boundary before or after all representable times.
const BEFORE_ALL: i64 = i64::MIN;
const AFTER_ALL: i64 = i64::MAX;

/// Length of a period, on the calendar of its time zone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cycle {
    Monthly,
    Yearly,
    /// Seven calendar days.
    Weekly,
    Daily,
}

/// An infinite sequence of boundaries, numbered from the anchor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Schedule {
    pub cycle: Cycle,
    /// Boundary 0.
    pub anchor: Time,
    /// Time zone whose calendar and clock the steps follow.
    pub timezone: Zone,
}

/// Period n of a schedule, in microseconds since the epoch, not clamped to representable times.
struct Span {
    n: i64,
    start: i64,
    end: i64,
}

impl Schedule {
    /// Returns boundary `n`: the anchor plus `n` cycles, counted from the anchor; `None` beyond representable times.
    ///
    /// The day is clamped to the month's length. A local time that does not exist moves to the first instant after
    /// the gap, one that occurs twice is the earlier, and boundary 0 is the anchor itself. Boundaries never go back,
    /// but two may coincide.
    pub fn boundary(&self, n: i64) -> Option<Time> {
        let micros = self.boundary_micros(n);
        let time = Time::from_micros(micros);
        (time.micros() == micros).then_some(time)
    }

    /// Returns the greatest `n` whose boundary is not after `time`, so empty periods are passed over.
    pub fn index_at(&self, time: Time) -> i64 {
        self.span_at(time).n
    }

    fn span_at(&self, time: Time) -> Span {
        let micros = time.micros();
        // Clamping and the zone's jumps make the estimate wrong by a step or two.
        let mut n = self.estimated_index(time);
        let (mut start, mut end) = (self.boundary_micros(n), self.boundary_micros(n + 1));
        while end <= micros {
            n += 1;
            (start, end) = (end, self.boundary_micros(n + 1));
        }
        while start > micros {
            n -= 1;
            (start, end) = (self.boundary_micros(n), start);
        }
        Span { n, start, end }
    }

    /// Counts the cycles between the wall-clock times of the anchor and of `time`.
    fn estimated_index(&self, time: Time) -> i64 {
        let (from, to) = (self.anchor_wall(), self.timezone.local_micros(time));
        match self.cycle {
            Cycle::Daily => (to - from).div_euclid(MICROS_PER_DAY),
            Cycle::Weekly => (to - from).div_euclid(DAYS_PER_WEEK * MICROS_PER_DAY),
            Cycle::Monthly => month_of(to) - month_of(from),
            Cycle::Yearly => (month_of(to) - month_of(from)).div_euclid(MONTHS_PER_YEAR),
        }
    }

    fn boundary_micros(&self, n: i64) -> i64 {
        let anchor = self.anchor.micros();
        if n == 0 {
            return anchor;
        }
        let wall = self.boundary_wall(n);
        if wall < Time::MIN.micros() - OFFSET_MAX_MICROS {
            return BEFORE_ALL;
        }
        if wall > Time::MAX.micros() + OFFSET_MAX_MICROS {
            return AFTER_ALL;
        }
        let instant = first_instant_showing(self.timezone, wall);
        // The anchor may be the later of two instants that show the same; its neighbours must stay on their sides.
        if n > 0 { instant.max(anchor) } else { instant.min(anchor) }
    }

    /// Returns the wall-clock time of boundary `n`.
    fn boundary_wall(&self, n: i64) -> i64 {
        let anchor = self.anchor_wall();
        match self.cycle {
            Cycle::Daily => anchor.saturating_add(n.saturating_mul(MICROS_PER_DAY)),
            Cycle::Weekly => anchor.saturating_add(n.saturating_mul(DAYS_PER_WEEK * MICROS_PER_DAY)),
            Cycle::Monthly => plus_months(anchor, n),
            Cycle::Yearly => plus_months(anchor, n.saturating_mul(MONTHS_PER_YEAR)),
        }
    }

    fn anchor_wall(&self) -> i64 {
        self.timezone.local_micros(self.anchor)
    }
}

/// Counts the months of the calendar up to the one that contains `wall`.
fn month_of(wall: i64) -> i64 {
    let date = Civil::of_day(wall.div_euclid(MICROS_PER_DAY));
    date.year * MONTHS_PER_YEAR + date.month - 1
}

/// Adds months; clamps the day to the length of the resulting month.
fn plus_months(wall: i64, months: i64) -> i64 {
    const MONTHS_MAX: i64 = 10_001 * MONTHS_PER_YEAR;
    let month_count = month_of(wall).saturating_add(months);
    if month_count < -MONTHS_PER_YEAR {
        return BEFORE_ALL;
    }
    if month_count > MONTHS_MAX {
        return AFTER_ALL;
    }
    let (year, month) =
        (month_count.div_euclid(MONTHS_PER_YEAR), month_count.rem_euclid(MONTHS_PER_YEAR) + 1);
    let wanted_day = Civil::of_day(wall.div_euclid(MICROS_PER_DAY)).day;
    let date = Civil { year, month, day: wanted_day.min(days_in_month(year, month)) };
    date.to_day() * MICROS_PER_DAY + wall.rem_euclid(MICROS_PER_DAY)
}

/// Returns the first instant at which clocks in `zone` show `wall`, or the first after the gap that skips it.
fn first_instant_showing(zone: Zone, wall: i64) -> i64 {
    let shown = DateTime::from_timestamp_micros(wall).expect("within days of MIN..=MAX").naive_utc();
    match zone.tz().offset_from_local_datetime(&shown) {
        MappedLocalTime::Single(offset) | MappedLocalTime::Ambiguous(offset, _) => {
            wall - offset_micros(&offset)
        }
        MappedLocalTime::None => {
            let gap = GapInfo::new(&shown, &zone.tz()).and_then(|gap| gap.begin);
            let (last_shown, offset) =
                gap.expect("a time that no clock shows lies in a gap, which has a beginning");
            last_shown.and_utc().timestamp_micros() - offset_micros(&offset)
        }
    }
}

fn offset_micros(offset: &impl Offset) -> i64 {
    i64::from(offset.fix().local_minus_utc()) * MICROS_PER_SECOND
}

/// The periods of an account: a schedule whose numbering may have been carried over from a former one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Periods {
    pub schedule: Schedule,
    /// Difference between the period's index and the schedule's number.
    pub shift: i64,
    /// The first period under this schedule if it replaced another; `None` if it is the account's first.
    pub first: Option<FirstPeriod>,
}

/// The first period after a change of schedule; it begins where the former one ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FirstPeriod {
    pub index: i64,
    /// The boundary at which the schedule took effect.
    pub starts_at: Time,
}

/// A billing period: from `starts_at` up to, and without, `ends_at`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Period {
    /// Its number, counted from the anchor of the account's first schedule.
    pub index: i64,
    pub starts_at: Time,
    /// The first instant of the next period; `Time::MAX` if that is not representable.
    pub ends_at: Time,
}

impl Period {
    /// Returns whether `time` is past this period. One that runs to the end of time never ends.
    pub fn has_ended_by(&self, time: Time) -> bool {
        self.ends_at <= time && self.ends_at < Time::MAX
    }
}

impl Periods {
    /// Numbers the periods of an account's first schedule.
    pub const fn new(schedule: Schedule) -> Periods {
        Periods { schedule, shift: 0, first: None }
    }

    /// Returns the period that contains `time`; for a time before the schedule took effect, its first period.
    pub fn at(&self, time: Time) -> Period {
        let span = self.schedule.span_at(time);
        let index = span.n + self.shift;
        let (starts_at, ends_at) = (Time::from_micros(span.start), Time::from_micros(span.end));
        match self.first {
            Some(first) if index < first.index => self.first_period(first),
            Some(first) if index == first.index => Period { index, starts_at: first.starts_at, ends_at },
            _ => Period { index, starts_at, ends_at },
        }
    }

    fn first_period(&self, first: FirstPeriod) -> Period {
        let end = self.schedule.boundary_micros(first.index - self.shift + 1);
        Period { index: first.index, starts_at: first.starts_at, ends_at: Time::from_micros(end) }
    }

    /// Returns the period that starts where `period` ends. Empty periods keep their index and are skipped.
    ///
    /// A period that runs to the end of time is followed by itself; its `has_ended_by` is never true.
    pub fn next(&self, period: &Period) -> Period {
        self.at(period.ends_at)
    }

    /// Replaces the schedule where `ending` ends: the first period runs from there to the new schedule's first boundary
    /// after that, and indexes continue.
    pub fn changed_at(&self, ending: &Period, schedule: Schedule) -> (Periods, Period) {
        let first = FirstPeriod { index: ending.index + 1, starts_at: ending.ends_at };
        let shift = first.index - schedule.index_at(first.starts_at);
        let periods = Periods { schedule, shift, first: Some(first) };
        (periods, periods.first_period(first))
    }

    /// Counts the boundaries after the start of `period` up to and including `time`; costs as much as finding one.
    pub fn crossings_until(&self, period: &Period, time: Time) -> i64 {
        (self.at(time).index - period.index).max(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn time(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn schedule(cycle: Cycle, anchor: &str, zone: &str) -> Schedule {
        Schedule { cycle, anchor: time(anchor), timezone: zone.parse().unwrap() }
    }

    /// Checks the boundaries from `first_n` on, shown as the clocks of the zone show them.
    fn check(schedule: Schedule, first_n: i64, expected: &[&str]) {
        for (n, expected) in (first_n..).zip(expected) {
            let boundary = schedule.boundary(n).unwrap();
            let shown = boundary
                .to_chrono()
                .with_timezone(&schedule.timezone.tz())
                .format("%Y-%m-%d %H:%M %:z")
                .to_string();
            assert_eq!(shown, *expected, "boundary {n} of {schedule:?}");
        }
    }

    #[test]
    fn the_day_is_clamped_to_the_month_and_comes_back() {
        let schedule = schedule(Cycle::Monthly, "2026-01-31T00:00:00Z", "UTC");
        check(schedule, -2, &["2025-11-30 00:00 +00:00", "2025-12-31 00:00 +00:00"]);
        check(
            schedule,
            0,
            &[
                "2026-01-31 00:00 +00:00",
                "2026-02-28 00:00 +00:00",
                "2026-03-31 00:00 +00:00",
                "2026-04-30 00:00 +00:00",
            ],
        );
        check(schedule, 25, &["2028-02-29 00:00 +00:00", "2028-03-31 00:00 +00:00"]);
        assert_eq!(schedule.index_at(time("2026-02-27T23:59:59.999999Z")), 0);
        assert_eq!(schedule.index_at(time("2026-02-28T00:00:00Z")), 1);
        assert_eq!(schedule.index_at(time("2025-12-30T23:59:59Z")), -2);
    }

    #[test]
    fn a_leap_day_is_kept_in_leap_years() {
        let schedule = schedule(Cycle::Yearly, "2024-02-29T12:00:00Z", "UTC");
        check(
            schedule,
            -1,
            &["2023-02-28 12:00 +00:00", "2024-02-29 12:00 +00:00", "2025-02-28 12:00 +00:00"],
        );
        check(schedule, 4, &["2028-02-29 12:00 +00:00"]);
        check(schedule, 76, &["2100-02-28 12:00 +00:00"]);
        assert_eq!(schedule.index_at(time("2025-02-28T11:59:59Z")), 0);
    }

    #[test]
    fn boundaries_follow_the_clock_on_the_wall() {
        let monthly = schedule(Cycle::Monthly, "2026-01-30T23:00:00Z", "Europe/Berlin");
        check(
            monthly,
            0,
            &[
                "2026-01-31 00:00 +01:00",
                "2026-02-28 00:00 +01:00",
                "2026-03-31 00:00 +02:00",
                "2026-04-30 00:00 +02:00",
            ],
        );
        let weekly = schedule(Cycle::Weekly, "2026-03-25T08:00:00Z", "Europe/Berlin");
        check(weekly, -1, &["2026-03-18 09:00 +01:00", "2026-03-25 09:00 +01:00", "2026-04-01 09:00 +02:00"]);
    }

    #[test]
    fn a_local_time_that_does_not_exist_is_the_first_instant_after_the_gap() {
        let berlin = schedule(Cycle::Daily, "2026-03-28T01:30:00Z", "Europe/Berlin");
        check(berlin, 0, &["2026-03-28 02:30 +01:00", "2026-03-29 03:00 +02:00", "2026-03-30 02:30 +02:00"]);
        let lord_howe = schedule(Cycle::Daily, "2026-10-02T15:45:00Z", "Australia/Lord_Howe");
        check(
            lord_howe,
            0,
            &["2026-10-03 02:15 +10:30", "2026-10-04 02:30 +11:00", "2026-10-05 02:15 +11:00"],
        );
        let midnight = schedule(Cycle::Monthly, "2018-10-04T03:00:00Z", "America/Sao_Paulo");
        check(
            midnight,
            0,
            &["2018-10-04 00:00 -03:00", "2018-11-04 01:00 -02:00", "2018-12-04 00:00 -02:00"],
        );
    }

    #[test]
    fn a_local_time_that_occurs_twice_is_the_earlier() {
        let berlin = schedule(Cycle::Daily, "2026-10-24T00:30:00Z", "Europe/Berlin");
        check(berlin, 0, &["2026-10-24 02:30 +02:00", "2026-10-25 02:30 +02:00", "2026-10-26 02:30 +01:00"]);
        let lord_howe = schedule(Cycle::Daily, "2026-04-03T14:45:00Z", "Australia/Lord_Howe");
        check(
            lord_howe,
            0,
            &["2026-04-04 01:45 +11:00", "2026-04-05 01:45 +11:00", "2026-04-06 01:45 +10:30"],
        );
    }

    #[test]
    fn the_anchor_is_boundary_0_even_as_the_later_of_two() {
        let later = schedule(Cycle::Yearly, "2026-10-25T01:30:00Z", "Europe/Berlin");
        check(later, -1, &["2025-10-25 02:30 +02:00", "2026-10-25 02:30 +01:00", "2027-10-25 02:30 +02:00"]);
        assert_eq!(later.index_at(time("2026-10-25T00:30:00Z")), -1);
        assert_eq!(later.index_at(time("2026-10-25T01:29:59.999999Z")), -1);
        assert_eq!(later.index_at(time("2026-10-25T01:30:00Z")), 0);
    }

    #[test]
    fn a_day_that_a_zone_left_out_is_an_empty_period_that_keeps_its_number() {
        let apia = schedule(Cycle::Daily, "2011-12-28T10:00:00Z", "Pacific/Apia");
        check(
            apia,
            0,
            &[
                "2011-12-28 00:00 -10:00",
                "2011-12-29 00:00 -10:00",
                "2011-12-31 00:00 +14:00",
                "2011-12-31 00:00 +14:00",
                "2012-01-01 00:00 +14:00",
            ],
        );
        let periods = Periods::new(apia);
        let before = periods.at(time("2011-12-30T09:59:59Z"));
        let after = periods.next(&before);
        assert_eq!((before.index, after.index), (1, 3));
        assert_eq!(
            (after.starts_at, after.ends_at),
            (time("2011-12-30T10:00:00Z"), time("2011-12-31T10:00:00Z"))
        );
        assert_eq!(periods.crossings_until(&before, after.starts_at), 2);
    }

    #[test]
    fn a_day_that_a_zone_had_twice_is_one_long_period() {
        // Kwajalein moved its date line in 1969: 23 hours came again.
        let kwajalein = schedule(Cycle::Daily, "1969-09-29T01:00:00Z", "Pacific/Kwajalein");
        check(
            kwajalein,
            0,
            &["1969-09-29 12:00 +11:00", "1969-09-30 12:00 +11:00", "1969-10-01 12:00 -12:00"],
        );
    }

    #[test]
    fn offsets_of_odd_seconds_count_to_the_second() {
        // Paris kept its own mean time, 9 min 21 s ahead of Greenwich, until 1911.
        let paris = schedule(Cycle::Yearly, "1909-12-31T23:50:39Z", "Europe/Paris");
        assert_eq!(paris.boundary(1), Some(time("1910-12-31T23:50:39Z")));
        assert_eq!(paris.boundary(2), Some(time("1912-01-01T00:00:00Z")));
    }

    #[test]
    fn periods_end_with_time_itself() {
        let schedule = schedule(Cycle::Yearly, "2026-06-01T00:00:00Z", "America/New_York");
        assert_eq!(schedule.boundary(9_000), None);
        assert_eq!((schedule.boundary(i64::MAX), schedule.boundary(i64::MIN)), (None, None));
        let periods = Periods::new(schedule);
        let last = periods.at(Time::MAX);
        // One hour later than the anchor: the zone data knows no summer time after 2099.
        assert_eq!((last.starts_at, last.ends_at), (time("9999-06-01T01:00:00Z"), Time::MAX));
        assert!(!last.has_ended_by(Time::MAX));
        assert_eq!(periods.next(&last), last);
        let earliest = periods.at(Time::MIN);
        assert_eq!((earliest.starts_at, earliest.index), (Time::MIN, -2_026));
        assert!(earliest.has_ended_by(time("0001-07-01T00:00:00Z")));
    }

    fn check_change(ending_at: &str, new: Schedule, expected: &[(i64, &str, &str)]) {
        let old = Periods::new(schedule(Cycle::Monthly, "2026-01-31T00:00:00Z", "UTC"));
        let (periods, mut period) = old.changed_at(&old.at(time(ending_at)), new);
        for (index, starts_at, ends_at) in expected {
            assert_eq!(period, Period { index: *index, starts_at: time(starts_at), ends_at: time(ends_at) });
            assert_eq!(
                (periods.at(period.starts_at), periods.at(period.ends_at.plus_micros(-1))),
                (period, period)
            );
            period = periods.next(&period);
        }
    }

    #[test]
    fn a_new_schedule_takes_over_at_the_boundary_and_indexes_go_on() {
        let weekly = schedule(Cycle::Weekly, "2026-01-01T00:00:00Z", "UTC");
        check_change(
            "2026-03-10T00:00:00Z",
            weekly,
            &[
                (2, "2026-03-31T00:00:00Z", "2026-04-02T00:00:00Z"),
                (3, "2026-04-02T00:00:00Z", "2026-04-09T00:00:00Z"),
                (4, "2026-04-09T00:00:00Z", "2026-04-16T00:00:00Z"),
            ],
        );
    }

    #[test]
    fn a_new_schedule_with_a_boundary_at_the_same_instant_starts_with_a_whole_period() {
        let yearly = schedule(Cycle::Yearly, "2020-03-31T00:00:00Z", "UTC");
        check_change(
            "2026-03-10T00:00:00Z",
            yearly,
            &[
                (2, "2026-03-31T00:00:00Z", "2027-03-31T00:00:00Z"),
                (3, "2027-03-31T00:00:00Z", "2028-03-31T00:00:00Z"),
            ],
        );
    }

    #[test]
    fn a_new_schedule_may_be_anchored_in_the_future() {
        let monthly = schedule(Cycle::Monthly, "2027-01-15T12:00:00Z", "UTC");
        check_change(
            "2026-03-31T00:00:00Z",
            monthly,
            &[
                (3, "2026-04-30T00:00:00Z", "2026-05-15T12:00:00Z"),
                (4, "2026-05-15T12:00:00Z", "2026-06-15T12:00:00Z"),
            ],
        );
    }

    #[test]
    fn crossings_are_counted_across_a_change_of_schedule() {
        let old = Periods::new(schedule(Cycle::Monthly, "2026-01-31T00:00:00Z", "UTC"));
        let ending = old.at(time("2026-01-31T00:00:00Z"));
        assert_eq!(old.crossings_until(&ending, time("2026-02-27T23:59:59Z")), 0);
        assert_eq!(old.crossings_until(&ending, time("2026-02-28T00:00:00Z")), 1);
        assert_eq!(old.crossings_until(&ending, time("2126-01-31T00:00:00Z")), 1_200);
        assert_eq!(old.crossings_until(&ending, time("2025-01-31T00:00:00Z")), 0);
        let (daily, first) = old.changed_at(&ending, schedule(Cycle::Daily, "2026-01-01T06:00:00Z", "UTC"));
        assert_eq!(
            (first.starts_at, first.ends_at),
            (time("2026-02-28T00:00:00Z"), time("2026-02-28T06:00:00Z"))
        );
        assert_eq!(daily.crossings_until(&first, time("2026-03-01T06:00:00Z")), 2);
        assert_eq!(daily.at(time("2026-01-01T00:00:00Z")), first);
    }

    #[test]
    fn periods_are_stored_and_read_back() {
        let old = Periods::new(schedule(Cycle::Monthly, "2026-01-31T00:00:00Z", "Europe/Berlin"));
        let (periods, _) = old
            .changed_at(&old.at(old.schedule.anchor), schedule(Cycle::Weekly, "2026-01-31T00:00:00Z", "UTC"));
        let json = serde_json::to_string(&periods).unwrap();
        assert!(
            json.starts_with(
                r#"{"schedule":{"cycle":"weekly","anchor":"2026-01-31T00:00:00Z","timezone":"UTC"},"shift":"#
            ),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Periods>(&json).unwrap(), periods);
    }
}
