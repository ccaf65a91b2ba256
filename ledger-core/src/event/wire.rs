//! Events as CloudEvents 1.0 in structured JSON, the form of the journal.
//!
//! The only place that decodes event JSON. It converts old versions, so the fold knows one shape.

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::event::rules_v1::JSON_DEPTH_MAX;
pub use crate::event::rules_v1::RECORD_BYTES_MAX;
use crate::event::shape::Object;
use crate::event::{Data, Event};
use crate::value::id::{AccountId, EventId, Label, Source};
use crate::value::time::Time;

/// Why this version can't fold a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No valid envelope, or data that breaks its schema: becomes a dead letter.
    #[error("not an event: {0}")]
    NotAnEvent(String),
    /// A valid envelope of an unknown type or version: halts its account.
    #[error("unknown event type {event_type} on account {account}")]
    UnknownType {
        /// The account to halt.
        account: AccountId,
        /// The type that is not known.
        event_type: String,
    },
}

/// The envelope as stored. Decoding drops other extension attributes.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    id: EventId,
    source: Source,
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    subject: AccountId,
    time: Time,
    recordedat: Time,
    actor: Label,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Serialize)]
struct EnvelopeOut<'a> {
    specversion: &'static str,
    id: &'a EventId,
    source: &'a Source,
    #[serde(rename = "type")]
    event_type: &'static str,
    subject: &'a AccountId,
    time: Time,
    recordedat: Time,
    actor: &'a Label,
    datacontenttype: &'static str,
    dataschema: &'a str,
    data: &'a Data,
}

/// Reads an event as stored in the journal.
///
/// Errors: invalid bytes or data that breaks the type's schema; an unknown type or version.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let not_an_event = |reason: String| DecodeError::NotAnEvent(reason);
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(not_an_event(format!("record of {} bytes, at most {RECORD_BYTES_MAX}", bytes.len())));
    }
    if depth(bytes) > JSON_DEPTH_MAX {
        return Err(not_an_event(format!("nested deeper than {JSON_DEPTH_MAX}")));
    }
    let Object(envelope): Object<Envelope<'_>> =
        serde_json::from_slice(bytes).map_err(|error| not_an_event(error.to_string()))?;
    if envelope.specversion != "1.0" {
        return Err(not_an_event(format!("specversion {}", envelope.specversion)));
    }
    let data = match data(&envelope.event_type, envelope.data.get()) {
        None if envelope.event_type.starts_with("ledger.") => {
            return Err(DecodeError::UnknownType {
                account: envelope.subject,
                event_type: envelope.event_type.into_owned(),
            });
        }
        None => return Err(not_an_event(format!("type {} is not the ledger's", envelope.event_type))),
        Some(data) => data.map_err(|error| not_an_event(format!("data: {error}")))?,
    };
    Ok(Event {
        id: envelope.id,
        source: envelope.source,
        account: envelope.subject,
        occurred_at: envelope.time,
        recorded_at: envelope.recordedat,
        actor: envelope.actor,
        data,
    })
}

/// Reads the `data` of a type; none for a type that is not known.
pub fn data(event_type: &str, json: &str) -> Option<Result<Data, serde_json::Error>> {
    let read = Data::read(event_type, json)?;
    Some(read.and_then(|data| match data.check_recorded() {
        Ok(()) => Ok(data),
        Err(rule) => Err(serde_json::Error::custom(format_args!("{} {}", rule.field, rule.detail))),
    }))
}

pub fn encode(event: &Event) -> Vec<u8> {
    let event_type = event.data.type_name();
    let envelope = EnvelopeOut {
        specversion: "1.0",
        id: &event.id,
        source: &event.source,
        event_type,
        subject: &event.account,
        time: event.occurred_at,
        recordedat: event.recorded_at,
        actor: &event.actor,
        datacontenttype: "application/json",
        dataschema: &schema_path(event_type),
        data: &event.data,
    };
    let mut bytes = Vec::with_capacity(512);
    serde_json::to_writer(&mut bytes, &envelope).expect("an event is plain JSON with string keys");
    bytes
}

pub fn data_json(data: &Data) -> Vec<u8> {
    to_json(data)
}

/// Returns the path of the schema of an event type: `schemas/usage.recorded.v1.json`.
pub fn schema_path(event_type: &str) -> String {
    format!("schemas/{}.json", event_type.trim_start_matches("ledger."))
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("a body is plain JSON with string keys")
}

/// Returns how deep the JSON in `bytes` nests; brackets inside strings don't count.
pub fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"{"specversion":"1.0","id":"e1","source":"/app","type":"ledger.usage.recorded.v1",
        "subject":"acme","time":"2026-02-03T10:00:00Z","recordedat":"2026-02-03T10:00:01Z","actor":"key_1",
        "traceparent":"dropped","data":{"user_id":"ana","credits":"0.38","quantities":{"input_tokens":1200}}}"#;

    const T: &str = "\"2026-02-03T10:00:00Z\"";

    #[test]
    fn what_is_written_reads_back_equal() {
        let event = decode(SAMPLE.as_bytes()).expect("an event");
        assert_eq!(decode(&encode(&event)), Ok(event));
    }

    #[test]
    fn an_unknown_version_names_its_account() {
        let newer = SAMPLE.replace("recorded.v1", "recorded.v9");
        assert_eq!(
            decode(newer.as_bytes()),
            Err(DecodeError::UnknownType {
                account: AccountId::new("acme").expect("an id"),
                event_type: "ledger.usage.recorded.v9".into()
            })
        );
    }

    #[test]
    fn what_is_no_envelope_is_told_from_an_unknown_type() {
        let cases = [
            "",
            "{}",
            "\u{0}\u{1}",
            "[1]",
            &SAMPLE.replace("\"1.0\"", "\"0.3\""),
            &SAMPLE.replace("acme", "no such id"),
            &SAMPLE.replace("\"0.38\"", "0.38"),
            &SAMPLE.replace("\"user_id\"", "\"user\""),
            &SAMPLE.replace("ledger.usage", "other.usage"),
            &SAMPLE.replace("\"0.38\"", "\"-0.38\""),
            &SAMPLE.replace("\"credits\":\"0.38\",", ""),
            &format!(
                "[\"1.0\",\"e1\",\"/app\",\"ledger.usage.recorded.v1\",\"acme\",{T},{T},\"k\",{{\"credits\":\"1\"}}]"
            ),
            &SAMPLE.replace(
                "\"quantities\":{",
                "\"lines\":[[\"a\",1,\"1\",\"1\",\"1\",\"c\",1]],\"quantities\":{",
            ),
            &SAMPLE.replace("\"ana\"", &format!("{}\"a\"{}", "[".repeat(9), "]".repeat(9))),
        ];
        for bytes in cases {
            let outcome = decode(bytes.as_bytes());
            assert!(matches!(outcome, Err(DecodeError::NotAnEvent(_))), "{bytes}: {outcome:?}");
        }
    }

    #[test]
    fn brackets_in_strings_do_not_nest() {
        assert_eq!(depth(br#"{"a":"[[[[\"[["}"#), 1);
        assert_eq!(depth(br#"{"a":[{"b":[]}]}"#), 4);
    }
}
