//! Charts: SVG from figures. Shapes stretch with the page, so every word stands in the HTML beside them.
//!
//! The marks have classes and no styles: the policy of the pages allows none in attributes.

use std::fmt::{self, Write};

use askama::filters::HtmlSafe;

use crate::format::Sum;

/// Width and height that shapes are drawn in, before they stretch.
const WIDE: i64 = 1_000;
const HIGH: i64 = 300;
/// Between two parts of a bar.
const GAP: i64 = 2;
/// Lines across a plot, the base among them.
pub const GRID_LINES: usize = 4;

/// An SVG element.
#[derive(Debug, Clone, Default)]
pub struct Svg(String);

impl fmt::Display for Svg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HtmlSafe for Svg {}

/// One part of a bar.
#[derive(Debug, Clone)]
pub struct Part {
    /// Class that gives its colour, such as `allowance`.
    pub class: &'static str,
    pub sum: Sum,
    /// Shown when pointed at.
    pub label: String,
}

/// One column of a chart.
#[derive(Debug, Clone)]
pub struct Column {
    pub label: String,
    /// From the base up.
    pub parts: Vec<Part>,
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Writes onto a text, which never fails.
macro_rules! put {
    ($to:expr, $($arg:tt)*) => { write!($to, $($arg)*).expect("text grows") };
}

fn begin(class: &str, title: &str, width: i64, height: i64) -> String {
    let title = escape(title);
    format!(
        r#"<svg class="{class}" role="img" aria-label="{title}" viewBox="0 0 {width} {height}" preserveAspectRatio="none">"#
    )
}

fn scaled(part: Sum, whole: Sum, length: i64) -> i64 {
    i64::from(part.share_of(whole)) * length / 1_000_000
}

/// Draws parts of a whole side by side; what they leave of the whole stays empty.
pub fn bar(title: &str, parts: &[Part], whole: Sum) -> Svg {
    let mut svg = begin("bar", title, WIDE, 10);
    let mut from = 0;
    for part in parts.iter().filter(|part| part.sum.is_positive()) {
        // What is there at all can be seen.
        let width = scaled(part.sum, whole, WIDE).max(GAP + 1).min(WIDE - from);
        // The gap between two parts belongs to the first.
        let drawn = if from + width < WIDE { (width - GAP).max(0) } else { width };
        put!(
            svg,
            r#"<rect class="of-{}" x="{from}" width="{drawn}" height="10"><title>{}</title></rect>"#,
            part.class,
            escape(&part.label)
        );
        from += width;
    }
    svg.push_str("</svg>");
    Svg(svg)
}

/// Returns the largest sum of a column, at least a little above 0.
pub fn top(columns: &[Column]) -> Sum {
    columns.iter().map(total).max().filter(|top| top.is_positive()).unwrap_or(Sum::ZERO)
}

fn total(column: &Column) -> Sum {
    column.parts.iter().fold(Sum::ZERO, |sum, part| sum.plus(part.sum))
}

fn grid(svg: &mut String) {
    for line in 0..GRID_LINES {
        let y = i64::try_from(line).unwrap_or_default() * HIGH / 3;
        put!(svg, r#"<line class="grid" x1="0" x2="{WIDE}" y1="{y}" y2="{y}"/>"#);
    }
}

/// Draws columns, each of parts upon each other; the highest reaches `top`.
pub fn columns(title: &str, columns: &[Column], top: Sum) -> Svg {
    let mut svg = begin("plot", title, WIDE, HIGH);
    grid(&mut svg);
    let number = i64::try_from(columns.len().max(1)).unwrap_or(1);
    for (at, column) in (0..).zip(columns) {
        let (from, to) = (at * WIDE / number, (at + 1) * WIDE / number);
        let gap = ((to - from) / 5).max(1);
        let width = (to - from - gap).clamp(1, 48);
        let x = from + (to - from - width) / 2;
        let mut y = HIGH;
        put!(
            svg,
            r#"<g><title>{}</title><rect class="hit" x="{from}" y="0" width="{}" height="{HIGH}"/>"#,
            escape(&column.label),
            to - from
        );
        for part in column.parts.iter().filter(|part| part.sum.is_positive()) {
            let height = scaled(part.sum, top, HIGH).max(1).min(y);
            y -= height;
            put!(
                svg,
                r#"<rect class="of-{}" x="{x}" y="{y}" width="{width}" height="{height}"/>"#,
                part.class
            );
        }
        svg.push_str("</g>");
    }
    svg.push_str("</svg>");
    Svg(svg)
}

/// One line of a chart, through points that are shares of the width and of the height, in millionths.
#[derive(Debug, Clone)]
pub struct Line {
    pub class: &'static str,
    pub points: Vec<(u32, u32)>,
    /// Whether the area below is filled.
    pub is_filled: bool,
}

/// Draws lines over the same axes, and marks instants across the whole height.
pub fn lines(title: &str, lines: &[Line], marks: &[(&'static str, u32)]) -> Svg {
    let mut svg = begin("plot", title, WIDE, HIGH);
    grid(&mut svg);
    let place = |(x, y): (u32, u32)| {
        let (x, y) = (i64::from(x) * WIDE / 1_000_000, HIGH - i64::from(y) * HIGH / 1_000_000);
        (x, y.clamp(0, HIGH))
    };
    for (class, at) in marks {
        let (x, _) = place((*at, 0));
        put!(svg, r#"<line class="mark {class}" x1="{x}" x2="{x}" y1="0" y2="{HIGH}"/>"#);
    }
    for line in lines.iter().filter(|line| !line.points.is_empty()) {
        let mut points = String::new();
        for point in &line.points {
            let (x, y) = place(*point);
            put!(points, "{x},{y} ");
        }
        let points = points.trim_end();
        if line.is_filled {
            let (first, last) = (place(line.points[0]).0, place(line.points[line.points.len() - 1]).0);
            put!(
                svg,
                r#"<polygon class="area {}" points="{first},{HIGH} {points} {last},{HIGH}"/>"#,
                line.class
            );
        }
        put!(svg, r#"<polyline class="line {}" points="{points}"/>"#, line.class);
    }
    svg.push_str("</svg>");
    Svg(svg)
}

#[cfg(test)]
mod tests {
    use ledger_core::value::credits::Credits;

    use super::*;

    fn part(class: &'static str, credits: i64) -> Part {
        Part { class, sum: Sum(Credits::whole(credits)), label: format!("<{credits}>") }
    }

    #[test]
    fn a_bar_is_as_long_as_its_parts() {
        let whole = Sum(Credits::whole(200));
        let drawn = bar("Credits", &[part("allowance", 100), part("rollover", 0), part("bought", 50)], whole)
            .to_string();
        assert!(drawn.contains(r#"<rect class="of-allowance" x="0" width="498""#), "{drawn}");
        assert!(drawn.contains(r#"<rect class="of-bought" x="500" width="248""#), "{drawn}");
        assert!(!drawn.contains("rollover") && drawn.contains("&lt;100&gt;"), "{drawn}");
    }

    #[test]
    fn no_part_leaves_the_whole() {
        let drawn = bar("Credits", &[part("allowance", 300), part("bought", 5)], Sum(Credits::whole(300)))
            .to_string();
        assert!(
            drawn.contains(r#"x="0" width="1000""#) && drawn.contains(r#"x="1000" width="0""#),
            "{drawn}"
        );
    }

    #[test]
    fn columns_stand_on_the_base() {
        let given = [Column { label: "Monday".into(), parts: vec![part("a", 1), part("b", 1)] }];
        let drawn = columns("Use", &given, top(&given)).to_string();
        assert!(drawn.contains(r#"y="150""#) && drawn.contains(r#"y="0""#), "{drawn}");
    }

    #[test]
    fn a_line_goes_through_its_points() {
        let line = Line { class: "left", points: vec![(0, 1_000_000), (500_000, 0)], is_filled: true };
        let drawn = lines("Left", &[line], &[("now", 500_000)]).to_string();
        assert!(drawn.contains(r#"points="0,0 500,300""#) && drawn.contains(r#"x1="500""#), "{drawn}");
    }
}
