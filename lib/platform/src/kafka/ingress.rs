//! Reads a topic of external producers, each record at least once, and passes over what can't be read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use ledger_core::value::time::Time;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};

use super::blocking::blocking;
use super::ends::ends;
use super::error::Error;
use super::options::KafkaOptions;
use super::poller::{Change, FetchLimits, Fetched, OnAssign, Poller};
use super::progress::Progress;
use super::taken::{IngressRecord, Taken};
use super::unreadable::{Prober, Unreadable, is_unreadable};
use crate::position::Position;

/// Most bytes of one batch.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a batch waits for its first record; also the longest delay of a shutdown.
const FETCH_WAIT: Duration = Duration::from_millis(100);
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Most unreadable batches of a partition passed over at a time, so that other partitions go on.
const PASSED_OVER_MAX: usize = 100;

/// One member of a consumer group on one topic.
///
/// Handle a whole batch, then `commit` it, then take the next: uncommitted records come again after a
/// crash or a rebalance, so handling must be idempotent.
pub struct IngressConsumer {
    poller: Poller,
    options: KafkaOptions,
    topic: String,
    /// Asks for ends, so that the poller's thread need not wait for them.
    asker: Arc<BaseConsumer>,
    progress: Progress,
}

impl IngressConsumer {
    /// Joins the group; a new group starts with the oldest record.
    pub async fn new(options: &KafkaOptions, group: &str, topic: &str) -> Result<IngressConsumer, Error> {
        let mut config = options.member(group)?;
        config.set("auto.offset.reset", "earliest");
        let poller = Poller::new(&config, topic, OnAssign::Committed)?;
        poller.subscribe().await?;
        let asker = Arc::new(options.reader(&[])?.create()?);
        let (options, topic) = (options.clone(), topic.to_owned());
        let progress = Progress::new(&topic);
        Ok(IngressConsumer { poller, options, topic, asker, progress })
    }

    /// Returns how far this member is, for readiness and metrics; clones share it.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Returns what is available, in order within each partition; empty after a short wait without records.
    ///
    /// Must be called at least every five minutes, or the group reassigns the partitions.
    pub async fn next_batch(&self, records_max: usize) -> Result<Vec<Taken>, Error> {
        let limits = FetchLimits { records: records_max, bytes: BATCH_BYTES_MAX, wait: FETCH_WAIT };
        let Fetched { records, changes, error } = self.poller.fetch_as(limits, ingress_record).await?;
        for change in changes {
            self.follow(change).await;
        }
        // From here on nothing may fail: the records would be passed over.
        self.progress.read(&records, &self.poller.read_up_to().await.unwrap_or_default());
        let mut taken: Vec<Taken> = records.into_iter().map(Taken::Record).collect();
        let unreadable = error.as_ref().is_some_and(is_unreadable);
        // Where more is waiting than a batch holds, a partition's records may be among it.
        let drained = taken.len() < records_max;
        if let Some(error) = error {
            tracing::warn!(%error, "ingress");
            self.progress.set_error(&error);
        }
        // A batch that can't be parsed is not told at all: the partition only stands still.
        let stuck = match (unreadable, drained) {
            (true, _) => self.progress.reading(),
            (false, true) => self.progress.silent(),
            (false, false) => Vec::new(),
        };
        if !stuck.is_empty() {
            match self.pass_over(stuck, !unreadable).await {
                Ok(found) => taken.extend(found.into_iter().map(Taken::Unreadable)),
                Err(error) => tracing::warn!(%error, "what can't be read could not be passed over"),
            }
        }
        Ok(taken)
    }

    async fn follow(&self, change: Change) {
        tracing::info!(?change, "the group decided");
        match change {
            Change::Lost(partitions) => self.progress.lose(&partitions),
            Change::Assigned(partitions) => match self.starts(partitions).await {
                Ok(starts) => self.progress.take(&starts),
                // Only the lag is not known then.
                Err(error) => tracing::warn!(%error, "where the ingress starts can't be read"),
            },
        }
    }

    /// Returns where the reading of partitions starts: where the group stands, or at the oldest record.
    async fn starts(&self, partitions: Vec<i32>) -> Result<Vec<Position>, Error> {
        let committed = self.poller.committed(partitions.clone(), QUERY_TIMEOUT).await?;
        let (asker, topic) = (Arc::clone(&self.asker), self.topic.clone());
        blocking(move || {
            let start = |partition: i32| {
                let (oldest, _) = asker.fetch_watermarks(&topic, partition, QUERY_TIMEOUT)?;
                let committed = committed.iter().find(|at| at.partition == partition);
                let offset = committed.map_or(oldest, |at| at.offset.max(oldest));
                Ok(Position { partition, offset })
            };
            partitions.into_iter().map(start).collect()
        })
        .await
    }

    /// Finds what can't be read of these partitions, each from the offset after what was read, and goes on behind it.
    async fn pass_over(&self, stuck: Vec<Position>, ask_anew: bool) -> Result<Vec<Unreadable>, Error> {
        let ends = self.ends(stuck.iter().map(|at| at.partition).collect()).await?;
        let (options, topic) = (self.options.clone(), self.topic.clone());
        // What can be read and yet does not come is asked for anew.
        let mut next = if ask_anew { stuck.clone() } else { Vec::new() };
        let found = blocking(move || look(&options, &topic, &stuck, &ends)).await?;
        let behind = |it: &Unreadable| Position { partition: it.partition, offset: it.last + 1 };
        for one in &found {
            tracing::error!(
                partition = one.partition,
                first = one.first,
                last = one.last,
                reason = one.reason,
                "records can't be read and are passed over"
            );
            next.retain(|at| at.partition != one.partition);
            next.push(behind(one));
        }
        if !next.is_empty() {
            self.poller.seek(next.clone()).await?;
            self.progress.passed_over(&next);
        }
        Ok(found)
    }

    /// Asks for the ends of what this member reads, for its lag.
    pub async fn watch_ends(&self) -> Result<(), Error> {
        let partitions: Vec<i32> = self.progress.reading().iter().map(|at| at.partition).collect();
        if !partitions.is_empty() {
            self.progress.set_ends(&self.ends(partitions).await?);
        }
        Ok(())
    }

    /// Returns the ends of partitions, without what an open transaction has written.
    async fn ends(&self, partitions: Vec<i32>) -> Result<Vec<Position>, Error> {
        let (asker, topic) = (Arc::clone(&self.asker), self.topic.clone());
        blocking(move || ends(&asker, &topic, &partitions, QUERY_TIMEOUT)).await
    }

    /// Commits each partition up to and including the given record.
    ///
    /// After a failure, some records come again.
    pub async fn commit(&self, handled: &[Position]) -> Result<(), Error> {
        let after = |position: &Position| Position { offset: position.offset + 1, ..*position };
        let next: Vec<Position> = handled.iter().map(after).collect();
        self.progress.handled(&next);
        self.poller.commit(next).await
    }

    /// Continues from these records again.
    pub async fn rewind(&self, positions: &[Position]) -> Result<(), Error> {
        self.progress.rewound(positions);
        self.poller.seek(positions.to_vec()).await
    }

    pub async fn close(self) {
        self.poller.close().await;
    }
}

fn look(
    options: &KafkaOptions,
    topic: &str,
    stuck: &[Position],
    ends: &[Position],
) -> Result<Vec<Unreadable>, Error> {
    let prober = Prober::new(options, topic)?;
    let mut all = Vec::new();
    for at in stuck {
        let end = ends.iter().find(|end| end.partition == at.partition).map_or(0, |end| end.offset);
        let mut next = at.offset;
        for _ in 0..PASSED_OVER_MAX {
            if next >= end {
                break;
            }
            match prober.unreadable(at.partition, next, end) {
                Ok(None) => break,
                Ok(Some(found)) => {
                    next = found.last + 1;
                    all.push(found);
                }
                Err(error) => {
                    tracing::warn!(%error, position = %at, "a partition could not be probed");
                    break;
                }
            }
        }
    }
    Ok(all)
}

fn ingress_record(message: &BorrowedMessage<'_>) -> IngressRecord {
    IngressRecord {
        position: Position { partition: message.partition(), offset: message.offset() },
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers_of(message),
        appended_at: Time::from_millis(message.timestamp().to_millis().unwrap_or_default()),
    }
}

fn headers_of(message: &BorrowedMessage<'_>) -> Vec<(String, Vec<u8>)> {
    let Some(headers) = message.headers() else { return Vec::new() };
    // rdkafka 0.39 panics on a header's name that is not UTF-8, and such a name means nothing to us.
    let header = |at: usize| {
        let read = AssertUnwindSafe(|| {
            headers.try_get(at).map(|it| (it.key.to_owned(), it.value.unwrap_or_default().to_vec()))
        });
        catch_unwind(read).ok().flatten()
    };
    (0..headers.count()).filter_map(header).collect()
}
