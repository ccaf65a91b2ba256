//! History: months and years, each opens into categories.

use std::collections::BTreeMap;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chrono::{Datelike, NaiveDate};
use ledger_core::value::time::{Time, Zone};
use serde::Deserialize;

use crate::account::{Account, path_of};
use crate::api::{Failure, List};
use crate::chart::{self, Column, Part, Svg};
use crate::format::{self, Amount, Sum, Unit};
use crate::layout::{self, Frame, Tab};
use crate::visit::{Fields, Visit, segment};

/// Periods of one page: ten years of months.
const PERIODS: usize = 120;
const EXPORTED: usize = 500;
/// Columns of the chart: three years of months.
const COLUMNS_MAX: usize = 36;
/// Categories with a colour of their own; the rest shares the last.
const COLOURS: [&str; 6] = ["c1", "c2", "c3", "c4", "c5", "c6"];

#[derive(Deserialize)]
struct PeriodFigures {
    index: i64,
    starts_at: Time,
    ends_at: Time,
    used: Sum,
    by_category: BTreeMap<String, Sum>,
    granted: Sum,
    expired: Sum,
    rolled_over: Sum,
}

#[derive(Template)]
#[template(path = "history.html")]
struct HistoryPage {
    frame: Frame,
    chart: Option<Chart>,
    years: Vec<Year>,
    csv: String,
    first: Option<String>,
    next: Option<String>,
}

struct Chart {
    plot: Svg,
    top: Amount,
    from: String,
    to: String,
    legend: Vec<(&'static str, String)>,
}

struct Year {
    label: String,
    used: Amount,
    granted: Amount,
    expired: Amount,
    categories: Vec<Slice>,
    months: Vec<Month>,
}

/// A period; most are months.
struct Month {
    label: String,
    is_open: bool,
    index: i64,
    used: Amount,
    bar: Svg,
    href: String,
    granted: Amount,
    expired: Amount,
    rolled_over: Amount,
    categories: Vec<Slice>,
}

struct Slice {
    class: &'static str,
    label: String,
    href: Option<String>,
    amount: Amount,
    share: String,
}

pub fn routes() -> Router {
    Router::new()
        .route("/accounts/{account}/history", get(show))
        .route("/accounts/{account}/history.csv", get(export))
}

async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let cursor = visit.query.filled("cursor");
    let query: Fields = [("limit", PERIODS.to_string().as_str())]
        .into_iter()
        .chain(cursor.map(|cursor| ("cursor", cursor)))
        .collect();
    let path = format!("{}/periods{}", path_of(&id), query.link());
    let (account, periods) =
        tokio::try_join!(visit.account(&id), visit.api.get::<List<PeriodFigures>>(&path))?;
    let base = format!("/accounts/{}", segment(&id));
    let shape = Shape::of(&base, &account, &periods.items);
    let link = |cursor: &str| format!("{base}/history{}", visit.query.with("cursor", cursor).link());
    layout::page(&HistoryPage {
        frame: Frame::account(&visit, &account, Tab::History, "History").live(&id),
        chart: shape.chart(&periods.items),
        years: shape.years(&periods.items),
        csv: format!("{base}/history.csv"),
        first: cursor.map(|_| link("")),
        next: periods.next_cursor.as_deref().map(link),
    })
}

/// Answers with the periods as CSV; the API has them as JSON alone.
async fn export(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let path = format!("{}/periods?limit={EXPORTED}", path_of(&id));
    let periods: List<PeriodFigures> = visit.api.get(&path).await?;
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"history.csv\""),
    ];
    Ok((headers, csv(&periods.items)).into_response())
}

fn csv(periods: &[PeriodFigures]) -> String {
    let mut csv = String::from("period,starts_at,ends_at,category,used,granted,expired,rolled_over\r\n");
    for period in periods {
        let PeriodFigures { index, starts_at, ends_at, used, granted, expired, rolled_over, .. } = period;
        let whole = format!("{},{},{},{}", used.0, granted.0, expired.0, rolled_over.0);
        csv.push_str(&format!("{index},{starts_at},{ends_at},,{whole}\r\n"));
        for (category, sum) in &period.by_category {
            let category = if category.is_empty() { "(none)" } else { category };
            csv.push_str(&format!("{index},{starts_at},{ends_at},{},{},,,\r\n", cell(category), sum.0));
        }
    }
    csv
}

/// Writes a text so that no spreadsheet runs it.
fn cell(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    let text = format!("{guard}{text}");
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// What all parts of the page draw with.
struct Shape<'a> {
    base: &'a str,
    unit: Unit,
    zone: Zone,
    open: i64,
    most: Sum,
    /// The largest categories, each with a colour.
    coloured: Vec<String>,
}

impl<'a> Shape<'a> {
    fn of(base: &'a str, account: &Account, periods: &[PeriodFigures]) -> Shape<'a> {
        let mut all: BTreeMap<&str, Sum> = BTreeMap::new();
        for (category, sum) in periods.iter().flat_map(|period| &period.by_category) {
            let of = all.entry(category).or_insert(Sum::ZERO);
            *of = of.plus(*sum);
        }
        Shape {
            base,
            unit: account.unit,
            zone: account.plan.timezone.parse().unwrap_or(Zone::UTC),
            open: account.period.index,
            most: periods.iter().map(|period| period.used).max().unwrap_or(Sum::ZERO),
            coloured: largest(&all)
                .into_iter()
                .take(COLOURS.len() - 1)
                .map(|(name, _)| name.to_owned())
                .collect(),
        }
    }

    fn class(&self, category: &str) -> &'static str {
        let at = self.coloured.iter().position(|known| known == category);
        COLOURS[at.unwrap_or(COLOURS.len() - 1)]
    }

    fn date(&self, time: Time) -> Option<NaiveDate> {
        self.zone.local_day(time).to_chrono()
    }

    fn label(&self, period: &PeriodFigures) -> String {
        match (self.date(period.starts_at), self.date(period.ends_at.plus_micros(-1))) {
            (Some(first), Some(last)) => days(first, last),
            _ => format!("Period {}", period.index),
        }
    }

    fn chart(&self, periods: &[PeriodFigures]) -> Option<Chart> {
        let mut shown: Vec<&PeriodFigures> = periods.iter().take(COLUMNS_MAX).collect();
        shown.reverse();
        let columns: Vec<Column> = shown.iter().map(|period| self.column(period)).collect();
        let top = chart::top(&columns);
        let mut legend: Vec<(&'static str, String)> =
            self.coloured.iter().map(|name| (self.class(name), named(name))).collect();
        let has_others = shown
            .iter()
            .flat_map(|period| period.by_category.keys())
            .any(|name| !self.coloured.contains(name));
        if has_others {
            legend.push((COLOURS[COLOURS.len() - 1], "Others".to_owned()));
        }
        top.is_positive().then(|| Chart {
            plot: chart::columns("Use by period and category", &columns, top),
            top: self.unit.show(top),
            from: shown.first().map_or_else(String::new, |period| self.label(period)),
            to: shown
                .last()
                .filter(|_| shown.len() > 1)
                .map_or_else(String::new, |period| self.label(period)),
            legend,
        })
    }

    fn column(&self, period: &PeriodFigures) -> Column {
        let mut parts: Vec<Part> = Vec::new();
        let mut label = format!("{}: {}", self.label(period), self.unit.show(period.used).text());
        let all = period.by_category.iter().map(|(name, sum)| (name.as_str(), *sum)).collect();
        for (category, sum) in largest(&all) {
            let class = self.class(category);
            label.push_str(&format!("\n{}: {}", named(category), self.unit.show(sum).text()));
            match parts.iter_mut().find(|part| part.class == class) {
                Some(part) => part.sum = part.sum.plus(sum),
                None => parts.push(Part { class, sum, label: named(category) }),
            }
        }
        // A category has its place in every column.
        parts.sort_by_key(|part| part.class);
        Column { label, parts }
    }

    fn years(&self, periods: &[PeriodFigures]) -> Vec<Year> {
        let year_of = |period: &PeriodFigures| self.date(period.starts_at).map(|date| date.year());
        let years = periods.chunk_by(|a, b| year_of(a) == year_of(b));
        years.map(|periods| self.year(year_of(&periods[0]), periods)).collect()
    }

    fn year(&self, year: Option<i32>, periods: &[PeriodFigures]) -> Year {
        let whole = |of: fn(&PeriodFigures) -> Sum| periods.iter().map(of).fold(Sum::ZERO, Sum::plus);
        let mut all: BTreeMap<&str, Sum> = BTreeMap::new();
        for (category, sum) in periods.iter().flat_map(|period| &period.by_category) {
            let of = all.entry(category).or_insert(Sum::ZERO);
            *of = of.plus(*sum);
        }
        let used = whole(|period| period.used);
        Year {
            label: year.map_or_else(|| "Before".to_owned(), |year| year.to_string()),
            used: self.unit.show(used),
            granted: self.unit.show(whole(|period| period.granted)),
            expired: self.unit.show(whole(|period| period.expired)),
            categories: largest(&all)
                .into_iter()
                .map(|(name, sum)| self.slice(None, name, sum, used))
                .collect(),
            months: periods.iter().map(|period| self.month(period)).collect(),
        }
    }

    fn month(&self, period: &PeriodFigures) -> Month {
        let part = Part { class: "c1", sum: period.used, label: self.unit.show(period.used).text() };
        let all = period.by_category.iter().map(|(name, sum)| (name.as_str(), *sum)).collect();
        let slices = largest(&all).into_iter();
        let query: Fields = [("period", period.index.to_string().as_str())].into_iter().collect();
        Month {
            label: self.label(period),
            is_open: period.index == self.open,
            index: period.index,
            used: self.unit.show(period.used),
            bar: chart::bar("Of the largest period", &[part], self.most),
            href: format!("{}/usage{}", self.base, query.link()),
            granted: self.unit.show(period.granted),
            expired: self.unit.show(period.expired),
            rolled_over: self.unit.show(period.rolled_over),
            categories: slices
                .map(|(name, sum)| self.slice(Some(period.index), name, sum, period.used))
                .collect(),
        }
    }

    fn slice(&self, period: Option<i64>, category: &str, sum: Sum, whole: Sum) -> Slice {
        let href = period.map(|index| {
            let index = index.to_string();
            let query = [("period", index.as_str()), ("category", category), ("group_by", "tier,model")];
            format!("{}/usage{}", self.base, query.into_iter().collect::<Fields>().link())
        });
        Slice {
            class: self.class(category),
            label: named(category),
            href,
            amount: self.unit.show(sum),
            share: format::percent(sum.share_of(whole)),
        }
    }
}

fn named(category: &str) -> String {
    if category.is_empty() { "not named".to_owned() } else { category.to_owned() }
}

fn largest<'b>(sums: &BTreeMap<&'b str, Sum>) -> Vec<(&'b str, Sum)> {
    let mut sums: Vec<(&str, Sum)> = sums.iter().map(|(name, sum)| (*name, *sum)).collect();
    sums.sort_by_key(|(_, sum)| std::cmp::Reverse(*sum));
    sums
}

/// Names days as people do: a month or a year where they are one, else from when to when.
fn days(first: NaiveDate, last: NaiveDate) -> String {
    let after = last.succ_opt().unwrap_or(last);
    let (begins, ends) = (first.day() == 1, after.day() == 1);
    if begins && ends && first.month() == last.month() && first.year() == last.year() {
        return first.format("%B %Y").to_string();
    }
    if begins && ends && first.month() == 1 && after.month() == 1 && after.year() == first.year() + 1 {
        return first.format("%Y").to_string();
    }
    if first == last {
        return first.format("%-d %b %Y").to_string();
    }
    let shape = if first.year() == last.year() { "%-d %b" } else { "%-d %b %Y" };
    format!("{} – {}", first.format(shape), last.format("%-d %b %Y"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_named_as_people_do() {
        let date = |text: &str| text.parse::<NaiveDate>().expect("a date");
        for (first, last, expected) in [
            ("2026-02-01", "2026-02-28", "February 2026"),
            ("2026-01-01", "2026-12-31", "2026"),
            ("2026-03-03", "2026-03-03", "3 Mar 2026"),
            ("2026-03-03", "2026-04-02", "3 Mar – 2 Apr 2026"),
            ("2026-12-03", "2027-01-02", "3 Dec 2026 – 2 Jan 2027"),
            ("2026-01-01", "2026-02-28", "1 Jan – 28 Feb 2026"),
        ] {
            assert_eq!(days(date(first), date(last)), expected);
        }
    }

    #[test]
    fn the_csv_has_a_line_for_each_category() {
        let periods: Vec<PeriodFigures> = serde_json::from_value(serde_json::json!([{
            "index": 2, "starts_at": "2026-03-01T00:00:00Z", "ends_at": "2026-04-01T00:00:00Z",
            "used": "12.5", "by_category": {"": "2", "=x,y": "10.5"}, "granted": "100", "expired": "0",
            "rolled_over": "3"
        }]))
        .expect("periods");
        let csv = csv(&periods);
        let lines: Vec<&str> = csv.lines().skip(1).collect();
        let of = "2,2026-03-01T00:00:00Z,2026-04-01T00:00:00Z";
        assert_eq!(lines[0], format!("{of},,12.5,100,0,3"));
        assert_eq!(lines[1], format!("{of},(none),2,,,"));
        assert_eq!(lines[2], format!("{of},\"'=x,y\",10.5,,,"));
    }
}
