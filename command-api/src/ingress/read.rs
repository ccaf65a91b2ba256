//! Reads a record of any Kafka client as an offer of usage.
//!
//! The account is the event's `subject`; the record's key and partition are the producer's affair.

use ledger_core::event::wire::RECORD_BYTES_MAX;
use ledger_core::request::{read_binary_offer, read_offer};
use platform::kafka::{IngressRecord, Taken};

use crate::admission::refusal;
use crate::admission::{Offered, Refusal};

/// The record has no value.
const NO_VALUE: &str = "no_value";
/// The client library could not decompress or parse the record's batch.
pub const UNREADABLE: &str = "unreadable";

/// Media type of a whole CloudEvent in the value; `+json` may follow, and parameters.
const STRUCTURED: &str = "application/cloudevents";
/// What the names of headers begin with that are attributes of a CloudEvent.
const ATTRIBUTE: &str = "ce_";

pub fn read(taken: &Taken) -> Offered {
    match taken {
        Taken::Record(record) => read_record(record),
        Taken::Unreadable(it) => Err(Refusal::new(UNREADABLE, it.reason.clone())),
    }
}

fn read_record(record: &IngressRecord) -> Offered {
    let Some(value) = &record.value else {
        return Err(Refusal::new(NO_VALUE, "the record has no value"));
    };
    if value.len() > RECORD_BYTES_MAX {
        return Err(refusal::too_large(value.len()));
    }
    let content_type = header(record, "content-type").map(|value| value.to_ascii_lowercase());
    let structured = content_type.as_deref().is_some_and(|it| it.starts_with(STRUCTURED.as_bytes()));
    if structured || header(record, "ce_specversion").is_none() {
        return read_offer(value).map_err(Refusal::invalid);
    }
    if let Some(other) = content_type.filter(|it| !is_json(it)) {
        let other = String::from_utf8_lossy(&other).into_owned();
        let detail = format!("the data must be JSON, not {other}");
        return Err(Refusal::field("datacontenttype".to_owned(), "not_one_of", detail));
    }
    let attributes: Vec<(&str, &[u8])> = record
        .headers
        .iter()
        .filter_map(|(name, value)| Some((attribute(name)?, value.as_slice())))
        .collect();
    read_binary_offer(&attributes, value).map_err(Refusal::invalid)
}

fn header<'a>(record: &'a IngressRecord, name: &str) -> Option<&'a [u8]> {
    let found = record.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_slice())
}

fn attribute(header: &str) -> Option<&str> {
    header.strip_prefix(ATTRIBUTE)
}

/// Whether a media type in lower case is JSON: `application/json; charset=utf-8`, `text/json`, `application/x+json`.
fn is_json(media_type: &[u8]) -> bool {
    let essence = media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    essence.ends_with(b"/json") || essence.ends_with(b"+json")
}

#[cfg(test)]
mod tests {
    use ledger_core::value::time::Time;
    use platform::position::Position;

    use super::*;

    const EVENT: &str = r#"{"specversion":"1.0","id":"e1","source":"/app","type":"ledger.usage.recorded.v1",
        "subject":"acme","time":"2026-02-03T10:00:00Z","data":{"credits":"1"}}"#;
    const DATA: &str = r#"{"credits":"1"}"#;

    fn check(headers: &[(&str, &str)], value: Option<&str>, expected: &str) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        let record = IngressRecord {
            position: Position { partition: 0, offset: 0 },
            key: Some(b"another".to_vec()),
            value: value.map(|value| value.as_bytes().to_vec()),
            headers: headers.collect(),
            appended_at: Time::MIN,
        };
        let said = match read(&Taken::Record(record)) {
            Ok(offer) => format!("{} of {}", offer.id, offer.account),
            Err(refusal) => format!("{}: {}", refusal.code, refusal.detail),
        };
        assert!(said.starts_with(expected), "{headers:?}: {said}", headers = value);
    }

    fn binary<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let attributes = [
            ("ce_specversion", "1.0"),
            ("ce_id", "e2"),
            ("ce_source", "/app"),
            ("ce_type", "ledger.usage.recorded.v1"),
            ("ce_subject", "acme"),
            ("ce_time", "2026-02-03T10:00:00Z"),
        ];
        attributes.iter().chain(more).copied().collect()
    }

    #[test]
    fn an_event_is_taken_whole_or_with_its_attributes_in_headers() {
        check(&[], Some(EVENT), "e1 of acme");
        check(&[("Content-Type", "Application/CloudEvents+JSON; charset=UTF-8")], Some(EVENT), "e1 of acme");
        check(&binary(&[]), Some(DATA), "e2 of acme");
        for media_type in ["application/json", "text/json; charset=utf-8", "application/vnd.usage+json"] {
            check(&binary(&[("content-type", media_type)]), Some(DATA), "e2 of acme");
        }
        // The content type decides where both are there.
        check(&binary(&[("content-type", "application/cloudevents+json")]), Some(EVENT), "e1 of acme");
        check(&binary(&[("traceparent", "00-1-2-3")]), Some(DATA), "e2 of acme");
    }

    #[test]
    fn what_is_no_usage_says_why() {
        check(&[], None, "no_value");
        check(&binary(&[]), None, "no_value");
        check(&[], Some(DATA), "invalid: specversion");
        check(&binary(&[("content-type", "application/avro")]), Some("Obj"), "invalid: datacontenttype");
        check(&binary(&[]), Some("{"), "invalid: data");
        check(&binary(&[("ce_id", "again")]), Some(DATA), "invalid: id");
    }
}
