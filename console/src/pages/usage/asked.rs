//! Asked: what the page is asked to show, as it stands in its address.

use crate::visit::Fields;

/// The dimensions of the API, in the order in which a group is opened further.
pub(super) const DIMENSIONS: [&str; 7] = ["category", "tier", "model", "feature", "user", "org", "day"];
/// Levels of nested groups.
pub(super) const LEVELS_MAX: usize = 3;
/// Groups of the first level on a page that asks for no other number, by the number of levels.
pub(super) const ROWS: [usize; LEVELS_MAX + 1] = [50, 50, 20, 10];
/// Groups below each group of the second level, and about how many there are below all of the first.
pub(super) const BELOW_SECOND: usize = 2;
pub(super) const BELOW_FIRST: usize = 40;
/// Most groups that the API answers at once.
pub(super) const ROWS_MAX: usize = 500;
/// The days that are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Span {
    Period(String),
    Days { from: String, to: String },
}

/// What the page is asked to show: its whole state, as it stands in the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) span: Span,
    pub(super) by: Vec<String>,
    /// An empty value is usage without one.
    pub(super) filters: Vec<(String, String)>,
    pub(super) by_name: bool,
    pub(super) as_lines: bool,
    /// Groups of the first level, where the address asks for a number.
    pub(super) rows: Option<usize>,
}

impl Asked {
    pub(super) fn read(query: &Fields) -> Asked {
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

    pub(super) fn rows(&self) -> usize {
        self.rows.unwrap_or(ROWS[self.by.len().min(LEVELS_MAX)])
    }

    /// Returns how many groups are listed below one of this depth.
    pub(super) fn rows_below(&self, depth: usize, first: usize) -> usize {
        match (self.rows, depth) {
            (_, 0) => self.rows(),
            (Some(_), _) => ROWS_MAX,
            (None, 1) => (BELOW_FIRST / first.max(1)).clamp(3, 10),
            (None, _) => BELOW_SECOND,
        }
    }

    pub(super) fn with_span(&self, span: Span) -> Asked {
        Asked { span, ..self.clone() }
    }

    pub(super) fn filter(&self, dimension: &str) -> Option<&str> {
        let found = self.filters.iter().find(|(name, _)| name == dimension);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn without_filter(&self, dimension: &str) -> Asked {
        let rest = self.filters.iter().filter(|(name, _)| name != dimension);
        Asked { filters: rest.cloned().collect(), ..self.clone() }
    }

    pub(super) fn with_filter(&self, dimension: &str, value: &str) -> Asked {
        let mut asked = self.without_filter(dimension);
        asked.filters.push((dimension.to_owned(), value.to_owned()));
        asked
    }

    /// Returns what a group is made of: it alone, by what is left to group by. None where nothing is left.
    pub(super) fn opened(&self, values: &[String]) -> Option<Asked> {
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
    pub(super) fn meant(&self) -> Vec<(String, String)> {
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
    pub(super) fn link(&self) -> String {
        let mut pairs = self.meant();
        pairs.push(("group_by".to_owned(), self.by.join(",")));
        pairs.extend(self.hidden());
        pairs.into_iter().collect::<Fields>().link()
    }

    /// Returns how the page looks, for its forms to keep.
    pub(super) fn hidden(&self) -> Vec<(String, String)> {
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
    pub(super) fn groups(&self, by: &[String], limit: usize) -> String {
        let mut pairs = self.meant();
        if !by.is_empty() {
            pairs.push(("group_by".to_owned(), by.join(",")));
            pairs.push(("sort".to_owned(), "-credits".to_owned()));
            pairs.push(("limit".to_owned(), limit.to_string()));
        }
        pairs.into_iter().collect::<Fields>().link()
    }
}

/// A link that chooses one of several views.
pub(super) struct Preset {
    pub(super) label: &'static str,
    pub(super) href: String,
    pub(super) is_here: bool,
}

/// Returns a value of a dimension as people read it.
pub(super) fn named(value: &str) -> String {
    if value.is_empty() { "not named".to_owned() } else { value.to_owned() }
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
}
