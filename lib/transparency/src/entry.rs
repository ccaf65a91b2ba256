//! Log entry: what the tree commits to about one record of the journal.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::hash::Hash;

/// Flags say what a zero hash means; a reader refuses those it doesn't know.
const KEY_ABSENT: u64 = 1;
const VALUE_ABSENT: u64 = 1 << 1;
const UNREADABLE: u64 = 1 << 2;

/// One record of a journal partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The record's offset in Kafka. Offsets may have holes where leaf indices have none.
    pub offset: u64,
    /// Zero where it is unknown.
    pub timestamp_ms: u64,
    pub content: Content,
}

/// The hashes of a record's key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// `None` is an absent key or value; something empty has a hash.
    Readable { key: Option<Hash>, value: Option<Hash> },
    /// The broker no longer gives it out intact. It stays so for ever.
    Unreadable,
}

/// Why bytes are no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("an entry has {expected} bytes, not {0}", expected = Entry::BYTES)]
    Length(usize),
    #[error("an entry has unknown flags: {0:#x}")]
    Flags(u64),
    #[error("an entry has a hash of something that its flags call absent")]
    HashOfAbsent,
}

impl Entry {
    pub const BYTES: usize = 88;

    /// Returns the entry as the log keeps it: integers big-endian, each field at a fixed place.
    pub fn encode(&self) -> [u8; Entry::BYTES] {
        let (flags, key, value) = match self.content {
            Content::Readable { key, value } => {
                let absent_key = if key.is_none() { KEY_ABSENT } else { 0 };
                let absent_value = if value.is_none() { VALUE_ABSENT } else { 0 };
                (absent_key | absent_value, key.unwrap_or(Hash::ZERO), value.unwrap_or(Hash::ZERO))
            }
            Content::Unreadable => (UNREADABLE, Hash::ZERO, Hash::ZERO),
        };
        let mut bytes = [0; Entry::BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.timestamp_ms.to_be_bytes());
        bytes[16..24].copy_from_slice(&flags.to_be_bytes());
        bytes[24..56].copy_from_slice(&key.0);
        bytes[56..].copy_from_slice(&value.0);
        bytes
    }

    /// Reads an entry; every entry has one spelling, so what is read encodes to the same bytes.
    pub fn decode(bytes: &[u8]) -> Result<Entry, Malformed> {
        let bytes: &[u8; Entry::BYTES] = bytes.try_into().map_err(|_| Malformed::Length(bytes.len()))?;
        let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let hash = |at: usize| Hash(std::array::from_fn(|byte| bytes[at + byte]));
        let content = content(number(16), hash(24), hash(56))?;
        Ok(Entry { offset: number(0), timestamp_ms: number(8), content })
    }

    /// Returns the hash under which the tree has the entry.
    pub fn leaf_hash(&self) -> Hash {
        Hash::of_leaf(&self.encode())
    }
}

fn content(flags: u64, key: Hash, value: Hash) -> Result<Content, Malformed> {
    if flags == UNREADABLE {
        let is_bare = key == Hash::ZERO && value == Hash::ZERO;
        return if is_bare { Ok(Content::Unreadable) } else { Err(Malformed::HashOfAbsent) };
    }
    if flags & !(KEY_ABSENT | VALUE_ABSENT) != 0 {
        return Err(Malformed::Flags(flags));
    }
    let present = |absent: u64, hash: Hash| match (flags & absent != 0, hash) {
        (false, hash) => Ok(Some(hash)),
        (true, Hash::ZERO) => Ok(None),
        (true, _) => Err(Malformed::HashOfAbsent),
    };
    Ok(Content::Readable { key: present(KEY_ABSENT, key)?, value: present(VALUE_ABSENT, value)? })
}

/// Hashes keys with the salt of a log, so that nobody can guess accounts from tiles alone.
#[derive(Clone)]
pub struct KeyHasher(Hmac<Sha256>);

impl KeyHasher {
    pub fn new(salt: &[u8]) -> KeyHasher {
        KeyHasher(Hmac::new_from_slice(salt).expect("HMAC takes a key of any length"))
    }

    /// Returns the HMAC-SHA-256 of a record's key.
    pub fn hash(&self, key: &[u8]) -> Hash {
        Hash(self.0.clone().chain_update(key).finalize().into_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: Content, flags: u64) {
        let entry = Entry { offset: 258, timestamp_ms: 0x0102_0304_0506_0708, content };
        let bytes = entry.encode();
        assert_eq!(bytes[..16], [0, 0, 0, 0, 0, 0, 1, 2, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bytes[16..24], flags.to_be_bytes());
        assert_eq!(Entry::decode(&bytes), Ok(entry));
        assert_eq!(entry.leaf_hash(), Hash::of(&[&[0][..], &bytes].concat()));
    }

    #[test]
    fn an_entry_says_what_is_absent() {
        let (key, value) = (Some(Hash([1; 32])), Some(Hash([2; 32])));
        check(Content::Readable { key, value }, 0);
        check(Content::Readable { key: None, value }, 1);
        check(Content::Readable { key, value: None }, 2);
        check(Content::Readable { key: None, value: None }, 3);
        check(Content::Unreadable, 4);
    }

    #[test]
    fn something_empty_is_not_absent() {
        let empty = Entry {
            offset: 0,
            timestamp_ms: 0,
            content: Content::Readable { key: None, value: Some(Hash::of(b"")) },
        };
        assert_eq!(
            hex::encode(&empty.encode()[56..]),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn other_flags_lengths_and_hashes_of_absent_things_are_refused() {
        let entry = Entry { offset: 1, timestamp_ms: 2, content: Content::Unreadable }.encode();
        let with = |at: usize, byte: u8| {
            let mut bytes = entry;
            bytes[at] = byte;
            Entry::decode(&bytes)
        };
        for flags in [5, 6, 7, 8, 0x80] {
            assert_eq!(with(23, flags), Err(Malformed::Flags(u64::from(flags))));
        }
        assert_eq!(with(16, 1), Err(Malformed::Flags(1 << 56 | 4)));
        assert_eq!(with(24, 1), Err(Malformed::HashOfAbsent));
        assert_eq!(with(87, 1), Err(Malformed::HashOfAbsent));
        let mut bytes = entry;
        (bytes[23], bytes[30]) = (1, 1);
        assert_eq!(Entry::decode(&bytes), Err(Malformed::HashOfAbsent));
        assert_eq!(Entry::decode(&entry[1..]), Err(Malformed::Length(87)));
        assert_eq!(Entry::decode(&[&entry[..], &[0]].concat()), Err(Malformed::Length(89)));
    }

    #[test]
    fn a_key_hash_is_an_hmac_with_the_salt() {
        // RFC 4231, test case 2.
        let hash = KeyHasher::new(b"Jefe").hash(b"what do ya want for nothing?");
        assert_eq!(hex::encode(hash.0), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
