//! Events: streams the journal as stored, for auditors who refold it.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use platform::kafka::{self, Record};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tracing::warn;
use transparency_log::hash::Hash;
use web::auth::{Action, Principal, Ticket};
use web::http::{Problem, Query};
use web::openapi::{Answers, Operation, Route, get};
use web::quota::Slot;

use super::leaf;
use crate::app::{AUDITS_MAX, App};

/// Lines sent as one chunk if available.
const CHUNK_LINES_MAX: usize = 200;
/// Media type of JSON, one value a line.
const NDJSON: &str = "application/x-ndjson";
/// The journal's end at the request, where the next request continues.
const END: HeaderName = HeaderName::from_static("ledger-end");

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditQuery {
    /// A partition of the journal.
    #[schemars(range(min = 0))]
    partition: i32,
    /// Where to begin.
    #[serde(default)]
    offset: u64,
    /// The offset before which to end; without it, at the journal's end.
    until: Option<u64>,
}

/// The key of a record: the account's id.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "stands for its schema")]
struct RecordKey(String);

/// A SHA-256 in hexadecimal digits.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "stands for its schema")]
struct ValueHash(String);

/// One record of the journal.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "JournalRecord")]
struct Line<'a> {
    partition: i32,
    offset: i64,
    /// The record's index among those of its partition, as the audit log counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    leaf: Option<u64>,
    timestamp: ledger_core::value::time::Time,
    /// Null without `key_base64`: the record has no key.
    #[schemars(with = "Option<RecordKey>")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    /// The SHA-256 of the value's bytes; null if the record has no value.
    #[schemars(with = "Option<ValueHash>")]
    value_sha256: Option<String>,
    /// The value's exact bytes, if `event` does not have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    /// The record's value as stored, if it is JSON on one line; otherwise null. Null without `value_base64`: the record
    /// has no value.
    #[schemars(with = "serde_json::Value")]
    event: Option<&'a RawValue>,
}

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        get("/v1/audit/events", events)
            .named("streamJournal", "Streams the journal as stored, one record a line.")
            .says(
                "Reads one partition from an offset up to its end as it was at the request. Continue at the offset \
                 after the last line received. An answer that breaks off is incomplete. Answers are compressed by \
                 zstd or gzip for those who accept it.",
            )
            .refuses(&["partition_not_found"])
            .compressed(),
    ]
}

/// `GET /v1/audit/events`
async fn events(
    State(app): State<App>,
    caller: Principal,
    ticket: Ticket,
    query: Result<Query<AuditQuery>, Problem>,
) -> Result<Lines, Problem> {
    caller.require_role(Action::AuditRead)?;
    let Query(query) = query?;
    if !(0..app.identity.partitions).contains(&query.partition) {
        let detail = format!("the journal has partitions 0 to {}", app.identity.partitions - 1);
        return Err(Problem::not_found("partition_not_found", detail));
    }
    let full = || {
        let detail = format!("{AUDITS_MAX} readers of the journal at once, half of them of one key");
        Problem::too_many_requests(detail)
    };
    let slot = app.slots.audits.take(&caller.key_id).ok_or_else(full)?;
    let mut end = app.ends.of(query.partition).await.map_err(journal_unavailable)?;
    let [from, until] = [Some(query.offset), query.until]
        .map(|offset| offset.map(|offset| i64::try_from(offset).unwrap_or(i64::MAX)));
    let from = from.unwrap_or_default();
    end.offset = end.offset.min(until.unwrap_or(i64::MAX));
    let start = leaf::start(&app, query.partition, from).await?;
    let records = kafka::read_partition(&app.kafka, query.partition, start.offset, end.offset);
    let lines = lines(records, start.leaf, from, slot);
    let mut response = Body::from_stream(while_admitted(lines, ticket)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(END, HeaderValue::from_str(&end.to_string()).map_err(Problem::internal)?);
    Ok(Lines(response))
}

/// The answer with records, one a line.
pub(crate) struct Lines(Response);

impl IntoResponse for Lines {
    fn into_response(self) -> Response {
        self.0
    }
}

impl Answers for Lines {
    fn describe(operation: &mut Operation<'_>) {
        let record = operation.schemas.of_answer::<Line<'_>>();
        operation.answers(200, "Records, one a line.", NDJSON, record);
        operation.answers_with::<String>("Ledger-End", "The position after the last record of the answer.");
    }
}

fn journal_unavailable(error: kafka::Error) -> Problem {
    warn!(%error, "the journal can't be read");
    Problem::unavailable("the journal can't be read now")
}

/// Breaks the answer off once the key ends.
fn while_admitted(
    lines: impl Stream<Item = Result<Bytes, kafka::Error>> + Send + 'static,
    ticket: Ticket,
) -> impl Stream<Item = Result<Bytes, axum::BoxError>> + Send + 'static {
    let ended = futures::stream::once(async move {
        ticket.ended().await;
        Err("the key has ended".into())
    });
    let lines = lines.map_err(axum::BoxError::from).map(Some).chain(futures::stream::iter([None]));
    // The first of both that ends the answer: an error, or the end of the lines.
    let both = futures::stream::select(lines, ended.map(Some));
    both.scan(false, |failed, item| {
        let item = item.filter(|_| !*failed);
        *failed = matches!(item, Some(Err(_)));
        std::future::ready(item)
    })
}

/// Turns records into chunks of lines, beginning with those at an offset; the slot is held until the stream ends or is
/// dropped. An error breaks the answer off, so that a partial answer can't look complete.
fn lines(
    records: impl Stream<Item = Result<Record, kafka::Error>> + Send + 'static,
    first_leaf: u64,
    from: i64,
    slot: Slot,
) -> impl Stream<Item = Result<Bytes, kafka::Error>> + Send + 'static {
    let mut next_leaf = first_leaf;
    let lines = records.try_filter_map(move |record| {
        let _held = &slot;
        let leaf = next_leaf;
        next_leaf += 1;
        let wanted = record.position.offset >= from;
        std::future::ready(Ok(wanted.then(|| line(&record, Some(leaf)))))
    });
    lines.ready_chunks(CHUNK_LINES_MAX).flat_map(|chunk| {
        let mut text = Vec::new();
        let mut failure = None;
        for line in chunk {
            match line {
                Ok(line) => text.extend_from_slice(&line),
                Err(error) => failure = Some(Err(error)),
            }
        }
        let text = (!text.is_empty()).then(|| Ok(Bytes::from(text)));
        futures::stream::iter(text.into_iter().chain(failure))
    })
}

/// Writes a record as one line of JSON, its value byte for byte as stored; without its leaf where that is not known.
pub fn line(record: &Record, leaf: Option<u64>) -> Vec<u8> {
    let key = record.key.as_deref();
    let key_text = key.and_then(|key| std::str::from_utf8(key).ok());
    let value = record.value.as_deref();
    let event = value.and_then(one_line_json);
    // A stored `null` would look like no value.
    let is_exact =
        |value: &[u8]| event.is_some_and(|event| event.get().len() == value.len() && value != b"null");
    let line = Line {
        partition: record.position.partition,
        offset: record.position.offset,
        leaf,
        timestamp: record.appended_at,
        key: key_text,
        key_base64: key.filter(|_| key_text.is_none()).map(|key| STANDARD.encode(key)),
        value_sha256: value.map(|value| hex::encode(Hash::of(value).0)),
        value_base64: value.filter(|value| !is_exact(value)).map(|value| STANDARD.encode(value)),
        event,
    };
    let mut bytes = serde_json::to_vec(&line).expect("a record is plain JSON");
    bytes.push(b'\n');
    bytes
}

/// Returns the value if it is JSON on one line.
fn one_line_json(value: &[u8]) -> Option<&RawValue> {
    let breaks = value.iter().any(|byte| matches!(byte, b'\n' | b'\r'));
    if breaks { None } else { serde_json::from_slice(value).ok() }
}

#[cfg(test)]
mod tests {
    use platform::position::Position;
    use serde_json::{Value, json};

    use super::*;

    fn record(key: Option<&[u8]>, value: Option<&[u8]>) -> Record {
        Record {
            position: Position { partition: 3, offset: 1041 },
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            appended_at: "2026-02-03T10:00:00.250Z".parse().expect("a time"),
        }
    }

    fn text(record: &Record) -> String {
        String::from_utf8(line(record, Some(1040))).expect("text")
    }

    /// Compares a line with what is expected besides its place, its time and the hash of its value.
    fn check(key: Option<&[u8]>, value: Option<&[u8]>, mut expected: Value) {
        let text = text(&record(key, value));
        assert_eq!(text.matches('\n').count(), 1, "one line");
        let place = json!({"partition": 3, "offset": 1041, "leaf": 1040, "timestamp": "2026-02-03T10:00:00.250Z",
                           "value_sha256": value.map(|value| hex::encode(Hash::of(value).0))});
        let fields = expected.as_object_mut().expect("an object");
        fields.extend(place.as_object().expect("an object").clone());
        let read: Value = serde_json::from_str(&text).expect("json");
        assert_eq!(read, expected);
    }

    #[test]
    fn a_record_is_one_line_with_its_value_as_stored_at_its_end() {
        let value = r#"{"id":"e1",  "data":{"credits":"1.50"}}"#;
        let line = text(&record(Some(b"acme"), Some(value.as_bytes())));
        assert!(line.ends_with(&format!(r#","event":{value}}}{}"#, '\n')), "byte for byte: {line}");
        let event = json!({"id": "e1", "data": {"credits": "1.50"}});
        check(Some(b"acme"), Some(value.as_bytes()), json!({"key": "acme", "event": event}));
    }

    #[test]
    fn what_is_no_json_or_no_text_is_shown_in_base64() {
        check(
            Some(&[0xff]),
            Some(b"\x00\x01"),
            json!({"key": null, "key_base64": "/w==", "event": null, "value_base64": "AAE="}),
        );
        check(None, Some(b"{\n}"), json!({"key": null, "event": null, "value_base64": "ewp9"}));
        check(None, Some(b" {}"), json!({"key": null, "event": {}, "value_base64": "IHt9"}));
    }

    #[test]
    fn what_is_absent_looks_otherwise_than_what_is_empty_or_null() {
        check(None, None, json!({"key": null, "event": null}));
        check(Some(b""), Some(b""), json!({"key": "", "event": null, "value_base64": ""}));
        check(None, Some(b"null"), json!({"key": null, "event": null, "value_base64": "bnVsbA=="}));
        let absent = text(&record(None, None));
        assert!(absent.ends_with(",\"value_sha256\":null,\"event\":null}\n"), "{absent}");
    }

    #[test]
    fn a_line_says_its_leaf_where_it_is_known() {
        let line = String::from_utf8(line(&record(None, Some(b"{}")), None)).expect("text");
        assert!(!line.contains("leaf"), "{line}");
    }
}
