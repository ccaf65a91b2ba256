//! Records as the journal stores them.

use ledger_core::value::time::Time;
use sha2::{Digest, Sha256};

use crate::position::Position;

/// RFC 6962 puts this byte before a leaf, so that no leaf passes for an inner node.
const LEAF_PREFIX: u8 = 0;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub position: Position,
    /// The account; `None` for a record written without a key.
    pub key: Option<Vec<u8>>,
    /// The event's bytes; `None` for a record written without a value.
    pub value: Option<Vec<u8>>,
    /// The broker's append time, to the millisecond.
    pub appended_at: Time,
}

impl Record {
    /// Returns the event's bytes; none if the record has no value.
    pub fn value_bytes(&self) -> &[u8] {
        self.value.as_deref().unwrap_or_default()
    }
}

/// Returns the record's leaf hash: offset, append time in milliseconds, key and value, each length first. No value counts as an empty one.
pub fn leaf_hash(record: &Record) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update([LEAF_PREFIX]);
    hasher.update(record.position.offset.to_be_bytes());
    hasher.update((record.appended_at.micros() / 1_000).to_be_bytes());
    match &record.key {
        // No key and an empty key are different records.
        None => hasher.update((-1_i64).to_be_bytes()),
        Some(key) => update_with_length(&mut hasher, key),
    }
    update_with_length(&mut hasher, record.value_bytes());
    hasher.finalize().into()
}

fn update_with_length(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update(i64::try_from(bytes.len()).expect("a slice has at most i64::MAX bytes").to_be_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: Option<&[u8]>, value: &[u8]) -> Record {
        Record {
            position: Position { partition: 3, offset: 7 },
            key: key.map(<[u8]>::to_vec),
            value: Some(value.to_vec()),
            appended_at: Time::from_millis(1_700_000_000_123),
        }
    }

    #[test]
    fn every_part_of_a_record_moves_its_leaf() {
        let base = record(Some(b"acme"), b"{}");
        let mut moved = base.clone();
        moved.position.offset += 1;
        let mut later = base.clone();
        later.appended_at = Time::from_millis(1_700_000_000_124);
        let others = [
            moved,
            later,
            record(None, b"{}"),
            record(Some(b""), b"acme{}"),
            record(Some(b"acme{"), b"}"),
            record(Some(b"acme"), b"{ }"),
        ];
        for other in others {
            assert_ne!(leaf_hash(&base), leaf_hash(&other), "{other:?}");
        }
        assert_ne!(leaf_hash(&record(None, b"")), leaf_hash(&record(Some(b""), b"")));
    }

    #[test]
    fn the_leaf_of_a_known_record_never_changes() {
        assert_eq!(
            hex::encode(leaf_hash(&record(Some(b"acme"), b"{}"))),
            "413945d89591988fdd8be420bea9b91b0c64e3798adb2d1e3e39334a9b6acde7"
        );
    }
}
