//! Table: the groups with their shares, nested, and the sums above them.

use super::asked::{Asked, Preset, ROWS_MAX, named};
use super::charts::{Chart, draw};
use super::groups::{Found, Group};
use super::seen::Seen;
use crate::api::Failure;
use crate::chart::{self, Part, Svg};
use crate::format::{self, Amount, Sum, Unit};
use crate::visit::segment;

pub(super) struct Shown {
    pub(super) total: Amount,
    pub(super) unit: &'static str,
    pub(super) events: String,
    pub(super) each: Option<Amount>,
    pub(super) quantities: Vec<(String, String)>,
    pub(super) chart: Result<Chart, Failure>,
    pub(super) rows: Vec<Row>,
    pub(super) by: Vec<String>,
    pub(super) order: Vec<Preset>,
    pub(super) more: Option<String>,
}

pub(super) struct Row {
    pub(super) depth: usize,
    pub(super) label: String,
    pub(super) href: Option<String>,
    /// The page of a user.
    pub(super) person: Option<String>,
    pub(super) amount: Amount,
    pub(super) share: String,
    pub(super) bar: Svg,
    pub(super) events: String,
    pub(super) is_rest: bool,
}

pub(super) fn shown(here: &str, seen: &Seen, asked: &Asked, mut found: Found) -> Shown {
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

pub(super) fn quantity((name, amount): (&String, &Sum)) -> (String, String) {
    (format::words(name), Unit::Credits.show(*amount).text())
}

/// Adds the groups below a group, each with its own below it, and what is not listed as one row.
pub(super) fn add_rows(rows: &mut Vec<Row>, page: &Page<'_>, above: &[String], indent: usize) {
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
pub(super) struct Page<'a> {
    pub(super) here: &'a str,
    pub(super) unit: Unit,
    pub(super) asked: &'a Asked,
    pub(super) found: &'a Found,
}

impl Page<'_> {
    /// Returns the page of what is below a group.
    pub(super) fn opened(&self, values: &[String]) -> Asked {
        self.asked.opened(values).unwrap_or_else(|| self.asked.clone())
    }

    pub(super) fn row(&self, dimension: &str, values: &[String], group: &Group, indent: usize) -> Row {
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
