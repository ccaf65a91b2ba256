//! How one worker consumes: from which log, into which generation, and how much at a time.

use platform::kafka::{KafkaOptions, LogIdentity};
use platform::pg::Schema;
use sqlx::PgPool;

use crate::progress_channel::PROJECTED_CHANNEL;

/// Records of one transaction by default: about half a second's work.
pub const BATCH_RECORDS_MAX: usize = 10_000;

/// The log that is read and the database that is written.
#[derive(Clone)]
pub struct Source {
    pub kafka: KafkaOptions,
    /// The log that Kafka must have.
    pub identity: LogIdentity,
    /// The database; a loop holds one connection of it at a time.
    pub pool: PgPool,
}

/// How one worker consumes.
#[derive(Debug, Clone)]
pub struct ConsumeOptions {
    /// Kafka's consumer group; must differ per worker.
    pub group: String,
    pub schema: Schema,
    /// Writes only while the generation is live, and switches to the next one at a flip.
    pub follows_live: bool,
    /// One version only may fold a generation.
    pub fold_version: i32,
    /// Postgres channel that is notified of each batch.
    pub notify_channel: String,
    /// Records of one transaction at most.
    pub batch_records_max: usize,
}

impl ConsumeOptions {
    /// The projector's options for a generation; other workers change the channel and the group.
    pub fn new(group: &str, schema: Schema, fold_version: i32) -> ConsumeOptions {
        ConsumeOptions {
            group: group.to_owned(),
            schema,
            follows_live: false,
            fold_version,
            notify_channel: PROJECTED_CHANNEL.to_owned(),
            batch_records_max: BATCH_RECORDS_MAX,
        }
    }
}
