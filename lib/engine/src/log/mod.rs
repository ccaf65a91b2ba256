//! The transparency log of each partition: grows in the transaction that moves the fold's checkpoint.

mod growth;
mod state;

use std::collections::BTreeMap;

use platform::kafka::{Record, genesis_salt};
use sqlx::PgConnection;
use transparency_log::appender::Appender;
use transparency_log::entry::Entry;
use transparency_log::tile::Tile;

use self::growth::Growth;
use self::state::Hasher;
use crate::tables::{log_size, log_tail, log_tile};

pub(crate) use self::state::{Error, Log};

/// The logs of a lane's partitions, as they were committed last.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    known: BTreeMap<i32, Log>,
    /// Those of the transaction in progress until its commit is known.
    pending: BTreeMap<i32, Log>,
}

/// The offsets that a partition's records reach in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    pub partition: i32,
    pub old_offset: i64,
    pub new_offset: i64,
}

impl Logs {
    /// Appends records, which are in order per partition. `committed` or `rolled_back` follows.
    pub async fn append(
        &mut self,
        tx: &mut PgConnection,
        reaches: &[Reach],
        records: &[&Record],
    ) -> Result<(), Error> {
        self.pending.clear();
        let appended = self.try_append(tx, reaches, records).await;
        if appended.is_err() {
            let partitions: Vec<i32> = reaches.iter().map(|reach| reach.partition).collect();
            self.forget(&partitions);
        }
        appended
    }

    async fn try_append(
        &mut self,
        tx: &mut PgConnection,
        reaches: &[Reach],
        records: &[&Record],
    ) -> Result<(), Error> {
        let genesis = |partition| {
            let is_first =
                |record: &&&Record| record.position.partition == partition && record.position.offset == 0;
            records.iter().find(is_first).copied()
        };
        let mut growths = BTreeMap::new();
        for reach in reaches {
            let log = match self.known.get(&reach.partition) {
                Some(log) => log.clone(),
                None => take_up(tx, reach.partition, genesis(reach.partition)).await?,
            };
            if log.next_offset != reach.old_offset {
                return Err(Error::OutOfStep(reach.partition));
            }
            growths.insert(reach.partition, Growth::new(reach.partition, log));
        }
        for record in records {
            if let Some(growth) = growths.get_mut(&record.position.partition) {
                growth.append_record(record);
            }
        }
        for reach in reaches {
            if let Some(growth) = growths.get_mut(&reach.partition) {
                growth.reach(reach.new_offset);
            }
        }
        let growths: Vec<Growth> = growths.into_values().collect();
        growth::write(tx, &growths).await?;
        self.pending = growths.into_iter().map(Growth::into_log).collect();
        Ok(())
    }

    pub fn committed(&mut self) {
        self.known.append(&mut self.pending);
    }

    pub fn rolled_back(&mut self) {
        self.pending.clear();
    }

    /// Drops the logs of partitions that were lost or claimed anew.
    pub fn forget(&mut self, partitions: &[i32]) {
        self.pending.clear();
        self.known.retain(|partition, _| !partitions.contains(partition));
    }
}

/// Appends entries to a log and writes it; returns the log, which is valid once the transaction is committed.
pub(crate) async fn extend(
    tx: &mut PgConnection,
    partition: i32,
    log: Log,
    entries: &[Entry],
    new_offset: i64,
) -> Result<Log, Error> {
    let mut growth = Growth::new(partition, log);
    entries.iter().for_each(|entry| growth.append(entry));
    growth.reach(new_offset);
    let growth = [growth];
    growth::write(tx, &growth).await?;
    let [growth] = growth;
    Ok(growth.into_log().1)
}

/// Reads a partition's log from the tables, or begins it with the genesis record.
pub(crate) async fn take_up(
    tx: &mut PgConnection,
    partition: i32,
    genesis: Option<&Record>,
) -> Result<Log, Error> {
    if let Some(genesis) = genesis
        && let Some(salt) = genesis_salt(genesis.key.as_deref(), genesis.value_bytes())
    {
        log_size::begin(tx, partition, &salt).await?;
    }
    let found = log_size::read(tx, &[partition]).await?.pop();
    let found = found.ok_or(Error::OutOfStep(partition))?;
    let size = found.size.cast_unsigned();
    let edge: Vec<Tile> = Tile::edge(size).collect();
    let tiles = log_tile::hashes(tx, partition, &edge).await?;
    let bundle = log_tail::read(tx, partition).await?.bundle();
    let appender = Appender::resume(size, &tiles, &bundle)
        .map_err(|missing| Error::MissingTile { partition, missing })?;
    Ok(Log { appender, next_offset: found.next_offset, hasher: Hasher::new(&found.salt) })
}
