//! Answers: JSON, or CSV if the caller requests it, always with the position that they reflect.

use std::borrow::Cow;
use std::marker::PhantomData;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::AccountId;
use ledger_core::value::time::Time;
use platform::position::Position;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::json;
use web::http::{ETag, Problem};
use web::openapi::{Answers, Operation, Route};

use crate::app::App;
use crate::list::Page;

/// Repeats `position` as a header, for answers whose body can't carry it.
const POSITION: HeaderName = HeaderName::from_static("ledger-position");
const RECORDED_AT: HeaderName = HeaderName::from_static("ledger-recorded-at");
/// Carries `next_cursor` with CSV.
const NEXT_CURSOR: HeaderName = HeaderName::from_static("next-cursor");

/// Media type of lists for spreadsheets.
const CSV: &str = "text/csv";

/// Answers depend on the key, so caches must not store them.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The state of an account that an answer shows.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Reflects {
    pub account_id: AccountId,
    /// The position in the journal that the answer reflects.
    pub position: Position,
    /// The account's ledger time at that position.
    pub recorded_at: Time,
}

/// An object or a page with the state that it reflects.
#[derive(Serialize)]
pub(crate) struct Now<T> {
    #[serde(flatten)]
    pub reflects: Reflects,
    #[serde(flatten)]
    pub body: T,
}

impl<T: JsonSchema> JsonSchema for Now<T> {
    /// A page keeps its name: it is never shown without the state.
    fn schema_name() -> Cow<'static, str> {
        let name = T::schema_name();
        if name.ends_with("Page") { name } else { format!("{name}Now").into() }
    }

    fn schema_id() -> Cow<'static, str> {
        format!("{}::Now<{}>", module_path!(), T::schema_id()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        #[derive(JsonSchema)]
        #[allow(dead_code, reason = "stands for its schema")]
        struct Both<T> {
            #[serde(flatten)]
            reflects: Reflects,
            #[serde(flatten)]
            body: T,
        }
        let mut schema = Both::<T>::json_schema(generator);
        // What the object is, and not the state.
        schema.remove("description");
        if let Some(said) = T::json_schema(generator).remove("description") {
            schema.insert("description".to_owned(), said);
        }
        schema
    }
}

/// An answer whose body has this schema; its headers say the state that it reflects.
pub(crate) struct Answer<B>(Response, PhantomData<fn() -> B>);

/// An answer with a setting.
pub(crate) type Tagged<B> = web::openapi::Tagged<Answer<B>>;

/// An answer about no single account.
pub(crate) struct Unbound<B>(Response, PhantomData<fn() -> B>);

/// The answer of a list as CSV.
pub(crate) struct Csv;

impl<B> IntoResponse for Answer<B> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<B> IntoResponse for Unbound<B> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<B: JsonSchema> Answers for Answer<B> {
    fn describe(operation: &mut Operation<'_>) {
        operation.answers_json::<B>(200, FOUND);
        describe_state(operation);
    }
}

impl<B: JsonSchema> Answers for Unbound<B> {
    fn describe(operation: &mut Operation<'_>) {
        operation.answers_json::<B>(200, FOUND);
    }
}

impl Answers for Csv {
    fn describe(operation: &mut Operation<'_>) {
        operation.answers(200, "Rows under a header.", CSV, json!({"type": "string"}));
        describe_state(operation);
        operation.answers_with::<String>("Next-Cursor", "The cursor of the next page; absent at the end.");
    }
}

const FOUND: &str = "Found.";

fn describe_state(operation: &mut Operation<'_>) {
    operation
        .answers_with::<String>("Ledger-Position", "The position that the answer reflects, such as 3:1041.");
    operation.answers_with::<Time>("Ledger-Recorded-At", "The account's ledger time at that position.");
}

/// Makes the route of a list as CSV, whatever the caller accepts.
pub(crate) fn csv(route: Route<App>) -> Route<App> {
    route.answering::<Csv>(|mut request| {
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(CSV));
        request
    })
}

/// Answers with an object and the state that it reflects.
pub(crate) fn object<T: Serialize>(reflects: &Reflects, body: T) -> Result<Answer<Now<T>>, Problem> {
    plain(reflects, Now { reflects: reflects.clone(), body })
}

/// Answers without a single account; each part carries the state that it reflects.
pub(crate) fn unbound<B: Serialize>(body: B) -> Result<Unbound<B>, Problem> {
    let json = serde_json::to_vec(&body).map_err(Problem::internal)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, NO_STORE),
    ];
    Ok(Unbound((headers, json).into_response(), PhantomData))
}

/// Answers with an object that has its own position and time; the reflected state is only in the headers.
pub(crate) fn plain<B: Serialize>(reflects: &Reflects, body: B) -> Result<Answer<B>, Problem> {
    let Unbound(mut response, body) = unbound(body)?;
    mark(&mut response, reflects)?;
    Ok(Answer(response, body))
}

/// Answers with a setting and the tag of its state.
pub(crate) fn tagged<T: Serialize>(
    reflects: &Reflects,
    body: T,
    etag: ETag,
) -> Result<Tagged<Now<T>>, Problem> {
    object(reflects, body).map(|answer| web::openapi::Tagged(answer, Some(etag)))
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
        let csv = quality(&accepts, CSV).unwrap_or(0.0);
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
) -> Result<Answer<Now<Page<T>>>, Problem> {
    if !format.csv {
        return object(reflects, page);
    }
    let text = to_csv(header, &page.items).map_err(Problem::internal)?;
    let mut response = ([(header::CONTENT_TYPE, CSV)], text).into_response();
    mark(&mut response, reflects)?;
    if let Some(cursor) = page.next_cursor {
        response.headers_mut().insert(NEXT_CURSOR, value(&cursor)?);
    }
    Ok(Answer(response, PhantomData))
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
