//! Usage: what the account used, by any dimension and over any days.

use std::collections::BTreeMap;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use chrono::Datelike;
use futures::future::{join_all, try_join_all};
use ledger_core::value::time::{Day, Zone};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::account::{Account, Period, path_of};
use crate::api::{self, Client, Failure, List};
use crate::chart::{self, Column, Line, Part, Svg};
use crate::format::{self, Amount, Sum, Unit};
use crate::layout::{self, Frame, Tab};
use crate::visit::{Fields, Visit, segment};

/// The dimensions of the API, in the order in which a group is opened further.
const DIMENSIONS: [&str; 7] = ["category", "tier", "model", "feature", "user", "org", "day"];
/// Levels of nested groups.
const LEVELS_MAX: usize = 3;
/// Groups of the first level on a page that asks for no other number, by the number of levels.
const ROWS: [usize; LEVELS_MAX + 1] = [50, 50, 20, 10];
/// Groups below each group of the second level, and about how many there are below all of the first.
const BELOW_SECOND: usize = 2;
const BELOW_FIRST: usize = 40;
/// Most groups that the API answers at once.
const ROWS_MAX: usize = 500;
/// Periods of the picker: two years of months.
const PERIODS: usize = 24;
/// Groups with a colour of their own; the rest shares the last.
const COLOURS: [&str; 6] = ["c1", "c2", "c3", "c4", "c5", "c6"];
/// Pages of days that a chart reads: four years.
const DAY_PAGES_MAX: usize = 3;
/// Columns of one chart; more days are put together to weeks, then months.
const COLUMNS_MAX: i32 = 92;
const WEEK: i32 = 7;

#[derive(Debug, Deserialize)]
struct Group {
    credits: Sum,
    events: u64,
    #[serde(default)]
    quantities: BTreeMap<String, Sum>,
    /// The values of its dimensions.
    #[serde(flatten)]
    values: Map<String, Value>,
}

impl Default for Group {
    fn default() -> Group {
        Group { credits: Sum::ZERO, events: 0, quantities: BTreeMap::new(), values: Map::new() }
    }
}

impl Group {
    /// Returns its value of a dimension, empty where it has none.
    fn value(&self, dimension: &str) -> &str {
        self.values.get(dimension).and_then(Value::as_str).unwrap_or_default()
    }

    fn is_within(&self, dimensions: &[String], values: &[String]) -> bool {
        dimensions.iter().zip(values).all(|(dimension, value)| self.value(dimension) == value)
    }
}

/// The days that are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Span {
    Period(String),
    Days { from: String, to: String },
}

/// What the page is asked to show: its whole state, as it stands in the address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    span: Span,
    by: Vec<String>,
    /// An empty value is usage without one.
    filters: Vec<(String, String)>,
    by_name: bool,
    as_lines: bool,
    /// Groups of the first level, where the address asks for a number.
    rows: Option<usize>,
}

impl Asked {
    fn read(query: &Fields) -> Asked {
        let period = query.filled("period").filter(|period| *period != "days");
        let has_days = query.is_on("from") || query.is_on("to");
        let span = match period {
            None if has_days => {
                Span::Days { from: query.get("from").to_owned(), to: query.get("to").to_owned() }
            }
            period => Span::Period(period.unwrap_or("current").to_owned()),
        };
        let mut by: Vec<String> = Vec::new();
        for name in query.all("group_by").flat_map(|names| names.split(',')) {
            if !name.is_empty() && !by.iter().any(|known| known == name) {
                by.push(name.to_owned());
            }
        }
        by.truncate(LEVELS_MAX);
        if query.all("group_by").next().is_none() {
            by = vec!["category".to_owned(), "model".to_owned()];
        }
        let given = DIMENSIONS.into_iter().filter_map(|name| {
            let value = query.all(name).next()?;
            Some((name.to_owned(), value.to_owned()))
        });
        Asked {
            span,
            by,
            filters: given.collect(),
            by_name: query.get("sort") == "name",
            as_lines: query.get("view") == "lines",
            rows: query.get("limit").parse().ok().map(|rows: usize| rows.clamp(1, ROWS_MAX)),
        }
    }

    fn rows(&self) -> usize {
        self.rows.unwrap_or(ROWS[self.by.len().min(LEVELS_MAX)])
    }

    /// Returns how many groups are listed below one of this depth.
    fn rows_below(&self, depth: usize, first: usize) -> usize {
        match (self.rows, depth) {
            (_, 0) => self.rows(),
            (Some(_), _) => ROWS_MAX,
            (None, 1) => (BELOW_FIRST / first.max(1)).clamp(3, 10),
            (None, _) => BELOW_SECOND,
        }
    }

    fn with_span(&self, span: Span) -> Asked {
        Asked { span, ..self.clone() }
    }

    fn filter(&self, dimension: &str) -> Option<&str> {
        let found = self.filters.iter().find(|(name, _)| name == dimension);
        found.map(|(_, value)| value.as_str())
    }

    fn without_filter(&self, dimension: &str) -> Asked {
        let rest = self.filters.iter().filter(|(name, _)| name != dimension);
        Asked { filters: rest.cloned().collect(), ..self.clone() }
    }

    fn with_filter(&self, dimension: &str, value: &str) -> Asked {
        let mut asked = self.without_filter(dimension);
        asked.filters.push((dimension.to_owned(), value.to_owned()));
        asked
    }

    /// Returns what a group is made of: it alone, by what is left to group by. None where nothing is left.
    fn opened(&self, values: &[String]) -> Option<Asked> {
        let mut asked = self.clone();
        for (dimension, value) in self.by.iter().zip(values) {
            asked = asked.with_filter(dimension, value);
        }
        asked.by.drain(..values.len().min(asked.by.len()));
        if asked.by.is_empty() {
            let next = DIMENSIONS.into_iter().find(|name| asked.filter(name).is_none())?;
            asked.by = vec![next.to_owned()];
        }
        Some(asked)
    }

    /// Returns the pairs that say which usage is meant, as the API takes them.
    fn meant(&self) -> Vec<(String, String)> {
        let mut pairs = match &self.span {
            Span::Period(period) => vec![("period".to_owned(), period.clone())],
            Span::Days { from, to } => {
                vec![("from".to_owned(), from.clone()), ("to".to_owned(), to.clone())]
            }
        };
        pairs.retain(|(_, value)| !value.is_empty());
        pairs.extend(self.filters.iter().cloned());
        pairs
    }

    /// Returns the query of the page itself.
    fn link(&self) -> String {
        let mut pairs = self.meant();
        pairs.push(("group_by".to_owned(), self.by.join(",")));
        pairs.extend(self.hidden());
        pairs.into_iter().collect::<Fields>().link()
    }

    /// Returns how the page looks, for its forms to keep.
    fn hidden(&self) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        let mut add = |name: &str, value: &str| pairs.push((name.to_owned(), value.to_owned()));
        if self.by_name {
            add("sort", "name");
        }
        if self.as_lines {
            add("view", "lines");
        }
        if let Some(rows) = self.rows {
            add("limit", &rows.to_string());
        }
        pairs
    }

    /// Returns the API's query for groups by these dimensions, the largest first.
    fn groups(&self, by: &[String], limit: usize) -> String {
        let mut pairs = self.meant();
        if !by.is_empty() {
            pairs.push(("group_by".to_owned(), by.join(",")));
            pairs.push(("sort".to_owned(), "-credits".to_owned()));
            pairs.push(("limit".to_owned(), limit.to_string()));
        }
        pairs.into_iter().collect::<Fields>().link()
    }
}

#[derive(Template)]
#[template(path = "usage.html")]
struct UsagePage {
    frame: Frame,
    here: String,
    form: Picker,
    filters: Vec<Chip>,
    /// None: the question itself is wrong.
    found: Option<Shown>,
    failure: Option<Failure>,
    csv: String,
}

impl UsagePage {
    fn wrong(&self, field: &str) -> &str {
        api::wrong(self.failure.as_ref(), field)
    }
}

/// What can be picked, and what is.
struct Picker {
    presets: Vec<Preset>,
    period: String,
    periods: Vec<(String, String)>,
    /// What the first, second and third level group by.
    levels: Vec<String>,
    dimensions: Vec<(String, String)>,
    from: String,
    to: String,
    /// What a form about days keeps.
    kept: Vec<(String, String)>,
    /// What the form about groups keeps.
    kept_by_groups: Vec<(String, String)>,
}

struct Preset {
    label: &'static str,
    href: String,
    is_here: bool,
}

/// A filter in force.
struct Chip {
    dimension: String,
    value: String,
    without: String,
}

struct Shown {
    total: Amount,
    unit: &'static str,
    events: String,
    each: Option<Amount>,
    quantities: Vec<(String, String)>,
    chart: Result<Chart, Failure>,
    rows: Vec<Row>,
    by: Vec<String>,
    order: Vec<Preset>,
    more: Option<String>,
}

struct Chart {
    plot: Svg,
    top: Amount,
    first: String,
    last: String,
    legend: Vec<Series>,
    columns: Vec<Dated>,
    views: Vec<Preset>,
    step: &'static str,
}

struct Series {
    class: &'static str,
    label: String,
    href: Option<String>,
    amount: Amount,
}

/// A column as a row of the table.
struct Dated {
    label: String,
    href: Option<String>,
    amount: Amount,
}

struct Row {
    depth: usize,
    label: String,
    href: Option<String>,
    /// The page of a user.
    person: Option<String>,
    amount: Amount,
    share: String,
    bar: Svg,
    events: String,
    is_rest: bool,
}

pub fn routes() -> Router {
    Router::new()
        .route("/accounts/{account}/usage", get(show))
        .route("/accounts/{account}/usage.csv", get(export))
}

/// What the visitor sees of the account: a member sees the own use and nothing of the account.
struct Seen {
    frame: Frame,
    unit: Unit,
    zone: Zone,
    today: Day,
    periods: Vec<Period>,
}

async fn seen(visit: &Visit, id: &str) -> Result<Seen, Failure> {
    if visit.who.is_member() {
        let frame = Frame::of_member(visit, id, Tab::Usage, "Your usage");
        let today = Zone::UTC.local_day(visit.now);
        return Ok(Seen { frame, unit: visit.who.own_unit(), zone: Zone::UTC, today, periods: Vec::new() });
    }
    let path = format!("{}/periods?limit={PERIODS}", path_of(id));
    let (account, periods) = tokio::join!(visit.account(id), visit.api.get::<List<Period>>(&path));
    let account: Account = account?;
    let zone: Zone = account.plan.timezone.parse().unwrap_or(Zone::UTC);
    Ok(Seen {
        frame: Frame::account(visit, &account, Tab::Usage, "Usage").live(id),
        unit: account.unit,
        today: zone.local_day(account.now(visit.now)),
        zone,
        // The picker works without them: the open period and all time are always there.
        periods: periods.map(|periods| periods.items).unwrap_or_default(),
    })
}

async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let asked = Asked::read(&visit.query);
    let here = format!("/accounts/{}/usage", segment(&id));
    if let Some(dimension) = visit.query.filled("filter_by").filter(|name| DIMENSIONS.contains(name)) {
        let asked = asked.with_filter(dimension, visit.query.get("filter"));
        return Ok(Redirect::to(&format!("{here}{}", asked.link())).into_response());
    }
    let seen = seen(&visit, &id).await?;
    let path = format!("{}/usage", path_of(&id));
    let read = read(&visit.api, &path, &asked).await;
    let (shown, failure) = match read {
        Ok(found) => (Some(shown(&here, &seen, &asked, found)), None),
        Err(failure) if failure.is_about_form() && failure.status != StatusCode::NOT_FOUND => {
            (None, Some(failure))
        }
        Err(failure) => return Err(failure),
    };
    let status = if failure.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let chip = |(dimension, value): &(String, String)| Chip {
        dimension: format::words(dimension),
        value: named(value),
        without: format!("{here}{}", asked.without_filter(dimension).link()),
    };
    let page = UsagePage {
        form: picker(&here, &seen, &asked),
        filters: asked.filters.iter().map(chip).collect(),
        csv: format!("{here}.csv{}", asked.link()),
        frame: seen.frame,
        here,
        found: shown,
        failure,
    };
    layout::page_with(status, &page)
}

/// Passes on the groups of the page as the API writes them.
async fn export(visit: Visit, Path(id): Path<String>) -> Result<Response, Failure> {
    let asked = Asked::read(&visit.query);
    let query = asked.groups(&asked.by, ROWS_MAX);
    let path = format!("{}/usage{query}", path_of(&id));
    visit.api.csv(&path, "usage.csv").await
}

/// What the API answers for the page.
struct Found {
    total: Group,
    /// The groups by the first dimension, by the first two, and so on; each level the largest first.
    levels: Vec<Vec<Group>>,
    by_day: Result<ByDay, Failure>,
}

async fn read(api: &Client, path: &str, asked: &Asked) -> Result<Found, Failure> {
    let limit = if asked.by.len() == 1 { asked.rows() } else { ROWS_MAX };
    let deepest = format!("{path}{}", asked.groups(&asked.by, limit));
    // Groups of many users a day would fill any answer.
    let first = asked.by.first().filter(|first| *first != "day" && *first != "user");
    let (deepest, by_day) = tokio::join!(api.get::<List<Group>>(&deepest), days_of(api, path, asked, first));
    let deepest = deepest?.items;
    let is_complete = asked.by.is_empty() || deepest.len() < limit;
    let (total, levels) = if is_complete {
        let levels = (1..asked.by.len()).map(|depth| summed(&deepest, &asked.by[..depth]));
        let mut levels: Vec<Vec<Group>> = levels.collect();
        let total = summed(&deepest, &[]).into_iter().next().unwrap_or_default();
        if !asked.by.is_empty() {
            levels.push(deepest);
        }
        (total, levels)
    } else {
        read_levels(api, path, asked, deepest).await?
    };
    let by_day = match by_day {
        Ok(Some(by_day)) => Ok(by_day),
        Ok(None) => series(api, path, asked, levels.first()).await,
        Err(failure) => Err(failure),
    };
    Ok(Found { total, levels, by_day })
}

/// Reads the sums above groups that are more than the API lists.
async fn read_levels(
    api: &Client,
    path: &str,
    asked: &Asked,
    deepest: Vec<Group>,
) -> Result<(Group, Vec<Vec<Group>>), Failure> {
    let above = (1..asked.by.len()).map(|depth| {
        let path = format!("{path}{}", asked.groups(&asked.by[..depth], ROWS_MAX));
        async move { api.get::<List<Group>>(&path).await.map(|list| list.items) }
    });
    let total = format!("{path}{}", asked.groups(&[], 0));
    let (total, mut levels) = tokio::try_join!(api.get::<List<Group>>(&total), try_join_all(above))?;
    levels.push(deepest);
    Ok((total.items.into_iter().next().unwrap_or_default(), levels))
}

/// Sums groups by the first of their dimensions, the largest first.
fn summed(groups: &[Group], by: &[String]) -> Vec<Group> {
    let mut sums: BTreeMap<Vec<&str>, Group> = BTreeMap::new();
    for group in groups {
        let values: Vec<&str> = by.iter().map(|dimension| group.value(dimension)).collect();
        let sum = sums.entry(values).or_insert_with(|| Group {
            values: by.iter().map(|name| (name.clone(), group.value(name).into())).collect(),
            ..Group::default()
        });
        sum.credits = sum.credits.plus(group.credits);
        sum.events += group.events;
        for (name, amount) in &group.quantities {
            let known = sum.quantities.entry(name.clone()).or_insert(Sum::ZERO);
            *known = known.plus(*amount);
        }
    }
    let mut sums: Vec<Group> = sums.into_values().collect();
    sums.sort_by_key(|group| std::cmp::Reverse(group.credits));
    sums
}

fn shown(here: &str, seen: &Seen, asked: &Asked, mut found: Found) -> Shown {
    let unit = seen.unit;
    let chart = found.by_day.as_ref().map(|by_day| draw(here, seen, asked, by_day)).map_err(Clone::clone);
    for (depth, level) in found.levels.iter_mut().enumerate() {
        let dimension = &asked.by[depth];
        if dimension == "day" {
            level.sort_by(|a, b| b.value(dimension).cmp(a.value(dimension)));
        } else if asked.by_name {
            level.sort_by(|a, b| a.value(dimension).cmp(b.value(dimension)));
        }
    }
    let mut rows = Vec::new();
    add_rows(&mut rows, &Page { here, unit, asked, found: &found }, &[], 0);
    // Rows that stand for others can be opened all at once.
    let more = (asked.rows.is_none() && rows.iter().any(|row| row.is_rest))
        .then(|| format!("{here}{}", Asked { rows: Some(ROWS_MAX), ..asked.clone() }.link()));
    let order = |label, by_name| Preset {
        label,
        href: format!("{here}{}", Asked { by_name, ..asked.clone() }.link()),
        is_here: asked.by_name == by_name,
    };
    let total = &found.total;
    let each = total.credits.units().checked_div(i128::from(total.events));
    Shown {
        total: unit.show(total.credits),
        unit: unit.word(),
        events: format::count(total.events),
        each: each.map(|units| unit.show(Sum(ledger_core::value::credits::Credits::from_units(units)))),
        quantities: total.quantities.iter().map(quantity).collect(),
        chart,
        rows,
        by: asked.by.iter().map(|name| format::words(name)).collect(),
        order: vec![order("Largest", false), order("Name", true)],
        more,
    }
}

fn quantity((name, amount): (&String, &Sum)) -> (String, String) {
    (format::words(name), Unit::Credits.show(*amount).text())
}

fn named(value: &str) -> String {
    if value.is_empty() { "not named".to_owned() } else { value.to_owned() }
}

/// Adds the groups below a group, each with its own below it, and what is not listed as one row.
fn add_rows(rows: &mut Vec<Row>, page: &Page<'_>, above: &[String], indent: usize) {
    let (asked, found, depth) = (page.asked, page.found, above.len());
    let Some(level) = found.levels.get(depth) else { return };
    let dimension = &asked.by[depth];
    let below = |group: &&Group| group.is_within(&asked.by[..depth], above);
    let within: Vec<&Group> = level.iter().filter(below).collect();
    // Use is divided by what has names: a level where none has one says nothing.
    if let ([only], 1..) = (&within[..], depth)
        && only.value(dimension).is_empty()
    {
        let values = [above, &[String::new()]].concat();
        return add_rows(rows, page, &values, indent);
    }
    let whole = match depth.checked_sub(1).and_then(|depth| found.levels.get(depth)) {
        Some(parents) => parents.iter().find(below),
        None => Some(&found.total),
    };
    let (mut sum, mut events) = (Sum::ZERO, 0);
    for group in within.iter().take(asked.rows_below(depth, found.levels[0].len().min(asked.rows()))) {
        let values = [above, &[group.value(dimension).to_owned()]].concat();
        rows.push(page.row(dimension, &values, group, indent));
        add_rows(rows, page, &values, indent + 1);
        sum = sum.plus(group.credits);
        events += group.events;
    }
    let Some(whole) = whole.filter(|whole| whole.events > events) else { return };
    let rest = Group { credits: whole.credits.minus(sum), events: whole.events - events, ..Group::default() };
    let href = Asked { rows: Some(ROWS_MAX), ..page.opened(above) };
    let href = Some(format!("{}{}", page.here, href.link())).filter(|_| depth > 0);
    rows.push(Row {
        href,
        person: None,
        is_rest: true,
        label: "All others".to_owned(),
        ..page.row(dimension, above, &rest, indent)
    });
}

/// What the rows are made from.
struct Page<'a> {
    here: &'a str,
    unit: Unit,
    asked: &'a Asked,
    found: &'a Found,
}

impl Page<'_> {
    /// Returns the page of what is below a group.
    fn opened(&self, values: &[String]) -> Asked {
        self.asked.opened(values).unwrap_or_else(|| self.asked.clone())
    }

    fn row(&self, dimension: &str, values: &[String], group: &Group, indent: usize) -> Row {
        let (unit, total) = (self.unit, self.found.total.credits);
        let share = format::percent(group.credits.share_of(total));
        let part = Part { class: "c1", sum: group.credits, label: String::new() };
        let value = values.last().map_or("", String::as_str);
        let people = self.here.trim_end_matches("usage");
        let is_person = dimension == "user" && !value.is_empty();
        Row {
            depth: indent,
            label: named(value),
            href: self.asked.opened(values).map(|asked| format!("{}{}", self.here, asked.link())),
            person: is_person.then(|| format!("{people}people/{}", segment(value))),
            amount: unit.show(group.credits),
            bar: chart::bar(&share, &[part], total),
            share,
            events: format::count(group.events),
            is_rest: false,
        }
    }
}

/// Sums by day, of all and of the largest groups.
struct ByDay {
    all: BTreeMap<i32, Sum>,
    /// The value of each group, what it came to, and its days.
    groups: Vec<(String, Sum, BTreeMap<i32, Sum>)>,
}

/// Reads the days of all groups at once; none where they are too many for one answer.
async fn days_of(
    api: &Client,
    path: &str,
    asked: &Asked,
    first: Option<&String>,
) -> Result<Option<ByDay>, Failure> {
    let Some(first) = first else { return Ok(None) };
    let mut pairs = asked.meant();
    pairs.push(("group_by".to_owned(), format!("day,{first}")));
    pairs.push(("limit".to_owned(), ROWS_MAX.to_string()));
    pairs.push(("quantities".to_owned(), "false".to_owned()));
    let query = pairs.into_iter().collect::<Fields>().link();
    let list: List<Group> = api.get(&format!("{path}{query}")).await?;
    Ok(list.next_cursor.is_none().then(|| by_day(&list.items, first)))
}

fn by_day(groups: &[Group], dimension: &str) -> ByDay {
    let mut all = BTreeMap::new();
    let mut named: BTreeMap<&str, BTreeMap<i32, Sum>> = BTreeMap::new();
    for group in groups {
        let Ok(day) = group.value("day").parse::<Day>() else { continue };
        let of_all = all.entry(day.days()).or_insert(Sum::ZERO);
        *of_all = of_all.plus(group.credits);
        named.entry(group.value(dimension)).or_default().insert(day.days(), group.credits);
    }
    let groups = named.into_iter().map(|(value, days)| {
        let sum = days.values().fold(Sum::ZERO, |sum, day| sum.plus(*day));
        (value.to_owned(), sum, days)
    });
    let mut groups: Vec<(String, Sum, BTreeMap<i32, Sum>)> = groups.collect();
    groups.sort_by_key(|(_, sum, _)| std::cmp::Reverse(*sum));
    groups.truncate(COLOURS.len() - 1);
    ByDay { all, groups }
}

async fn series(
    api: &Client,
    path: &str,
    asked: &Asked,
    level: Option<&Vec<Group>>,
) -> Result<ByDay, Failure> {
    let first = asked.by.first().filter(|dimension| *dimension != "day");
    let largest = first.and(level).into_iter().flatten().take(COLOURS.len() - 1);
    let of_group = |group: &Group| {
        let dimension = first.map(String::as_str).unwrap_or_default();
        let value = group.value(dimension).to_owned();
        let (asked, credits) = (asked.with_filter(dimension, &value), group.credits);
        async move { days(api, path, &asked).await.map(|days| (value, credits, days)) }
    };
    let (all, groups) = tokio::join!(days(api, path, asked), join_all(largest.map(of_group)));
    Ok(ByDay { all: all?, groups: groups.into_iter().collect::<Result<_, _>>()? })
}

async fn days(api: &Client, path: &str, asked: &Asked) -> Result<BTreeMap<i32, Sum>, Failure> {
    let mut days = BTreeMap::new();
    let mut cursor = None;
    for _ in 0..DAY_PAGES_MAX {
        let mut pairs = asked.meant();
        pairs.push(("group_by".to_owned(), "day".to_owned()));
        pairs.push(("limit".to_owned(), ROWS_MAX.to_string()));
        pairs.push(("quantities".to_owned(), "false".to_owned()));
        pairs.extend(cursor.map(|cursor| ("cursor".to_owned(), cursor)));
        let query = pairs.into_iter().collect::<Fields>().link();
        let list: List<Group> = api.get(&format!("{path}{query}")).await?;
        for group in &list.items {
            if let Ok(day) = group.value("day").parse::<Day>() {
                days.insert(day.days(), group.credits);
            }
        }
        cursor = list.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok(days)
}

/// A column's days: the first, and the one after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    from: i32,
    to: i32,
}

/// Divides days into columns: days, or weeks, or months where there are many.
fn buckets(first: i32, last: i32) -> (&'static str, Vec<Bucket>) {
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

fn sum_of(days: &BTreeMap<i32, Sum>, bucket: Bucket) -> Sum {
    days.range(bucket.from..bucket.to).fold(Sum::ZERO, |sum, (_, day)| sum.plus(*day))
}

fn label_of(step: &str, bucket: Bucket) -> String {
    let date = Day::from_days(bucket.from).to_chrono();
    let shape = if step == "month" { "%b %Y" } else { "%-d %b %Y" };
    date.map_or_else(String::new, |date| date.format(shape).to_string())
}

fn draw(here: &str, seen: &Seen, asked: &Asked, by_day: &ByDay) -> Chart {
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

fn without_day(by: &[String]) -> Vec<String> {
    let rest: Vec<String> = by.iter().filter(|name| *name != "day").cloned().collect();
    if rest.is_empty() { vec!["category".to_owned()] } else { rest }
}

/// A series with its colour.
struct Drawn {
    class: &'static str,
    label: String,
    /// The group's value; none for all, or for what other groups came to.
    value: Option<String>,
    total: Sum,
    days: BTreeMap<i32, Sum>,
}

/// Gives each of the largest groups a colour, and what they leave of all the last one.
fn coloured(by_day: &ByDay) -> Vec<Drawn> {
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

fn column(unit: Unit, step: &str, series: &[Drawn], bucket: Bucket) -> Column {
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

fn bars(columns: &[Column]) -> (Svg, Sum) {
    let top = chart::top(columns);
    (chart::columns("Use over time", columns, top), top)
}

fn lines(series: &[Drawn], buckets: &[Bucket]) -> (Svg, Sum) {
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

fn picker(here: &str, seen: &Seen, asked: &Asked) -> Picker {
    let preset = |label, span: Span| Preset {
        label,
        href: format!("{here}{}", asked.with_span(span.clone()).without_filter("day").link()),
        is_here: asked.span == span,
    };
    let tomorrow = seen.today.days() + 1;
    let last = |days: i32| Span::Days {
        from: Day::from_days(tomorrow - days).to_string(),
        to: Day::from_days(tomorrow).to_string(),
    };
    let period = |name: &str| Span::Period(name.to_owned());
    let (period_now, from, to) = match &asked.span {
        Span::Period(period) => (period.clone(), String::new(), String::new()),
        Span::Days { from, to } => ("days".to_owned(), from.clone(), to.clone()),
    };
    let mut levels = asked.by.clone();
    levels.resize(LEVELS_MAX, String::new());
    let mut kept = asked.filters.clone();
    kept.extend(asked.hidden());
    let mut kept_by_groups = kept.clone();
    kept.push(("group_by".to_owned(), asked.by.join(",")));
    if matches!(asked.span, Span::Days { .. }) {
        kept_by_groups.push(("from".to_owned(), from.clone()));
        kept_by_groups.push(("to".to_owned(), to.clone()));
    }
    let mut periods = vec![("current".to_owned(), "This period".to_owned())];
    periods
        .extend(seen.periods.iter().skip(1).map(|one| (one.index.to_string(), label_of_period(seen, one))));
    periods.push(("all".to_owned(), "All time".to_owned()));
    if period_now == "days" {
        periods.push((period_now.clone(), "Some days".to_owned()));
    } else if !periods.iter().any(|(name, _)| *name == period_now) {
        periods.push((period_now.clone(), format!("Period {period_now}")));
    }
    Picker {
        presets: vec![
            preset("This period", period("current")),
            preset("7 days", last(7)),
            preset("30 days", last(30)),
            preset("All time", period("all")),
        ],
        period: period_now,
        periods,
        levels,
        dimensions: DIMENSIONS.into_iter().map(|name| (name.to_owned(), format::words(name))).collect(),
        from,
        to,
        kept,
        kept_by_groups,
    }
}

fn label_of_period(seen: &Seen, period: &Period) -> String {
    let day = |time, shape: &str| {
        let date = seen.zone.local_day(time).to_chrono();
        date.map_or_else(String::new, |date| date.format(shape).to_string())
    };
    let last = period.ends_at.plus_micros(-1);
    format!("{} – {}", day(period.starts_at, "%-d %b"), day(last, "%-d %b %Y"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expected: &str) {
        assert_eq!(Asked::read(&Fields::read(query.as_bytes())).link(), expected, "{query}");
    }

    #[test]
    fn the_state_of_the_page_is_its_address() {
        check("", "?period=current&group_by=category%2Cmodel");
        check("group_by=", "?period=current&group_by=");
        check("group_by=user&group_by=&group_by=day", "?period=current&group_by=user%2Cday");
        check("from=2026-03-01&to=2026-03-04&group_by=day", "?from=2026-03-01&to=2026-03-04&group_by=day");
        check("period=days&from=2026-03-01&group_by=day", "?from=2026-03-01&group_by=day");
        check("period=3&from=2026-03-01&group_by=day", "?period=3&group_by=day");
        check(
            "tier=&user=ada&group_by=day&sort=name&view=lines&limit=9000",
            "?period=current&tier=&user=ada&group_by=day&sort=name&view=lines&limit=500",
        );
    }

    #[test]
    fn a_group_opens_into_what_it_is_made_of() {
        let opened = |query: &str, values: &[&str]| {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            Asked::read(&Fields::read(query.as_bytes())).opened(&values).map(|asked| asked.link())
        };
        let nested = "group_by=category,model";
        let expected = "?period=current&category=chat&group_by=model";
        assert_eq!(opened(nested, &["chat"]).as_deref(), Some(expected));
        let expected = "?period=current&category=chat&model=&group_by=tier";
        assert_eq!(opened(nested, &["chat", ""]).as_deref(), Some(expected));
        let all = "category=a&tier=b&model=c&feature=d&user=e&org=f&group_by=day";
        assert_eq!(opened(all, &["2026-03-01"]), None);
    }

    #[test]
    fn groups_add_up_to_those_above_them() {
        let groups: Vec<Group> = serde_json::from_value(serde_json::json!([
            {"category": "chat", "model": "a", "credits": "5", "events": 1, "quantities": {"tokens": "7"}},
            {"category": null, "model": "a", "credits": "20", "events": 2, "quantities": {}},
            {"category": "chat", "model": "b", "credits": "3", "events": 4, "quantities": {"tokens": "1"}},
        ]))
        .expect("groups");
        let said: Vec<String> = summed(&groups, &["category".to_owned()])
            .iter()
            .map(|group| format!("{} {} {}", group.value("category"), group.credits.0, group.events))
            .collect();
        assert_eq!(said, [" 20 2", "chat 8 5"]);
        let all = &summed(&groups, &[])[0];
        assert_eq!((all.credits.0.to_string().as_str(), all.events), ("28", 7));
        assert_eq!(all.quantities["tokens"].0.to_string(), "8");
    }

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
