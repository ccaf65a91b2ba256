//! Usage as callers send it, as a CloudEvent or as plain JSON, before it is priced and recorded.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::body::{Body, refuse_padded};
use super::json::{self, Refused};
use super::limits::{JSON_DEPTH_MAX, TOO_NEW_SECONDS, TOO_OLD_SECONDS};
use super::read::{read_into, take};
use crate::event::field_error::{FieldError, refuse};
use crate::event::shape::Object;
use crate::event::{Usage, wire};
use crate::value::id::{AccountId, EventId, Source, is_padded};
use crate::value::time::Time;

/// Usage as a caller offers it, before it is priced and recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    pub id: EventId,
    pub source: Source,
    pub account: AccountId,
    pub occurred_at: Time,
    pub usage: Usage,
}

/// Usage of one account as plain JSON, for the documents.
#[derive(JsonSchema)]
#[schemars(rename = "PlainUsage", deny_unknown_fields)]
#[allow(dead_code, reason = "stands for its schema")]
pub struct PlainUsage {
    /// The producer's id for this usage. With account and source it is its identity: the same again is the same usage.
    id: EventId,
    /// By default `/v1/usage`.
    source: Option<Source>,
    /// When it happened: at most 35 days before and 5 minutes after it is recorded.
    occurred_at: Time,
    #[serde(flatten)]
    usage: Usage,
}

/// Usage as a CloudEvent, for the documents. Other attributes are accepted and dropped.
#[derive(JsonSchema)]
#[schemars(rename = "UsageEvent")]
#[allow(dead_code, reason = "stands for its schema")]
pub struct UsageEvent {
    specversion: SpecVersion,
    /// The producer's id for this usage. With subject and source it is its identity: the same again is the same usage.
    id: EventId,
    source: Source,
    r#type: UsageType,
    /// The account.
    subject: AccountId,
    /// When it happened: at most 35 days before and 5 minutes after it is recorded.
    time: Time,
    data: Usage,
}

#[derive(JsonSchema)]
#[schemars(rename = "CloudEventVersion")]
#[allow(dead_code, reason = "stands for its schema")]
enum SpecVersion {
    #[schemars(rename = "1.0")]
    First,
}

#[derive(JsonSchema)]
#[schemars(rename = "UsageEventType")]
#[allow(dead_code, reason = "stands for its schema")]
enum UsageType {
    #[schemars(rename = "ledger.usage.recorded.v1")]
    UsageRecorded,
}

/// The event type that `POST /v1/events` and the ingress topic accept.
pub const OFFERED_TYPE: &str = "ledger.usage.recorded.v1";

/// A CloudEvent as callers send it; decoding drops extension attributes, including ours.
#[derive(Deserialize)]
struct OfferedEvent<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    id: EventId,
    source: Source,
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    subject: AccountId,
    time: Time,
    #[serde(deserialize_with = "crate::event::shape::object")]
    data: Usage,
}

/// Reads usage offered as a CloudEvent. Errors: every bad field.
pub fn read_offer(bytes: &[u8]) -> Result<Offer, Vec<FieldError>> {
    // Checked before parsing, because depth costs the parser stack.
    let is_flat = wire::depth(bytes) <= JSON_DEPTH_MAX;
    if is_flat && let Ok(Object(event)) = serde_json::from_slice::<Object<OfferedEvent<'_>>>(bytes) {
        let mut errors = Vec::new();
        event.data.check(&mut errors);
        let fine = errors.is_empty()
            && event.specversion == "1.0"
            && event.event_type == OFFERED_TYPE
            && !event.source.is_reserved()
            && !is_padded(event.id.as_str());
        if fine {
            let OfferedEvent { id, source, subject, time, data, .. } = event;
            return Ok(Offer { id, source, account: subject, occurred_at: time, usage: data });
        }
    }
    match json::read(bytes) {
        Ok(Value::Object(event)) => Err(explain_offer(event)),
        Ok(_) => Err(vec![FieldError::new("body", "wrong_type", "must be a JSON object")]),
        Err(Refused::Fields(errors)) => Err(errors),
        Err(Refused::NotJson(reason)) => Err(vec![FieldError::new("body", "not_json", reason)]),
    }
}

fn explain_offer(mut event: Map<String, Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let version: Option<String> = take(&mut event, "specversion", true, &mut errors);
    refuse(&mut errors, version.is_some_and(|v| v != "1.0"), "specversion", "not_one_of", "must be 1.0");
    take_id(&mut event, &mut errors);
    take_source(&mut event, true, &mut errors);
    let offered: Option<String> = take(&mut event, "type", true, &mut errors);
    let other = offered.is_some_and(|offered| offered != OFFERED_TYPE);
    refuse(&mut errors, other, "type", "not_one_of", "must be ledger.usage.recorded.v1");
    let _: Option<AccountId> = take(&mut event, "subject", true, &mut errors);
    let _: Option<Time> = take(&mut event, "time", true, &mut errors);
    match event.remove("data") {
        None => errors.push(FieldError::new("data", "required", "is required")),
        Some(data) => {
            let _: Option<Usage> = read_into(data, "data", &mut errors);
        }
    }
    errors
}

fn take_id(body: &mut Map<String, Value>, errors: &mut Vec<FieldError>) -> Option<EventId> {
    let id: Option<EventId> = take(body, "id", true, errors);
    refuse_padded(errors, "id", id.as_ref().map(EventId::as_str));
    id
}

fn take_source(
    body: &mut Map<String, Value>,
    required: bool,
    errors: &mut Vec<FieldError>,
) -> Option<Source> {
    let source: Option<Source> = take(body, "source", required, errors);
    let reserved = source.as_ref().is_some_and(Source::is_reserved);
    refuse(
        errors,
        reserved,
        "source",
        "reserved_source",
        "sources that begin with urn:ledger: are the ledger's own",
    );
    source
}

/// Default source of usage sent as plain JSON.
pub const PLAIN_SOURCE: &str = "/v1/usage";

/// Reads usage offered as plain JSON for one account. Errors: every bad field.
pub fn read_plain_usage(account: &AccountId, value: Value) -> Result<Offer, Vec<FieldError>> {
    let Value::Object(mut body) = value else {
        return Err(vec![FieldError::new("body", "wrong_type", "must be a JSON object")]);
    };
    let mut errors = Vec::new();
    let id = take_id(&mut body, &mut errors);
    let source = take_source(&mut body, false, &mut errors);
    let occurred_at = take(&mut body, "occurred_at", true, &mut errors);
    let usage = read_into(Value::Object(body), "", &mut errors);
    match (id, occurred_at, usage) {
        (Some(id), Some(occurred_at), Some(usage)) if errors.is_empty() => {
            let source = source.unwrap_or_else(|| Source::new(PLAIN_SOURCE).expect("a well-formed source"));
            Ok(Offer { id, source, account: account.clone(), occurred_at, usage })
        }
        _ => Err(errors),
    }
}

/// Returns an error if usage is too new or too old to be recorded at `recorded_at`.
pub fn check_age(occurred_at: Time, recorded_at: Time, field: &str) -> Option<FieldError> {
    if occurred_at > recorded_at.plus_seconds(TOO_NEW_SECONDS) {
        return Some(FieldError::new(field, "too_new", "is more than 5 minutes ahead of the recording time"));
    }
    if occurred_at < recorded_at.plus_seconds(-TOO_OLD_SECONDS) {
        return Some(FieldError::new(field, "too_old", "is more than 35 days before the recording time"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(errors: &[FieldError]) -> String {
        let mut fields: Vec<_> = errors.iter().map(|e| format!("{} {}", e.field, e.code)).collect();
        fields.sort();
        fields.join(", ")
    }

    const OFFER: &str = r#"{"specversion":"1.0","id":"e1","source":"/app","type":"ledger.usage.recorded.v1",
        "subject":"acme","time":"2026-02-03T10:00:00Z","data":{"credits":"1"},"recordedat":"ours","actor":7}"#;

    #[test]
    fn a_callers_recording_time_and_actor_are_dropped() {
        assert_eq!(read_offer(OFFER.as_bytes()).expect("an offer").account.as_str(), "acme");
    }

    #[test]
    fn a_bad_cloud_event_is_named_field_by_field() {
        let cases = [
            (OFFER.replace("\"1\"", "1"), "data.credits not_an_amount"),
            (OFFER.replace("/app", "urn:ledger:x"), "source reserved_source"),
            (OFFER.replace("2026-02-03T10:00:00Z", "yesterday"), "time not_a_time"),
            (OFFER.replace("ledger.usage.recorded.v1", "ledger.credits.granted.v1"), "type not_one_of"),
            (OFFER.replace("\"subject\":\"acme\",", ""), "subject required"),
            ("[]".into(), "body wrong_type"),
            ("{".into(), "body not_json"),
            (OFFER.replace("\"id\":\"e1\"", "\"id\":\"e1\",\"id\":\"e1\""), "id duplicate"),
            (OFFER.replace("\"1\"", "\"1\",\"quantities\":{\"x\":1,\"x\":2}"), "data.quantities.x duplicate"),
            (OFFER.replace("\"1\"", &format!("{}{}", "[".repeat(8), "]".repeat(8))), "body too_deep"),
        ];
        for (bytes, expected) in cases {
            let errors = read_offer(bytes.as_bytes()).expect_err(&bytes);
            assert_eq!(fields(&errors), expected, "{bytes}");
        }
    }

    #[test]
    fn usage_is_taken_from_35_days_back_to_5_minutes_ahead() {
        let now = Time::from_micros(1_800_000_000_000_000);
        let code = |seconds: i64, micros: i64| {
            check_age(now.plus_seconds(seconds).plus_micros(micros), now, "time").map(|error| error.code)
        };
        assert_eq!(code(300, 0), None);
        assert_eq!(code(300, 1), Some("too_new".into()));
        assert_eq!(code(-TOO_OLD_SECONDS, 0), None);
        assert_eq!(code(-TOO_OLD_SECONDS, -1), Some("too_old".into()));
    }
}
