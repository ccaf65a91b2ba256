//! Charts: use over time, by the largest groups.

use std::collections::BTreeMap;

use chrono::Datelike;
use ledger_core::value::time::Day;

use super::asked::{Asked, Preset, Span, named};
use super::groups::{ByDay, COLOURS};
use super::seen::Seen;
use crate::chart::{self, Column, Line, Part, Svg};
use crate::format::{Amount, Sum, Unit};

/// Columns of one chart; more days are put together to weeks, then months.
pub(super) const COLUMNS_MAX: i32 = 92;
pub(super) const WEEK: i32 = 7;

pub(super) struct Chart {
    pub(super) plot: Svg,
    pub(super) top: Amount,
    pub(super) first: String,
    pub(super) last: String,
    pub(super) legend: Vec<Series>,
    pub(super) columns: Vec<Dated>,
    pub(super) views: Vec<Preset>,
    pub(super) step: &'static str,
}

pub(super) struct Series {
    pub(super) class: &'static str,
    pub(super) label: String,
    pub(super) href: Option<String>,
    pub(super) amount: Amount,
}

/// A column as a row of the table.
pub(super) struct Dated {
    pub(super) label: String,
    pub(super) href: Option<String>,
    pub(super) amount: Amount,
}

/// A column's days: the first, and the one after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) from: i32,
    pub(super) to: i32,
}

/// Divides days into columns: days, or weeks, or months where there are many.
pub(super) fn buckets(first: i32, last: i32) -> (&'static str, Vec<Bucket>) {
    let number = last - first + 1;
    if number <= COLUMNS_MAX {
        return ("day", (first..=last).map(|from| Bucket { from, to: from + 1 }).collect());
    }
    if number <= COLUMNS_MAX * WEEK {
        // 1970-01-01 was a Thursday: weeks begin on Mondays.
        let monday = first - (first + 3).rem_euclid(WEEK);
        let weeks = (monday..=last).step_by(7).map(|from| Bucket { from, to: from + WEEK });
        return ("week", weeks.collect());
    }
    let mut months: Vec<Bucket> = Vec::new();
    let mut of_last = None;
    for day in first..=last {
        let month = Day::from_days(day).to_chrono().map(|date| (date.year(), date.month()));
        match months.last_mut() {
            Some(bucket) if of_last == month => bucket.to = day + 1,
            _ => months.push(Bucket { from: day, to: day + 1 }),
        }
        of_last = month;
    }
    ("month", months)
}

pub(super) fn sum_of(days: &BTreeMap<i32, Sum>, bucket: Bucket) -> Sum {
    days.range(bucket.from..bucket.to).fold(Sum::ZERO, |sum, (_, day)| sum.plus(*day))
}

pub(super) fn label_of(step: &str, bucket: Bucket) -> String {
    let date = Day::from_days(bucket.from).to_chrono();
    let shape = if step == "month" { "%b %Y" } else { "%-d %b %Y" };
    date.map_or_else(String::new, |date| date.format(shape).to_string())
}

pub(super) fn draw(here: &str, seen: &Seen, asked: &Asked, by_day: &ByDay) -> Chart {
    let unit = seen.unit;
    let today = seen.today.days();
    let (first, last) = match (by_day.all.first_key_value(), by_day.all.last_key_value()) {
        (Some((first, _)), Some((last, _))) => (*first, *last),
        _ => (today, today),
    };
    let (step, buckets) = buckets(first, last);
    let series = coloured(by_day);
    let whole = |bucket: &Bucket| sum_of(&by_day.all, *bucket);
    let columns: Vec<Column> = buckets.iter().map(|bucket| column(unit, step, &series, *bucket)).collect();
    let (plot, top) = if asked.as_lines { lines(&series, &buckets) } else { bars(&columns) };
    let dated = |bucket: &Bucket| {
        let (from, to) = (Day::from_days(bucket.from), Day::from_days(bucket.to));
        let opened = match step {
            "day" if asked.filter("day").is_none() => {
                let by = Asked { by: without_day(&asked.by), ..asked.clone() };
                Some(by.with_filter("day", &from.to_string()))
            }
            "day" => None,
            _ => Some(asked.with_span(Span::Days { from: from.to_string(), to: to.to_string() })),
        };
        let href = opened.map(|asked| format!("{here}{}", asked.link()));
        Dated { label: label_of(step, *bucket), href, amount: unit.show(whole(bucket)) }
    };
    let view = |label, as_lines| Preset {
        label,
        href: format!("{here}{}", Asked { as_lines, ..asked.clone() }.link()),
        is_here: asked.as_lines == as_lines,
    };
    let legend = series.iter().filter(|_| series.len() > 1).map(|one| Series {
        class: one.class,
        label: one.label.clone(),
        href: one.value.as_ref().and_then(|value| {
            asked.opened(std::slice::from_ref(value)).map(|asked| format!("{here}{}", asked.link()))
        }),
        amount: unit.show(one.total),
    });
    Chart {
        plot,
        top: unit.show(top),
        first: buckets.first().map_or_else(String::new, |bucket| label_of(step, *bucket)),
        last: buckets.last().map_or_else(String::new, |bucket| label_of(step, *bucket)),
        legend: legend.collect(),
        columns: buckets.iter().rev().map(dated).filter(|column| !column.amount.text().eq("0")).collect(),
        views: vec![view("Bars", false), view("Lines", true)],
        step,
    }
}

pub(super) fn without_day(by: &[String]) -> Vec<String> {
    let rest: Vec<String> = by.iter().filter(|name| *name != "day").cloned().collect();
    if rest.is_empty() { vec!["category".to_owned()] } else { rest }
}

/// A series with its colour.
pub(super) struct Drawn {
    pub(super) class: &'static str,
    pub(super) label: String,
    /// The group's value; none for all, or for what other groups came to.
    pub(super) value: Option<String>,
    pub(super) total: Sum,
    pub(super) days: BTreeMap<i32, Sum>,
}

/// Gives each of the largest groups a colour, and what they leave of all the last one.
pub(super) fn coloured(by_day: &ByDay) -> Vec<Drawn> {
    let mut rest = by_day.all.clone();
    let mut series = Vec::new();
    for ((value, total, days), class) in by_day.groups.iter().zip(COLOURS) {
        for (day, sum) in days {
            let left = rest.entry(*day).or_insert(Sum::ZERO);
            *left = left.minus(*sum);
        }
        let (label, value) = (named(value), Some(value.clone()));
        series.push(Drawn { class, label, value, total: *total, days: days.clone() });
    }
    let total = rest.values().fold(Sum::ZERO, |sum, day| sum.plus(*day));
    if series.is_empty() {
        series.push(Drawn { class: "c1", label: "All".to_owned(), value: None, total, days: rest });
    } else if total.is_positive() {
        series.push(Drawn { class: "c6", label: "Others".to_owned(), value: None, total, days: rest });
    }
    series
}

pub(super) fn column(unit: Unit, step: &str, series: &[Drawn], bucket: Bucket) -> Column {
    let parts: Vec<Part> = series
        .iter()
        .map(|one| {
            let sum = sum_of(&one.days, bucket);
            Part { class: one.class, sum, label: format!("{}: {}", one.label, unit.show(sum).text()) }
        })
        .collect();
    let whole = parts.iter().fold(Sum::ZERO, |sum, part| sum.plus(part.sum));
    let mut label = format!("{}: {}", label_of(step, bucket), unit.show(whole).text());
    for part in parts.iter().filter(|part| part.sum.is_positive() && parts.len() > 1) {
        label.push('\n');
        label.push_str(&part.label);
    }
    Column { label, parts }
}

pub(super) fn bars(columns: &[Column]) -> (Svg, Sum) {
    let top = chart::top(columns);
    (chart::columns("Use over time", columns, top), top)
}

pub(super) fn lines(series: &[Drawn], buckets: &[Bucket]) -> (Svg, Sum) {
    let sums: Vec<Vec<Sum>> =
        series.iter().map(|one| buckets.iter().map(|bucket| sum_of(&one.days, *bucket)).collect()).collect();
    let top = sums.iter().flatten().copied().max().unwrap_or(Sum::ZERO);
    let last = u32::try_from(buckets.len().saturating_sub(1)).unwrap_or_default().max(1);
    let lines: Vec<Line> = series
        .iter()
        .zip(&sums)
        .map(|(one, sums)| {
            let mut points: Vec<(u32, u32)> =
                (0..).zip(sums).map(|(at, sum)| (at * (1_000_000 / last), sum.share_of(top))).collect();
            // A line needs two points.
            if let [only] = points[..] {
                points.push((1_000_000, only.1));
            }
            Line { class: one.class, points, is_filled: false }
        })
        .collect();
    (chart::lines("Use over time", &lines, &[]), top)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_days_are_put_together() {
        let number = |days: i32| {
            let (step, buckets) = buckets(20_000, 20_000 + days - 1);
            (step, buckets.len())
        };
        assert_eq!(number(1), ("day", 1));
        assert_eq!(number(92), ("day", 92));
        assert_eq!(number(93), ("week", 14));
        assert_eq!(number(1_095), ("month", 37));
        let (_, weeks) = buckets(20_000, 20_100);
        assert_eq!(
            Day::from_days(weeks[0].from).to_chrono().map(|date| date.weekday()),
            Some(chrono::Weekday::Mon)
        );
    }

    #[test]
    fn what_the_largest_leave_is_the_last_colour() {
        let sum = |text: &str| -> Sum { serde_json::from_value(text.into()).expect("an amount") };
        let all = BTreeMap::from([(1, sum("10")), (2, sum("4"))]);
        let groups = vec![("chat".to_owned(), sum("9"), BTreeMap::from([(1, sum("9"))]))];
        let series = coloured(&ByDay { all, groups });
        let drawn: Vec<(&str, &str, Sum)> =
            series.iter().map(|one| (one.class, one.label.as_str(), one.total)).collect();
        assert_eq!(drawn, [("c1", "chat", sum("9")), ("c6", "Others", sum("5"))]);
    }
}
