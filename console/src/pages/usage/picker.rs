//! Picker: what can be picked, and what is.

use ledger_core::value::time::Day;

use super::asked::{Asked, DIMENSIONS, LEVELS_MAX, Preset, Span};
use super::seen::Seen;
use crate::account::Period;
use crate::format;

pub(super) struct Picker {
    pub(super) presets: Vec<Preset>,
    pub(super) period: String,
    pub(super) periods: Vec<(String, String)>,
    /// What the first, second and third level group by.
    pub(super) levels: Vec<String>,
    pub(super) dimensions: Vec<(String, String)>,
    pub(super) from: String,
    pub(super) to: String,
    /// What a form about days keeps.
    pub(super) kept: Vec<(String, String)>,
    /// What the form about groups keeps.
    pub(super) kept_by_groups: Vec<(String, String)>,
}

pub(super) fn picker(here: &str, seen: &Seen, asked: &Asked) -> Picker {
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

pub(super) fn label_of_period(seen: &Seen, period: &Period) -> String {
    let day = |time, shape: &str| {
        let date = seen.zone.local_day(time).to_chrono();
        date.map_or_else(String::new, |date| date.format(shape).to_string())
    };
    let last = period.ends_at.plus_micros(-1);
    format!("{} – {}", day(period.starts_at, "%-d %b"), day(last, "%-d %b %Y"))
}
