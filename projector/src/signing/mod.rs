//! Signs the audit log: a checkpoint of each partition that this process folds, and never a second history.
//!
//! The head is written before its checkpoint goes out, and the checkpoint is served once its topic has it. A crash between
//! these steps does the same again: one head has one text.

mod history;
mod keys;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use engine::consume::Status;
use metrics::gauge;
use platform::failpoint;
use platform::heartbeat::Heartbeat;
use platform::kafka::{Checkpoints, Ends, KafkaOptions, LogIdentity, Record};
use platform::pg::PgPool;
use platform::shutdown::CancellationToken;
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};
use transparency_log::checkpoint::Checkpoint;
use transparency_log::key::VerifierKey;
use transparency_log::note::Note;
use transparency_log::succession::{self, Refused};
use transparency_log::tree::Head;

use self::history::{Grown, History};
use self::keys::{LogSigner, signers};

pub use self::keys::SigningConfig;

/// A checkpoint is made at least once in so many records.
const RECORDS_MAX: u64 = 1_000_000;
/// How often the logs are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What a checkpoint takes from its turn to its publication, at most: less time passes before its turn.
const TAKES: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(1);

/// What the signer needs of its process.
#[derive(Clone)]
pub(crate) struct Source {
    pub pool: PgPool,
    pub kafka: KafkaOptions,
    pub identity: LogIdentity,
    /// Says which partitions this process folds, and halts one that has another history.
    pub status: Status,
}

/// Reads the key files and notes their public keys. Errors: a key can't be used, or the logs have another origin.
pub(crate) async fn prepare(config: &SigningConfig, source: &Source) -> anyhow::Result<()> {
    let signers = signers(config, source.identity)?;
    let mut history = History::open_beside_others(&source.pool).await?;
    let pinned = history.pin_origin(config.log_origin.as_str()).await?;
    ensure!(
        pinned == config.log_origin.as_str(),
        "LEDGER_LOG_ORIGIN is {}, but this audit log was begun as {pinned}",
        config.log_origin.as_str()
    );
    history.note_keys(&signers).await?;
    history.keep().await.context("the keys of the audit log can't be noted")
}

/// Signs until `shutdown`. Postgres and Kafka may go away and come back.
pub(crate) async fn sign(
    config: SigningConfig,
    source: Source,
    heartbeat: Heartbeat,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut signing = Signing::new(&config, source)?;
    while !shutdown.is_cancelled() {
        heartbeat.beat();
        let turn = async {
            signing.recall_if_new(&heartbeat).await?;
            signing.turn(&heartbeat).await
        };
        let pause = match turn.await {
            Ok(()) => {
                heartbeat.rest();
                LOOK_EVERY
            }
            Err(error) => {
                warn!(error = format!("{error:#}"), "the audit log is not signed, trying again");
                heartbeat.fail(format!("{error:#}"));
                RETRY
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = shutdown.cancelled() => {}
        }
    }
    Ok(())
}

struct Signing {
    source: Source,
    checkpoints: Checkpoints,
    ends: Ends,
    logs: BTreeMap<i32, Log>,
    /// The partitions whose last signings are known, from here or from the topic.
    recalled: BTreeSet<i32>,
    every: Duration,
}

/// One partition's log.
struct Log {
    signer: LogSigner,
    /// The greatest head that is known to have been signed, from wherever.
    signed: Option<Head>,
    /// Size of the last checkpoint that is served.
    published: u64,
    published_at: Option<Instant>,
    /// Why nothing is signed any more.
    refused: Option<String>,
}

/// What a look at a log comes to.
enum Look {
    /// Signed before or just now; to be published.
    Publish(Head),
    Nothing,
    Refused(String),
}

impl Log {
    fn is_due(&self, size: u64, every: Duration) -> bool {
        let unpublished = size.saturating_sub(self.published);
        let waited = self.published_at.is_none_or(|at| at.elapsed() >= every);
        unpublished >= RECORDS_MAX || (unpublished > 0 && waited)
    }
}

impl Signing {
    fn new(config: &SigningConfig, source: Source) -> anyhow::Result<Signing> {
        let log = |signer: LogSigner| {
            let partition = signer.partition;
            let log = Log { signer, signed: None, published: 0, published_at: None, refused: None };
            (partition, log)
        };
        Ok(Signing {
            checkpoints: Checkpoints::new(&source.kafka, source.identity),
            ends: Ends::new(&source.kafka, source.identity)?,
            logs: signers(config, source.identity)?.into_iter().map(log).collect(),
            recalled: BTreeSet::new(),
            every: Duration::from_secs(config.checkpoint_seconds).saturating_sub(TAKES),
            source,
        })
    }

    /// Reads the topic once this process folds a partition that it did not fold before: another may have signed since.
    async fn recall_if_new(&mut self, heartbeat: &Heartbeat) -> anyhow::Result<()> {
        let folding: BTreeSet<i32> = self.source.status.folding().into_keys().collect();
        if !folding.is_subset(&self.recalled) {
            self.recall(heartbeat).await?;
        }
        self.recalled = folding;
        Ok(())
    }

    /// Reads what was signed before: a database that was restored may know less than the topic.
    async fn recall(&mut self, heartbeat: &Heartbeat) -> anyhow::Result<()> {
        let mut history = History::open(&self.source.pool).await?;
        let vkeys = history.vkeys().await?;
        let published = history.published().await?;
        history.keep().await?;
        let keys: Vec<VerifierKey> = vkeys.iter().filter_map(|vkey| vkey.parse().ok()).collect();
        for record in self.checkpoints.last().await? {
            heartbeat.beat();
            self.learn(&record, &keys);
        }
        for (partition, log) in &mut self.logs {
            log.published = published.get(partition).copied().unwrap_or_default();
        }
        let known = self.logs.values().filter(|log| log.signed.is_some()).count();
        info!(logs = self.logs.len(), known, "the audit log is signed from here on");
        Ok(())
    }

    /// Takes a note of the topic into account, if a key of ours has signed it.
    fn learn(&mut self, record: &Record, keys: &[VerifierKey]) {
        let read = || -> anyhow::Result<Checkpoint> {
            Ok(Checkpoint::open(&Note::parse(record.value_bytes())?, keys)?)
        };
        let checkpoint = match read() {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                warn!(position = %record.position, %error, "the topic of checkpoints has a note that is not ours");
                return;
            }
        };
        let Some(log) = self.logs.values_mut().find(|log| log.signer.origin == checkpoint.origin) else {
            return;
        };
        match greater(log.signed, Some(checkpoint.head)) {
            Ok(head) => log.signed = head,
            Err(why) => log.refused = Some(why),
        }
    }

    /// Looks at all logs that this process folds, and publishes what is due.
    async fn turn(&mut self, heartbeat: &Heartbeat) -> anyhow::Result<()> {
        let folding: Vec<i32> = self.source.status.folding().into_keys().collect();
        if folding.is_empty() {
            return Ok(());
        }
        let mut history = History::open(&self.source.pool).await?;
        let sizes = history.sizes(&folding).await?;
        history.keep().await?;
        for (partition, size) in sizes {
            heartbeat.beat();
            let Some(log) = self.logs.get(&partition) else { continue };
            if let Some(why) = &log.refused {
                self.refuse(partition, why.clone());
            } else if log.is_due(size, self.every) {
                self.publish(partition).await?;
            }
        }
        Ok(())
    }

    async fn publish(&mut self, partition: i32) -> anyhow::Result<()> {
        let look = self.look(partition).await?;
        let Some(log) = self.logs.get_mut(&partition) else { return Ok(()) };
        let head = match look {
            Look::Publish(head) => head,
            Look::Nothing => return Ok(()),
            Look::Refused(why) => {
                log.refused = Some(why.clone());
                self.refuse(partition, why);
                return Ok(());
            }
        };
        log.signed = Some(head);
        failpoint::hit("signing.before_publish");
        let checkpoint = Checkpoint { origin: log.signer.origin.clone(), head };
        let note = checkpoint.sign(&log.signer.keys).to_string();
        self.checkpoints.append(partition, &note).await?;
        failpoint::hit("signing.after_publish");
        let mut history = History::open(&self.source.pool).await?;
        history.publish(partition, head.size, &note).await?;
        history.keep().await?;
        log.published = head.size;
        log.published_at = Some(Instant::now());
        gauge!("ledger_log_signed_size", "partition" => partition.to_string()).set(head.size as f64);
        gauge!("ledger_log_fork", "partition" => partition.to_string()).set(0.0);
        debug!(partition, size = head.size, "checkpoint published");
        Ok(())
    }

    /// Decides what to publish of a log, and writes its head down before anybody can see it.
    async fn look(&self, partition: i32) -> anyhow::Result<Look> {
        let Some(log) = self.logs.get(&partition) else { return Ok(Look::Nothing) };
        let mut history = History::open(&self.source.pool).await?;
        let kept = history.head(&log.signer.origin).await?;
        let signed = match greater(kept, log.signed) {
            Ok(signed) => signed,
            Err(why) => return Ok(Look::Refused(why)),
        };
        let Some(grown) = history.grown(partition, signed).await? else { return Ok(Look::Nothing) };
        let next = match succession::next(signed, grown.size, &grown.tiles) {
            Ok(next) => next,
            Err(Refused::Shrunk { signed, .. }) => return self.shrunk(partition, signed, &grown).await,
            Err(refused @ (Refused::Fork { .. } | Refused::MissingTile(_))) => {
                return Ok(Look::Refused(refused.to_string()));
            }
        };
        let Some(head) = next.or(signed) else { return Ok(Look::Nothing) };
        if kept != Some(head) {
            history.set_head(&log.signer.origin, head).await?;
        }
        history.keep().await?;
        // One that was signed before is published if that has not happened yet.
        Ok(if head.size > log.published { Look::Publish(head) } else { Look::Nothing })
    }

    /// A generation that was restored from a backup is shorter for a while; a journal that ends there has lost its tail.
    async fn shrunk(&self, partition: i32, signed: u64, grown: &Grown) -> anyhow::Result<Look> {
        let end = self.source_end(partition).await?;
        if grown.next_offset < end {
            debug!(partition, signed, size = grown.size, "the fold is not yet where the log was signed");
            return Ok(Look::Nothing);
        }
        let size = grown.size;
        Ok(Look::Refused(format!(
            "the log has signed size {signed}, and the journal ends at offset {end} with size {size}"
        )))
    }

    async fn source_end(&self, partition: i32) -> anyhow::Result<i64> {
        Ok(self.ends.of(partition).await?.offset)
    }

    /// Halts a partition whose history is not the one that was signed.
    fn refuse(&self, partition: i32, why: String) {
        error!(partition, why, "the audit log does not continue what it has signed");
        gauge!("ledger_log_fork", "partition" => partition.to_string()).set(1.0);
        self.source.status.ask_to_halt(partition, why);
    }
}

/// Returns the head of the greater size. Errors: they are of one size, and differ.
fn greater(one: Option<Head>, other: Option<Head>) -> Result<Option<Head>, String> {
    let (Some(first), Some(second)) = (one, other) else { return Ok(one.or(other)) };
    if first.size == second.size && first.root != second.root {
        let Head { size, root } = first;
        return Err(format!("the log has signed two roots for size {size}: {root} and {}", second.root));
    }
    Ok(Some(if second.size > first.size { second } else { first }))
}

#[cfg(test)]
mod tests {
    use transparency_log::hash::Hash;

    use super::*;

    fn head(size: u64, root: u8) -> Head {
        Head { size, root: Hash([root; 32]) }
    }

    #[test]
    fn the_greater_head_counts_and_two_of_one_size_are_a_fork() {
        assert_eq!(greater(None, None), Ok(None));
        assert_eq!(greater(Some(head(3, 1)), None), Ok(Some(head(3, 1))));
        assert_eq!(greater(Some(head(3, 1)), Some(head(4, 2))), Ok(Some(head(4, 2))));
        assert_eq!(greater(Some(head(5, 3)), Some(head(4, 2))), Ok(Some(head(5, 3))));
        assert_eq!(greater(Some(head(4, 2)), Some(head(4, 2))), Ok(Some(head(4, 2))));
        assert!(greater(Some(head(4, 2)), Some(head(4, 3))).is_err());
    }

    #[test]
    fn what_is_new_is_due_after_a_while_or_after_many_records() {
        let signer = || LogSigner { partition: 0, origin: "a".parse().expect("a name"), keys: Vec::new() };
        let log = |published, published_at| Log {
            signer: signer(),
            signed: None,
            published,
            published_at,
            refused: None,
        };
        let every = Duration::from_secs(60);
        assert!(log(0, None).is_due(1, every));
        assert!(!log(1, None).is_due(1, every));
        assert!(!log(1, Some(Instant::now())).is_due(1_000_000, every));
        assert!(log(1, Some(Instant::now())).is_due(1_000_001, every));
        assert!(log(1, Some(Instant::now())).is_due(2, Duration::ZERO));
    }
}
