//! Periods against a second implementation, in every time zone.
//!
//! The second one is slow and plain: it reads what UTC maps to, hour by hour, and searches that for the wall time.

use std::ops::Range;

use chrono::{DateTime, Days, Months, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};
use ledger_core::value::period::{Cycle, Periods, Schedule};
use ledger_core::value::time::{Time, Zone};
use proptest::prelude::*;

const DAY_SECONDS: i64 = 86_400;
const CYCLES: [Cycle; 4] = [Cycle::Monthly, Cycle::Yearly, Cycle::Weekly, Cycle::Daily];

/// Seconds in which a zone keeps one offset.
#[derive(Debug)]
struct Stretch {
    from: i64,
    to: i64,
    offset: i64,
}

/// What the clocks of a zone show from one time to another.
struct Clock(Vec<Stretch>);

fn utc(second: i64) -> NaiveDateTime {
    DateTime::from_timestamp(second, 0).expect("a second near ours").naive_utc()
}

fn offset_at(tz: Tz, second: i64) -> i64 {
    i64::from(tz.offset_from_utc_datetime(&utc(second)).fix().local_minus_utc())
}

impl Clock {
    fn watch(tz: Tz, seconds: Range<i64>, step: i64) -> Clock {
        let mut stretches = Vec::new();
        let (mut from, mut offset) = (seconds.start, offset_at(tz, seconds.start));
        let mut second = seconds.start;
        while second < seconds.end {
            let next = second + step;
            let next_offset = offset_at(tz, next);
            if next_offset != offset {
                let change = first_with_other_offset(tz, second, next);
                stretches.push(Stretch { from, to: change, offset });
                (from, offset) = (change, next_offset);
            }
            second = next;
        }
        stretches.push(Stretch { from, to: second, offset });
        Clock(stretches)
    }

    fn changes(&self) -> impl Iterator<Item = i64> {
        self.0.iter().skip(1).map(|stretch| stretch.from)
    }

    fn shown_at(&self, second: i64) -> i64 {
        let stretch = self.0.iter().find(|stretch| (stretch.from..stretch.to).contains(&second));
        second + stretch.expect("a watched second").offset
    }

    /// The first second at which the clocks show `wall`, else the end of the gap that skips it.
    fn first_showing(&self, wall: i64) -> i64 {
        let shown =
            self.0.iter().find(|stretch| (stretch.from..stretch.to).contains(&(wall - stretch.offset)));
        if let Some(stretch) = shown {
            return wall - stretch.offset;
        }
        let gap = self
            .0
            .windows(2)
            .find(|pair| pair[1].from + pair[0].offset <= wall && wall < pair[1].from + pair[1].offset);
        gap.expect("what is never shown is skipped")[1].from
    }
}

fn first_with_other_offset(tz: Tz, mut same: i64, mut other: i64) -> i64 {
    let offset = offset_at(tz, same);
    while same + 1 < other {
        let middle = same + (other - same) / 2;
        if offset_at(tz, middle) == offset { same = middle } else { other = middle }
    }
    other
}

fn date_after(anchor: NaiveDate, cycle: Cycle, n: i64) -> NaiveDate {
    let count = u32::try_from(n.unsigned_abs()).expect("few periods");
    let (months, days) = match cycle {
        Cycle::Monthly => (count, 0),
        Cycle::Yearly => (12 * count, 0),
        Cycle::Weekly => (0, 7 * count),
        Cycle::Daily => (0, count),
    };
    if n < 0 {
        anchor - Months::new(months) - Days::new(days.into())
    } else {
        anchor + Months::new(months) + Days::new(days.into())
    }
}

/// Boundary n, in seconds, read off the clock.
fn boundary(clock: &Clock, cycle: Cycle, anchor: i64, n: i64) -> i64 {
    if n == 0 {
        return anchor;
    }
    let wall = utc(clock.shown_at(anchor));
    let wanted = date_after(wall.date(), cycle, n).and_time(wall.time());
    clock.first_showing(wanted.and_utc().timestamp())
}

fn time(second: i64) -> Time {
    Time::from_micros(second * 1_000_000)
}

/// Compares boundaries, and which period the instants around them lie in.
fn check(tz: Tz, clock: &Clock, cycle: Cycle, anchor: i64, numbers: Range<i64>) {
    let schedule = Schedule { cycle, anchor: time(anchor), timezone: Zone::new(tz) };
    let expected: Vec<i64> = numbers.clone().map(|n| boundary(clock, cycle, anchor, n)).collect();
    for (n, pair) in numbers.zip(expected.windows(2)) {
        let named = || format!("boundary {n} of {schedule:?}");
        assert_eq!(schedule.boundary(n), Some(time(pair[0])), "{}", named());
        assert!(pair[0] <= pair[1], "{} comes before its predecessor", named());
        if pair[0] == pair[1] {
            assert!(schedule.index_at(time(pair[0])) > n, "{}: an empty period is passed over", named());
        } else {
            assert_eq!(schedule.index_at(time(pair[0])), n, "{}", named());
            assert_eq!(schedule.index_at(time(pair[1]).plus_micros(-1)), n, "{}", named());
        }
    }
}

fn cycle_days(cycle: Cycle) -> i64 {
    match cycle {
        Cycle::Monthly => 30,
        Cycle::Yearly => 365,
        Cycle::Weekly => 7,
        Cycle::Daily => 1,
    }
}

/// 2006 to 2016: Apia's lost day, Russia's and Turkey's changes of mind, half hours in Caracas and Pyongyang.
const TEN_YEARS: Range<i64> = 1_136_073_600..1_451_692_800;

#[test]
fn every_zone_agrees_with_a_walk_through_ten_years() {
    // Hours at which zones change their clocks; which goes with which zone and cycle rotates.
    const WALL_TIMES: [i64; 6] = [0, 30 * 60, 90 * 60, 9_000, 11 * 900, 86_399];
    for (number, tz) in TZ_VARIANTS.iter().enumerate() {
        let clock = Clock::watch(
            *tz,
            TEN_YEARS.start - 800 * DAY_SECONDS..TEN_YEARS.end + 800 * DAY_SECONDS,
            DAY_SECONDS / 4,
        );
        for (turn, cycle) in CYCLES.into_iter().enumerate() {
            let wall_time = WALL_TIMES[(number + turn) % WALL_TIMES.len()];
            // The 31st of January 2006, so that months are clamped.
            let anchor = clock.first_showing(TEN_YEARS.start + 30 * DAY_SECONDS + wall_time);
            let numbers_end = 3_650 / cycle_days(cycle);
            check(*tz, &clock, cycle, anchor, -1..if cycle == Cycle::Daily { 2 } else { numbers_end });
            for change in clock.changes().filter(|change| TEN_YEARS.contains(change) && cycle == Cycle::Daily)
            {
                let near = (change - anchor) / DAY_SECONDS;
                check(*tz, &clock, cycle, anchor, near - 2..near + 4);
            }
        }
    }
}

/// Sets boundaries on every change of the clocks that a zone has ever had, and around it.
fn meet_every_change(tz: Tz) {
    // From the first time zones to where the zone data ends.
    const HISTORY: Range<i64> = -4_260_000_000..4_100_000_000;
    let in_reach = HISTORY.start + 40 * DAY_SECONDS..HISTORY.end - 40 * DAY_SECONDS;
    let clock = Clock::watch(tz, HISTORY, DAY_SECONDS / 2);
    for pair in clock.0.windows(2).filter(|pair| in_reach.contains(&pair[1].from)) {
        let (change, jump) = (pair[1].from, (pair[1].offset - pair[0].offset).abs());
        // Inside the gap or the repeated time, at its edges, and the later of two as the anchor.
        for distance in [-jump, -jump / 2, -1, 0, 1, jump / 2, jump] {
            check(tz, &clock, Cycle::Daily, change + distance, -3..4);
            check(tz, &clock, Cycle::Monthly, change + distance - 31 * DAY_SECONDS, -1..3);
        }
    }
}

#[test]
fn every_kind_of_clock_change_is_met_from_inside_and_as_anchor() {
    let kinds = [
        Tz::Pacific__Apia,
        Tz::Pacific__Kwajalein,
        Tz::Asia__Manila,
        Tz::America__Juneau,
        Tz::Australia__Lord_Howe,
        Tz::Africa__Monrovia,
    ];
    // A prime step through all the others, to stay quick.
    for tz in TZ_VARIANTS.iter().step_by(29).chain(&kinds) {
        meet_every_change(*tz);
    }
}

#[test]
#[ignore = "takes a minute; worth it when the zone data is raised"]
fn every_clock_change_of_every_zone_is_met() {
    for tz in TZ_VARIANTS {
        meet_every_change(tz);
    }
}

fn any_time() -> impl Strategy<Value = Time> {
    let ours = 0_i64..4_000_000_000_000_000;
    prop_oneof![3 => ours, 1 => Time::MIN.micros()..=Time::MAX.micros()].prop_map(Time::from_micros)
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let parts = (prop::sample::select(&CYCLES[..]), any_time(), prop::sample::select(&TZ_VARIANTS[..]));
    parts.prop_map(|(cycle, anchor, tz)| Schedule { cycle, anchor, timezone: Zone::new(tz) })
}

proptest! {
    #[test]
    fn every_instant_lies_in_one_period(schedule in any_schedule(), at in any_time()) {
        let periods = Periods::new(schedule);
        let period = periods.at(at);
        prop_assert!(period.starts_at <= at && (at < period.ends_at || at == Time::MAX));
        prop_assert_eq!(periods.at(period.starts_at), period);
        let next = periods.next(&period);
        prop_assert!(period.ends_at == Time::MAX || next.starts_at == period.ends_at);
        prop_assert!(period.ends_at == Time::MAX || next.index > period.index);
        prop_assert!(!period.has_ended_by(at));
    }

    #[test]
    fn the_anchor_opens_period_0(schedule in any_schedule()) {
        let period = Periods::new(schedule).at(schedule.anchor);
        prop_assert_eq!((period.index, period.starts_at), (0, schedule.anchor));
    }

    #[test]
    fn a_change_of_schedule_leaves_no_hole_and_no_overlap(old in any_schedule(), new in any_schedule(), at in any_time()) {
        let old = Periods::new(old);
        let ending = old.at(at);
        prop_assume!(ending.ends_at < Time::MAX);
        let (periods, first) = old.changed_at(&ending, new);
        prop_assert_eq!((first.index, first.starts_at), (ending.index + 1, ending.ends_at));
        prop_assert!(first.starts_at < first.ends_at);
        prop_assert_eq!(periods.at(first.starts_at), first);
        prop_assert!(first.ends_at == Time::MAX || (0..).map(|n| new.index_at(first.ends_at) - n).any(|n| new.boundary(n) == Some(first.ends_at)));
        let mut period = first;
        for _ in 0..3 {
            let next = periods.next(&period);
            prop_assert!(period.ends_at == Time::MAX || (next.starts_at == period.ends_at && next.index > period.index));
            prop_assert_eq!(periods.crossings_until(&first, next.starts_at), next.index - first.index);
            period = next;
        }
    }

    #[test]
    fn a_boundary_belongs_to_the_period_that_it_opens(schedule in any_schedule(), n in -5_000_i64..5_000) {
        if let Some(boundary) = schedule.boundary(n) {
            let index = schedule.index_at(boundary);
            prop_assert!(index >= n);
            prop_assert_eq!(schedule.boundary(index), Some(boundary));
            prop_assert!(schedule.boundary(n + 1).is_none_or(|next| next >= boundary));
        }
    }

    #[test]
    fn a_schedule_in_utc_needs_no_clock(days in 0_u64..20_000, n in 0_u32..500) {
        let date = NaiveDate::default() + Days::new(days);
        let anchor = Time::from_chrono(date.and_time(chrono::NaiveTime::MIN).and_utc() + TimeDelta::hours(5));
        let schedule = Schedule { cycle: Cycle::Monthly, anchor, timezone: Zone::UTC };
        let expected = (date + Months::new(n)).and_time(chrono::NaiveTime::MIN).and_utc() + TimeDelta::hours(5);
        prop_assert_eq!(schedule.boundary(n.into()), Some(Time::from_chrono(expected)));
    }
}
