//! One log as it stands, and what it says of a record.

use platform::kafka::Record;
use transparency_log::appender::Appender;
use transparency_log::entry::{Content, Entry, KeyHasher};
use transparency_log::hash::Hash;
use transparency_log::tree::MissingTile;

/// One partition's log, ready to be appended to.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub appender: Appender,
    /// Every record before this offset is in the log.
    pub next_offset: i64,
    pub hasher: Hasher,
}

/// Hashes the keys of one journal.
#[derive(Clone)]
pub(crate) struct Hasher(KeyHasher);

/// Says nothing of the salt.
impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

/// Why a log can't be appended to. None of it is of the records.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
    #[error("the log of partition {partition} can't be taken up: {missing}")]
    MissingTile { partition: i32, missing: MissingTile },
    #[error("the log of partition {0} is not where the fold is")]
    OutOfStep(i32),
}

impl Hasher {
    pub fn new(salt: &[u8]) -> Hasher {
        Hasher(KeyHasher::new(salt))
    }

    /// Returns what the log says of a record.
    pub fn entry(&self, record: &Record) -> Entry {
        let millis = record.appended_at.micros() / 1_000;
        Entry {
            offset: record.position.offset.cast_unsigned(),
            timestamp_ms: u64::try_from(millis).unwrap_or_default(),
            content: Content::Readable {
                key: record.key.as_deref().map(|key| self.0.hash(key)),
                value: record.value.as_deref().map(Hash::of),
            },
        }
    }
}
