//! Answers: JSON, or CSV if the caller requests it, always with the position that they reflect.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::AccountId;
use ledger_core::value::time::Time;
use platform::position::Position;
use serde::Serialize;
use web::http::Problem;

use crate::list::Page;

/// Repeats `position` as a header, for answers whose body can't carry it.
const POSITION: HeaderName = HeaderName::from_static("ledger-position");
const RECORDED_AT: HeaderName = HeaderName::from_static("ledger-recorded-at");
/// Carries `next_cursor` with CSV.
const NEXT_CURSOR: HeaderName = HeaderName::from_static("next-cursor");

/// Answers depend on the key, so caches must not store them.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The state of an account that an answer shows.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Reflects {
    pub account_id: AccountId,
    /// The last folded record of its partition.
    pub position: Position,
    pub recorded_at: Time,
}

#[derive(Serialize)]
struct Whole<'a, T> {
    #[serde(flatten)]
    reflects: &'a Reflects,
    #[serde(flatten)]
    body: T,
}

/// Answers with an object and the state that it reflects.
pub(crate) fn object(reflects: &Reflects, body: impl Serialize) -> Result<Response, Problem> {
    plain(reflects, Whole { reflects, body })
}

/// Answers without a single account; each part carries the state that it reflects.
pub(crate) fn unbound(body: impl Serialize) -> Result<Response, Problem> {
    let json = serde_json::to_vec(&body).map_err(Problem::internal)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, NO_STORE),
    ];
    Ok((headers, json).into_response())
}

/// Answers with an object that has its own position and time; the reflected state is only in the headers.
pub(crate) fn plain(reflects: &Reflects, body: impl Serialize) -> Result<Response, Problem> {
    let mut response = unbound(body)?;
    mark(&mut response, reflects)?;
    Ok(response)
}

/// A row of a list that can also be CSV; nested values are flattened to `name=amount name=amount`.
pub(crate) trait Record {
    /// Returns the row's values in the order of its header.
    fn values(&self) -> Vec<String>;
}

/// The names in a list's CSV, and whether this caller requested CSV.
#[derive(Debug)]
pub(crate) struct Format {
    csv: bool,
}

impl Format {
    /// Reads the `Accept` header: JSON unless CSV is named and preferred.
    pub fn of(headers: &HeaderMap) -> Self {
        let accepts: Vec<&str> = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .collect();
        let csv = quality(&accepts, "text/csv").unwrap_or(0.0);
        let json = quality(&accepts, "application/json").unwrap_or(0.0);
        Self { csv: csv > json }
    }
}

/// Returns the quality of a media type, if the header names it.
fn quality(accepts: &[&str], media_type: &str) -> Option<f32> {
    let range = accepts.iter().find(|range| {
        range.split(';').next().is_some_and(|named| named.trim().eq_ignore_ascii_case(media_type))
    })?;
    let given = range.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("q="));
    Some(given.and_then(|quality| quality.trim().parse().ok()).unwrap_or(1.0))
}

/// Answers with a page as JSON or CSV.
pub(crate) fn page<T: Serialize + Record>(
    reflects: &Reflects,
    format: &Format,
    header: &[&str],
    page: Page<T>,
) -> Result<Response, Problem> {
    if !format.csv {
        return object(reflects, page);
    }
    let text = to_csv(header, &page.items).map_err(Problem::internal)?;
    let mut response = ([(header::CONTENT_TYPE, "text/csv")], text).into_response();
    mark(&mut response, reflects)?;
    if let Some(cursor) = page.next_cursor {
        response.headers_mut().insert(NEXT_CURSOR, value(&cursor)?);
    }
    Ok(response)
}

fn to_csv<T: Record>(header: &[&str], rows: &[T]) -> csv::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(header)?;
    for row in rows {
        writer.write_record(row.values().into_iter().map(cell))?;
    }
    writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))
}

/// How a text begins that a spreadsheet takes for a formula.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// Marks a text as text where a spreadsheet would run it. Amounts are numbers and stay.
fn cell(value: String) -> String {
    if value.starts_with(FORMULA) && value.parse::<Credits>().is_err() { format!("'{value}") } else { value }
}

fn mark(response: &mut Response, reflects: &Reflects) -> Result<(), Problem> {
    let headers = response.headers_mut();
    headers.insert(POSITION, value(&reflects.position.to_string())?);
    headers.insert(RECORDED_AT, value(&reflects.recorded_at.to_string())?);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.append(header::VARY, HeaderValue::from_static("accept"));
    Ok(())
}

fn value(text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(text).map_err(Problem::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants_csv(accept: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().expect("a header"));
        Format::of(&headers).csv
    }

    #[test]
    fn csv_is_for_those_who_name_it() {
        for accept in
            ["text/csv", "Text/CSV; charset=utf-8", "text/csv, */*;q=0.1", "application/json;q=0.5,text/csv"]
        {
            assert!(wants_csv(accept), "{accept}");
        }
        for accept in ["*/*", "application/json", "application/json, text/csv;q=0.9", "text/csv;q=0", ""] {
            assert!(!wants_csv(accept), "{accept}");
        }
        assert!(!Format::of(&HeaderMap::new()).csv);
    }

    struct Two(&'static str, &'static str);

    impl Record for Two {
        fn values(&self) -> Vec<String> {
            vec![self.0.into(), self.1.into()]
        }
    }

    #[test]
    fn no_cell_is_a_formula_and_amounts_stay_numbers() {
        for text in ["=HYPERLINK(\"x\")", "+1+1", "-2+3", "@SUM(A1)", "\tx", "\rx", "-", "+"] {
            assert_eq!(cell(text.into()), format!("'{text}"));
        }
        for text in ["-0.38", "12.5", "0", "a=1", "", "gpt-4o"] {
            assert_eq!(cell(text.into()), text);
        }
    }

    #[test]
    fn csv_has_a_header_row_and_quotes_what_needs_it() {
        let text = to_csv(&["a", "b"], &[Two("1", "x,\"y\""), Two("", "2")]).expect("csv");
        assert_eq!(String::from_utf8_lossy(&text), "a,b\n1,\"x,\"\"y\"\"\"\n,2\n");
        let empty = to_csv::<Two>(&["a", "b"], &[]).expect("csv");
        assert_eq!(empty, b"a,b\n");
    }
}
