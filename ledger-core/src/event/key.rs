//! Deduplication: the identity of an event (its key) and the hash that distinguishes a repeat from a conflict.

use sha2::{Digest, Sha256};

use crate::event::{Data, Event, Usage};
use crate::value::id::{AccountId, EventId, Source};

/// Identity of an event: the first 16 bytes of SHA-256 over account, source and id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DedupeKey(pub [u8; 16]);

/// Hash of an event's content as its caller sent it; distinguishes a duplicate from a conflict.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ContentHash(pub [u8; 32]);

pub fn dedupe_key(account: &AccountId, source: &Source, id: &EventId) -> DedupeKey {
    let mut hash = Sha256::new();
    for part in [account.as_str(), source.as_str(), id.as_str()] {
        // Lengths first, so that no two different triples run together.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    DedupeKey(key)
}

/// Returns the hash of the caller's content: type, account, time and data, without fields that the ledger adds.
///
/// Amounts of equal value hash equally. `time` counts only for usage; otherwise the ledger sets it.
pub fn content_hash(event: &Event) -> ContentHash {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(event.data.type_name().as_bytes());
    part(event.account.as_str().as_bytes());
    if let Data::UsageRecorded(usage) = &event.data {
        part(&event.occurred_at.micros().to_be_bytes());
        part(&usage_as_sent(usage));
    } else {
        part(&as_sent(&event.data));
    }
    ContentHash(hash.finalize().into())
}

/// Returns a body as its caller sent it, as JSON, without fields that the ledger adds.
pub(crate) fn as_sent(data: &Data) -> Vec<u8> {
    if let Data::UsageRecorded(usage) = data {
        usage_as_sent(usage)
    } else {
        crate::event::wire::data_json(data)
    }
}

fn usage_as_sent(usage: &Usage) -> Vec<u8> {
    if usage.lines.is_none() && usage.held.is_none() {
        return crate::event::wire::to_json(usage);
    }
    let mut sent = usage.clone();
    if sent.lines.take().is_some() {
        sent.credits = None;
    }
    sent.held = None;
    crate::event::wire::to_json(&sent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::id::Label;

    fn content(data: &str, time: &str) -> ContentHash {
        content_hash(&Event {
            id: EventId::new("e").expect("an id"),
            source: Source::new("/app").expect("a source"),
            account: AccountId::new("acme").expect("an id"),
            occurred_at: time.parse().expect("a time"),
            recorded_at: time.parse().expect("a time"),
            actor: Label::new("k").expect("a label"),
            data: Data::UsageRecorded(serde_json::from_str(data).expect("usage")),
        })
    }

    #[test]
    fn equal_as_numbers_is_equal_content() {
        let time = "2026-01-01T00:00:00Z";
        assert_eq!(content(r#"{"credits":"1.50"}"#, time), content(r#"{"credits":"1.5"}"#, time));
        assert_ne!(content(r#"{"credits":"1.5"}"#, time), content(r#"{"credits":"1.6"}"#, time));
        assert_eq!(
            content(r#"{"quantities":{"a":2},"credits":"1"}"#, time),
            content(r#"{"credits":"1","quantities":{"a":"2.0"},"feature":null}"#, time)
        );
    }

    #[test]
    fn metadata_in_another_order_is_equal_content() {
        let time = "2026-01-01T00:00:00Z";
        assert_eq!(
            content(r#"{"credits":"1","metadata":{"a":{"x":1,"y":2},"b":"3"}}"#, time),
            content(r#"{"credits":"1","metadata":{"b":"3","a":{"y":2,"x":1}}}"#, time)
        );
    }

    #[test]
    fn a_price_change_does_not_turn_a_resend_into_a_conflict() {
        let priced = |credits: &str| {
            format!(
                r#"{{"quantities":{{"a":"1"}},"credits":"{credits}","lines":[{{"quantity":"a","amount":"1",
                "unit_credits":"{credits}","per":"1","credits":"{credits}","rate_card":"c","version":1}}]}}"#
            )
        };
        let time = "2026-01-01T00:00:00Z";
        assert_eq!(content(&priced("1"), time), content(&priced("2"), time));
        assert_eq!(content(&priced("1"), time), content(r#"{"quantities":{"a":"1"}}"#, time));
    }

    #[test]
    fn usage_at_another_time_is_other_content() {
        assert_ne!(
            content(r#"{"credits":"1"}"#, "2026-01-01T00:00:00Z"),
            content(r#"{"credits":"1"}"#, "2026-01-01T00:00:01Z")
        );
    }

    #[test]
    fn identity_is_per_account_and_source() {
        let key = |account: &str, source: &str, id: &str| {
            dedupe_key(
                &AccountId::new(account).expect("id"),
                &Source::new(source).expect("source"),
                &EventId::new(id).expect("id"),
            )
        };
        assert_ne!(key("a", "/s", "e"), key("b", "/s", "e"));
        assert_ne!(key("a", "/s", "e"), key("a", "/t", "e"));
        assert_ne!(key("a", "/se", "e"), key("a", "/s", "ee"));
        assert_eq!(key("a", "/s", "e"), key("a", "/s", "e"));
    }
}
