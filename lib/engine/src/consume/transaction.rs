//! Runs one piece of work in one transaction, on a task of its own that is never dropped.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use ledger_core::value::id::AccountId;
use platform::heartbeat::{self, Heartbeat, Pulse};
use platform::kafka::{Position, Record, leaf_hash};
use platform::{failpoint, pg};
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres, Transaction};
use tracing::warn;

use super::checkpoint;
use super::failure::{Cause, Failure};
use super::lane::Lane;
use super::options::ConsumeOptions;
use super::worker::{Summary, Worker, WorkerError};
use crate::log::Reach;
use crate::tables::checkpoint::{Claim, Step};

/// The server ends a transaction after this idle time, so that a lost process does not keep its rows locked.
const IDLE_IN_TRANSACTION_MAX: &str = "30s";
/// The server ends a statement after this time; less than our own patience, so that its reason is known.
const STATEMENT_MAX: &str = "20s";
/// Longest wait for a lock: what holds it has nothing to do with our records.
const LOCK_MAX: &str = "10s";

/// Records, and their checkpoint steps.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub records: Vec<Record>,
    /// Genesis records: they stand in the log, and are not folded.
    pub genesis: Vec<Record>,
    pub steps: Vec<Step>,
}

impl Batch {
    /// Cuts a batch in two, to run one after the other; `None` if it has one record.
    pub fn halves(mut self) -> Result<(Batch, Batch), Batch> {
        if self.records.len() < 2 {
            return Err(self);
        }
        let rest = self.records.split_off(self.records.len() / 2);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for step in self.steps {
            let is_here = |record: &&Record| record.position.partition == step.partition;
            match (self.records.iter().rev().find(is_here), rest.iter().any(|record| is_here(&record))) {
                (Some(last), true) => {
                    let middle = last.position.offset + 1;
                    first.push(Step { new_offset: middle, last_leaf: leaf_hash(last), ..step });
                    second.push(Step { old_offset: middle, ..step });
                }
                (None, true) => second.push(step),
                (_, false) => first.push(step),
            }
        }
        let is_first = |genesis: &Record| {
            let Position { partition, offset } = genesis.position;
            first.iter().any(|step| step.partition == partition && offset < step.new_offset)
        };
        let (genesis, later) = self.genesis.into_iter().partition(is_first);
        Ok((
            Batch { records: self.records, genesis, steps: first },
            Batch { records: rest, genesis: later, steps: second },
        ))
    }

    /// Returns the records of the log, in order per partition.
    fn logged(&self) -> Vec<&Record> {
        let mut records: Vec<&Record> = self.records.iter().collect();
        if !self.genesis.is_empty() {
            records.extend(&self.genesis);
            records.sort_by_key(|record| record.position.offset);
        }
        records
    }

    fn reaches(&self) -> Vec<Reach> {
        let reach = |step: &Step| Reach {
            partition: step.partition,
            old_offset: step.old_offset,
            new_offset: step.new_offset,
        };
        self.steps.iter().map(reach).collect()
    }
}

/// What a worker does in a transaction.
#[derive(Debug)]
pub(super) enum Work {
    /// Folds records and moves the checkpoints.
    Fold(Batch),
    /// Parks the one record of a batch that can't be folded, moves its checkpoint, and halts its account.
    Halt(Batch, String),
    /// Looks for halted accounts that may go on, after the given one.
    Find { after: String, asked: bool },
    /// Folds parked records of these accounts, at most so many.
    Resume { accounts: Vec<AccountId>, records_max: usize },
    /// Keeps an account halted, for this reason.
    HaltAgain(AccountId, String),
}

impl Work {
    /// Returns the records that move checkpoints, if any do.
    fn batch(&self) -> Option<&Batch> {
        match self {
            Work::Fold(batch) | Work::Halt(batch, _) => Some(batch),
            Work::Find { .. } | Work::Resume { .. } | Work::HaltAgain(..) => None,
        }
    }

    fn steps(&self) -> &[Step] {
        self.batch().map_or(&[], |batch| &batch.steps)
    }
}

/// What came of committed work.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub summary: Summary,
    /// Accounts that go on: found, or with more parked records.
    pub accounts: Vec<AccountId>,
    /// The last account looked at; `None` after all of them.
    pub last: Option<String>,
}

#[derive(Debug)]
pub(super) enum Ended {
    Committed(Done),
    /// Another process changed a checkpoint row; rolled back.
    Fenced,
    /// The generation is no longer live; rolled back.
    Retired,
    /// A failure before the COMMIT; rolled back.
    Failed(Failure),
    /// The answer to the COMMIT was lost.
    Unanswered(String),
}

/// Where work runs, and under which claims.
#[derive(Clone)]
pub(super) struct Desk {
    pub pool: PgPool,
    pub options: ConsumeOptions,
    /// Beats for the loop.
    pub heartbeat: Heartbeat,
    /// The claims that work must hold which moves no checkpoint.
    pub claims: Vec<Claim>,
}

/// Runs work on its own task, which finishes even if the caller is dropped; `None` if it panicked beside the worker.
pub(super) async fn run<W: Worker>(
    desk: Desk,
    mut lane: Lane<W>,
    work: Work,
) -> Option<(Lane<W>, Work, Ended)> {
    let task = tokio::spawn(async move {
        let ended = desk.transact(&mut lane, &work).await;
        (lane, work, ended)
    });
    task.await.ok()
}

impl Desk {
    /// Runs work in a transaction. A connection that falls silent is closed: nothing of it goes back to the pool.
    async fn transact<W: Worker>(&self, lane: &mut Lane<W>, work: &Work) -> Ended {
        let mut connection = match self.pool.acquire().await {
            Ok(connection) => connection,
            Err(error) => return Ended::Failed(error.into()),
        };
        let stage = Stage::default();
        let pulse = Pulse::new(Some(self.heartbeat.clone()), self.options.silent_after);
        match pulse.watch(self.write_and_commit(&mut connection, lane, work, &stage)).await {
            Some(ended) => ended,
            None => {
                close(connection);
                stage.of_silence(self.options.silent_after)
            }
        }
    }

    async fn write_and_commit<W: Worker>(
        &self,
        connection: &mut PgConnection,
        lane: &mut Lane<W>,
        work: &Work,
        stage: &Stage,
    ) -> Ended {
        let mut tx = match begin(connection, &self.options).await {
            Ok(tx) => tx,
            Err(error) => return Ended::Failed(error.into()),
        };
        heartbeat::beat();
        let written = match self.write(&mut tx, lane, work, stage).await {
            Ok(Written::Whole(done)) => done,
            Ok(Written::Fenced) => return leave(tx, Ended::Fenced).await,
            Ok(Written::Retired) => return leave(tx, Ended::Retired).await,
            Err(failure) => return leave(tx, Ended::Failed(failure)).await,
        };
        let name = lane.worker.name();
        let is_batch = matches!(work, Work::Fold(_));
        if is_batch {
            failpoint::hit(&format!("{name}.before_commit"));
        }
        stage.committing.store(true, Ordering::Relaxed);
        if let Err(error) = tx.commit().await {
            return Ended::Unanswered(error.to_string());
        }
        if is_batch {
            failpoint::hit(&format!("{name}.after_commit"));
        }
        Ended::Committed(written)
    }

    /// Writes everything except the COMMIT.
    async fn write<W: Worker>(
        &self,
        tx: &mut PgConnection,
        lane: &mut Lane<W>,
        work: &Work,
        stage: &Stage,
    ) -> Result<Written, Failure> {
        if self.options.follows_live && !pg::keep_live(tx, self.options.schema).await? {
            return Ok(Written::Retired);
        }
        if !self.hold_claims(tx, work).await? {
            return Ok(Written::Fenced);
        }
        heartbeat::beat();
        if let (Some(logs), Some(batch)) = (&mut lane.logs, work.batch()) {
            logs.append(tx, &batch.reaches(), &batch.logged()).await?;
            heartbeat::beat();
        }
        stage.working.store(true, Ordering::Relaxed);
        // A panic is a bug that one record meets: it must not take the others along.
        match AssertUnwindSafe(self.act(tx, &mut lane.worker, work)).catch_unwind().await {
            Ok(done) => Ok(Written::Whole(done?)),
            Err(panic) => Err(Failure::panicked(&*panic)),
        }
    }

    /// Moves the checkpoints, or locks those that the work depends on; returns whether all claims still hold.
    async fn hold_claims(&self, tx: &mut PgConnection, work: &Work) -> Result<bool, sqlx::Error> {
        let steps = work.steps();
        if steps.is_empty() {
            return Ok(crate::tables::checkpoint::lock(tx, &self.claims).await? == self.claims.len());
        }
        let moved = checkpoint::advance(tx, self.options.schema, &self.options.notify_channel, steps).await?;
        Ok(moved == steps.len())
    }

    async fn act<W: Worker>(
        &self,
        tx: &mut PgConnection,
        worker: &mut W,
        work: &Work,
    ) -> Result<Done, WorkerError> {
        let summary = match work {
            Work::Fold(batch) if batch.records.is_empty() => Summary::default(),
            Work::Fold(batch) => worker.apply(tx, &batch.records).await?,
            Work::Halt(batch, why) => match batch.records.as_slice() {
                [record] => worker.halt(tx, record, why).await?,
                _ => Summary::default(),
            },
            Work::Find { after, asked } => {
                let partitions: Vec<i32> = self.claims.iter().map(|claim| claim.partition).collect();
                let (accounts, last) = worker.resumable(tx, &partitions, after, *asked).await?;
                return Ok(Done { accounts, last, ..Done::default() });
            }
            Work::Resume { accounts, records_max } => {
                let resumed = worker.resume(tx, accounts, *records_max).await?;
                return Ok(Done { summary: resumed.summary, accounts: resumed.rest, last: None });
            }
            Work::HaltAgain(account, why) => worker.halt_again(tx, account, why).await?,
        };
        Ok(Done { summary, ..Done::default() })
    }
}

enum Written {
    Whole(Done),
    Fenced,
    Retired,
}

/// How far a transaction has come.
#[derive(Debug, Default)]
struct Stage {
    working: AtomicBool,
    committing: AtomicBool,
}

impl Stage {
    /// Says what it means that no answer came.
    fn of_silence(&self, silent: Duration) -> Ended {
        let why = format!("postgres: silent for {} s, its connection is closed", silent.as_secs());
        if self.committing.load(Ordering::Relaxed) {
            return Ended::Unanswered(why);
        }
        let cause = if self.working.load(Ordering::Relaxed) { Cause::Slow } else { Cause::Elsewhere };
        Ended::Failed(Failure::new(cause, why))
    }
}

pub(super) async fn begin<'c>(
    connection: &'c mut PgConnection,
    options: &ConsumeOptions,
) -> Result<Transaction<'c, Postgres>, sqlx::Error> {
    let begin = format!(
        "begin;
         set local search_path = {};
         set local idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_MAX}';
         set local statement_timeout = '{STATEMENT_MAX}';
         set local lock_timeout = '{LOCK_MAX}'",
        options.schema
    );
    connection.begin_with(AssertSqlSafe(begin)).await
}

/// Rolls back before anything else moves the same checkpoints.
pub(super) async fn leave(tx: Transaction<'_, Postgres>, ended: Ended) -> Ended {
    if let Err(error) = tx.rollback().await {
        warn!(%error, "a batch could not be rolled back; the server does it");
    }
    ended
}

/// Closes a connection without a word to the server, which may not answer.
pub(super) fn close(connection: PoolConnection<Postgres>) {
    drop(connection.detach());
}

#[cfg(test)]
mod tests {
    use ledger_core::value::time::Time;
    use uuid::Uuid;

    use super::*;

    fn record(partition: i32, offset: i64) -> Record {
        let position = Position { partition, offset };
        Record { position, appended_at: Time::from_micros(0), key: None, value: None }
    }

    fn step(partition: i32, old_offset: i64, new_offset: i64) -> Step {
        Step { partition, epoch: Uuid::nil(), old_offset, new_offset, last_leaf: [7; 32] }
    }

    /// A record's partition and offset.
    type Place = (i32, i64);
    /// A step's partition and offsets.
    type Move = (i32, i64, i64);

    fn shown(batch: &Batch) -> (Vec<Place>, Vec<Move>) {
        let place = |record: &Record| (record.position.partition, record.position.offset);
        let moves = |step: &Step| (step.partition, step.old_offset, step.new_offset);
        (batch.records.iter().map(place).collect(), batch.steps.iter().map(moves).collect())
    }

    #[test]
    fn the_halves_of_a_batch_move_each_checkpoint_on_from_where_the_first_left_it() {
        let records = [(0, 5), (1, 8), (0, 6), (2, 3), (0, 7)].map(|(p, o)| record(p, o)).into();
        // Partition 3 has its genesis record alone, which is not folded.
        let steps = vec![step(0, 5, 8), step(1, 8, 9), step(2, 2, 4), step(3, 0, 1)];
        let genesis = vec![record(2, 2), record(3, 0)];
        let (first, second) = Batch { records, steps, genesis }.halves().expect("two");
        assert_eq!(shown(&first), (vec![(0, 5), (1, 8)], vec![(0, 5, 6), (1, 8, 9), (3, 0, 1)]));
        assert_eq!(shown(&second), (vec![(0, 6), (2, 3), (0, 7)], vec![(0, 6, 8), (2, 2, 4)]));
        assert_eq!((&first.genesis, &second.genesis), (&vec![record(3, 0)], &vec![record(2, 2)]));
        assert_eq!(first.steps[0].last_leaf, leaf_hash(&record(0, 5)));
        assert_eq!((first.steps[1].last_leaf, second.steps[0].last_leaf), ([7; 32], [7; 32]));
        let one = Batch { records: vec![record(0, 5)], steps: vec![step(0, 5, 6)], ..Batch::default() };
        assert!(one.halves().is_err());
    }
}
