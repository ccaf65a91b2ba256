//! Entries: what the log must have of a record, by the published format alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use transparency_log::entry::{Content, Entry, KeyHasher};
use transparency_log::hash::Hash;
use uuid::Uuid;

/// Hashes the keys of a partition with the salt of its first record, or with its log id.
pub(super) fn key_hasher(genesis: &[u8], log_id: Uuid) -> KeyHasher {
    let said: Value = serde_json::from_slice(genesis).unwrap_or_default();
    let salt = said["salt"].as_str().and_then(|salt| STANDARD.decode(salt).ok());
    KeyHasher::new(&salt.unwrap_or_else(|| log_id.as_bytes().to_vec()))
}

/// Makes the entry of a record.
pub(super) fn entry(
    hasher: &KeyHasher,
    offset: u64,
    timestamp_ms: u64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Entry {
    let content = Content::Readable { key: key.map(|key| hasher.hash(key)), value: value.map(Hash::of) };
    Entry { offset, timestamp_ms, content }
}
