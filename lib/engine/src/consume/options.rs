//! Options of one worker: the log it reads, the generation it writes, and its batch size.

use std::time::Duration;

use platform::kafka::{KafkaOptions, LogIdentity};
use platform::pg::{Model, Schema};
use sqlx::PgPool;

use crate::progress_channel::PROJECTED_CHANNEL;

/// Default number of records in one transaction: about half a second's work.
pub const BATCH_RECORDS_MAX: usize = 10_000;

/// Longer than the server lets a statement or a wait for a lock take, so that its reason is known, and less than what
/// makes the loop itself stalled.
const SILENT_AFTER: Duration = Duration::from_secs(25);

/// The log to read and the database to write.
#[derive(Clone)]
pub struct Source {
    pub kafka: KafkaOptions,
    /// The expected log.
    pub identity: LogIdentity,
    /// The database; a loop uses one connection at a time.
    pub pool: PgPool,
}

#[derive(Debug, Clone)]
pub struct ConsumeOptions {
    /// Kafka's consumer group; must differ per worker.
    pub group: String,
    pub schema: Schema,
    /// Whether to write only while the generation is live, and to switch to the next one at a flip.
    pub follows_live: bool,
    /// Whether the transparency logs are written beside the rows; they are tables of the read model.
    pub keeps_log: bool,
    /// A generation may be folded by one version only.
    pub fold_version: i32,
    /// Postgres channel that is notified of each batch.
    pub notify_channel: String,
    /// Most records in one transaction.
    pub batch_records_max: usize,
    /// A transaction whose statements have not got on for so long is abandoned with its connection.
    pub silent_after: Duration,
}

impl ConsumeOptions {
    /// The projector's options for a generation; other workers change the channel and the group.
    pub fn new(group: &str, schema: Schema, fold_version: i32) -> ConsumeOptions {
        ConsumeOptions {
            group: group.to_owned(),
            schema,
            follows_live: false,
            keeps_log: schema.model == Model::ReadModel,
            fold_version,
            notify_channel: PROJECTED_CHANNEL.to_owned(),
            batch_records_max: BATCH_RECORDS_MAX,
            silent_after: SILENT_AFTER,
        }
    }
}
