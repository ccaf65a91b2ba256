//! Brings a partition's transparency log up to its checkpoint, where a generation was folded before it had one.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use metrics::gauge;
use platform::kafka::{Record, leaf_hash, read_partition};
use tokio::time::timeout;
use tracing::{info, warn};
use transparency_log::entry::Entry;

use super::driver::Driver;
use super::error::Error;
use super::partitions::PartitionState;
use super::transaction::{begin, close};
use super::worker::Worker;
use crate::ask::ask;
use crate::log::{self, Log};
use crate::tables::checkpoint::{self, Claim};
use crate::tables::log_size;

/// Records appended in one transaction, and before anything else gets a turn.
const RECORDS_MAX: i64 = 50_000;

/// What became of one transaction.
enum Filled {
    /// The log has every record before this offset.
    To(i64),
    /// Another process claimed the partition.
    Fenced,
    /// The journal is not the one that was folded.
    Changed,
}

impl<W: Worker> Driver<W> {
    /// Returns the partitions whose log lacks records before the checkpoint.
    pub(super) async fn logs_behind(&self, claims: &[Claim]) -> Result<BTreeSet<i32>, Error> {
        let folded: Vec<Claim> = claims.iter().filter(|claim| claim.next_offset > 0).copied().collect();
        if !self.options.keeps_log || folded.is_empty() {
            return Ok(BTreeSet::new());
        }
        let partitions: Vec<i32> = folded.iter().map(|claim| claim.partition).collect();
        let schema = self.options.schema;
        let logs = ask(&self.source.pool, move |connection| {
            Box::pin(async move { log_size::read_in(connection, schema, &partitions).await })
        });
        let logs = logs.await?;
        let is_whole = |claim: &Claim| {
            logs.iter().any(|log| log.partition == claim.partition && log.next_offset == claim.next_offset)
        };
        Ok(folded.iter().filter(|claim| !is_whole(claim)).map(|claim| claim.partition).collect())
    }

    /// Appends the next records to one of the logs that are behind; returns whether there was one.
    pub(super) async fn fill_due(&mut self) -> Result<bool, Error> {
        let claims: Vec<Claim> = self.states.values().filter_map(filling).collect();
        let Some(claim) = claims.first().copied() else { return Ok(false) };
        let (log, entries, last) = self.read_next(claim).await?;
        let to = log.next_offset.saturating_add(RECORDS_MAX).min(claim.next_offset);
        match self.fill(claim, log, (&entries, last), to).await? {
            Filled::To(offset) if offset < claim.next_offset => {
                let rest: i64 = claims.iter().skip(1).map(|claim| claim.next_offset).sum();
                self.show_rest(rest + claim.next_offset - offset);
            }
            Filled::To(offset) => {
                info!(worker = self.name, partition = claim.partition, offset, "the log has caught up");
                self.show_rest(claims.iter().skip(1).map(|claim| claim.next_offset).sum());
                self.begin_folding(claim);
                self.seek_to_next(&[claim.partition]).await?;
            }
            Filled::Fenced => {
                warn!(worker = self.name, partition = claim.partition, "a claim is gone, its log is left");
                self.claim_later(claim.partition);
            }
            Filled::Changed => {
                let offset = claim.next_offset - 1;
                self.halt(
                    claim.partition,
                    format!("the record at offset {offset} is not the one that was folded"),
                );
            }
        }
        Ok(true)
    }

    fn show_rest(&self, records: i64) {
        gauge!("ledger_log_backfill_records", "worker" => self.name).set(records as f64);
    }

    /// Reads the log, and the records that it lacks next, as entries; and the hash of the last of them.
    async fn read_next(&self, claim: Claim) -> Result<(Log, Vec<Entry>, Option<[u8; 32]>), Error> {
        let log = self.take_up(claim).await?;
        let to = log.next_offset.saturating_add(RECORDS_MAX).min(claim.next_offset);
        let mut records = Box::pin(read_partition(&self.source.kafka, claim.partition, log.next_offset, to));
        let (mut entries, mut last) = (Vec::new(), None);
        while let Some(record) = records.try_next().await? {
            self.status.heartbeat().beat();
            entries.push(log.hasher.entry(&record));
            last = (record.position.offset == claim.next_offset - 1).then(|| leaf_hash(&record));
        }
        Ok((log, entries, last))
    }

    /// Reads the log as the tables have it; begins it where there is none.
    async fn take_up(&self, claim: Claim) -> Result<Log, Error> {
        let mut first = Box::pin(read_partition(&self.source.kafka, claim.partition, 0, 1));
        let genesis: Option<Record> = first.try_next().await?;
        let mut connection = self.source.pool.acquire().await?;
        let taking = async {
            let mut tx = begin(&mut connection, &self.options).await?;
            let log = log::take_up(&mut tx, claim.partition, genesis.as_ref()).await?;
            tx.commit().await?;
            Ok(log)
        };
        match timeout(self.options.silent_after, taking).await {
            Ok(taken) => taken.map_err(failed),
            Err(_) => {
                close(connection);
                Err(silent())
            }
        }
    }

    /// Appends entries under the claim.
    async fn fill(
        &self,
        claim: Claim,
        log: Log,
        (entries, last): (&[Entry], Option<[u8; 32]>),
        to: i64,
    ) -> Result<Filled, Error> {
        if to == claim.next_offset && claim.last_leaf.is_some() && last != claim.last_leaf {
            return Ok(Filled::Changed);
        }
        let mut connection = self.source.pool.acquire().await?;
        let filling = async {
            let mut tx = begin(&mut connection, &self.options).await?;
            if checkpoint::lock(&mut tx, &[claim]).await? == 0 {
                tx.rollback().await?;
                return Ok(Filled::Fenced);
            }
            log::extend(&mut tx, claim.partition, log, entries, to).await?;
            tx.commit().await?;
            Ok(Filled::To(to))
        };
        match timeout(self.options.silent_after, filling).await {
            Ok(filled) => filled.map_err(failed),
            Err(_) => {
                close(connection);
                Err(silent())
            }
        }
    }
}

fn filling(state: &PartitionState) -> Option<Claim> {
    match state {
        PartitionState::Filling(claim) => Some(*claim),
        PartitionState::Unclaimed(_) | PartitionState::Folding(_) | PartitionState::Halted => None,
    }
}

/// Whatever it is, it is tried again: no record is at fault.
fn failed(error: log::Error) -> Error {
    match error {
        log::Error::Postgres(error) => error.into(),
        other @ (log::Error::MissingTile { .. } | log::Error::OutOfStep(_)) => {
            Error::Postgres(sqlx::Error::Protocol(other.to_string()))
        }
    }
}

fn silent() -> Error {
    Error::Postgres(sqlx::Error::PoolTimedOut)
}
