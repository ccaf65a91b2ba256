//! Usage offered as a CloudEvent in binary mode: attributes beside the data, as in Kafka headers that begin with `ce_`.

use serde_json::value::RawValue;

use super::offer::{Offer, read_offer};
use crate::event::field_error::FieldError;

/// Reads usage from the attributes and the data of a CloudEvent, by the rules of [`read_offer`].
///
/// An attribute's name stands without a prefix. Errors: every bad field.
pub fn read_binary_offer(attributes: &[(&str, &[u8])], data: &[u8]) -> Result<Offer, Vec<FieldError>> {
    // One whole value: what follows it would otherwise become attributes.
    let data: &RawValue = serde_json::from_slice(data)
        .map_err(|error| vec![FieldError::new("data", "not_json", error.to_string())])?;
    let mut event = String::from("{");
    for (name, value) in attributes {
        let value = std::str::from_utf8(value)
            .map_err(|_| vec![FieldError::new((*name).to_owned(), "not_text", "is not UTF-8")])?;
        event.push_str(&quoted(name));
        event.push(':');
        event.push_str(&quoted(value));
        event.push(',');
    }
    event.push_str("\"data\":");
    event.push_str(data.get());
    event.push('}');
    read_offer(event.as_bytes())
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTRIBUTES: [(&str, &[u8]); 6] = [
        ("specversion", b"1.0"),
        ("id", b"e\"1"),
        ("source", b"/app"),
        ("type", b"ledger.usage.recorded.v1"),
        ("subject", b"acme"),
        ("time", b"2026-02-03T10:00:00Z"),
    ];

    fn check(more: &[(&str, &[u8])], data: &str, expected: &str) {
        let attributes: Vec<(&str, &[u8])> = ATTRIBUTES.iter().chain(more).copied().collect();
        let said = match read_binary_offer(&attributes, data.as_bytes()) {
            Ok(offer) => format!("{} of {}", offer.id, offer.account),
            Err(errors) => {
                errors.iter().map(|e| format!("{} {}", e.field, e.code)).collect::<Vec<_>>().join(", ")
            }
        };
        assert_eq!(said, expected, "{data}");
    }

    #[test]
    fn attributes_and_data_are_one_event() {
        check(&[], r#" {"credits":"1"} "#, "e\"1 of acme");
        check(&[("recordedat", b"never"), ("partitionkey", b"x")], r#"{"credits":"1"}"#, "e\"1 of acme");
    }

    #[test]
    fn data_can_not_add_attributes() {
        check(&[], r#"{"credits":"1"},"subject":"other""#, "data not_json");
        check(&[], r#"{"credits":"1"}{}"#, "data not_json");
        check(&[("subject", b"other")], r#"{"credits":"1"}"#, "subject duplicate");
        check(&[("data", b"{}")], r#"{"credits":"1"}"#, "data duplicate");
    }

    #[test]
    fn what_is_no_usage_is_named_field_by_field() {
        check(&[], "", "data not_json");
        check(&[], "[]", "data wrong_type");
        check(&[], r#"{"credits":"-1"}"#, "data.credits negative");
        check(&[("ext", b"\xff")], r#"{"credits":"1"}"#, "ext not_text");
        check(&[], &format!("{}{}", "[".repeat(9), "]".repeat(9)), "body too_deep");
        assert!(read_binary_offer(&[], br#"{"credits":"1"}"#).is_err());
    }
}
