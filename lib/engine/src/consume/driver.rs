//! The consume loop: claims, fetches, folds, and continues from the checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use metrics::{counter, gauge, histogram};
use platform::kafka::{
    self, Change, FetchLimits, Fetched, OnAssign, Poller, Position, Prober, Unreadable, count_dead_letters,
    is_unreadable, log_dead_letters,
};
use platform::pg::{self, Schema};
use rand::RngExt;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::checkpoint;
use super::decide::{Attempt, Next, judge};
use super::error::Error;
use super::failure::Cause;
use super::lanes::Lanes;
use super::options::{ConsumeOptions, Source};
use super::partitions::{Admitted, Folding, PartitionState, admit};
use super::status::Status;
use super::transaction::{self, Batch, Desk, Done, Ended, Work};
use super::worker::{Summary, Worker};
use crate::ask::ask;
use crate::tables::checkpoint::Claim;

/// Most bytes of records in one transaction.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a fetch waits for the first record; also the longest delay of a shutdown.
const FETCH_WAIT: Duration = Duration::from_millis(100);
/// Delay before reclaiming a partition that another process claimed while the group still assigns it to us.
const RECLAIM_AFTER: std::ops::Range<Duration> = Duration::from_millis(200)..Duration::from_secs(1);
/// First and longest pause after a failure; each is reduced by up to half at random.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Longer than the longest pause after a failure: without another failure since, the trouble is over.
const RECOVERED_AFTER: Duration = Duration::from_secs(6);
/// How often the ends are requested from the brokers.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// How often our offsets are shown to the group.
const SHOW_EVERY: Duration = Duration::from_secs(1);
/// Timeout for reading partition ends; short, because it blocks the loop.
const ENDS_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the live generation is read, so that a flip is noticed before the next record.
const ASK_LIVE_EVERY: Duration = Duration::from_millis(250);
/// A new leader may briefly report an end that lags; after this many checks, the log has lost its tail.
const TAIL_CHECKS_MAX: u32 = 5;
const TAIL_CHECK_PAUSE: Duration = Duration::from_secs(1);

/// Folds the journal with others of the same group until `shutdown`, and finishes the batches in progress.
///
/// Each worker is a lane: a fetch is split by partition, and the lanes fold and commit in parallel.
/// Postgres and Kafka may go away and come back. Ends early only where no retry helps: `Refused` and a panic.
pub async fn run<W: Worker>(
    workers: Vec<W>,
    source: Source,
    options: ConsumeOptions,
    status: Status,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let poller = Poller::new(&source.kafka.member(&options.group)?, &topic(&source), OnAssign::AwaitSeek)?;
    poller.subscribe().await?;
    status.reset();
    let mut driver = Driver::new(workers, source, options, status, poller, shutdown)?;
    let ended = driver.until(|_| false).await;
    driver.poller.close().await;
    ended
}

/// Folds all partitions alone, without a group, until each has reached its end; for rebuilds.
///
/// Returns early, and without an error, when `shutdown` comes.
pub async fn run_until<W: Worker>(
    workers: Vec<W>,
    source: Source,
    options: ConsumeOptions,
    status: Status,
    ends: &[Position],
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let poller = Poller::new(&source.kafka.reader(&[])?, &topic(&source), OnAssign::AwaitSeek)?;
    let partitions: Vec<i32> = ends.iter().map(|end| end.partition).collect();
    poller.assign(partitions.iter().map(|partition| (*partition, Offset::End)).collect()).await?;
    let mut driver = Driver::new(workers, source, options, status, poller, shutdown)?;
    driver.take(&partitions);
    driver.ends = Some(ends.iter().map(|end| (end.partition, end.offset)).collect());
    let ended = driver.until(|driver| driver.has_halted() || driver.has_reached_ends()).await;
    let halted = driver.has_halted();
    driver.poller.close().await;
    ended?;
    if halted {
        return Err(Error::Refused(driver.status.problems().join("; ")));
    }
    Ok(())
}

fn topic(source: &Source) -> String {
    source.kafka.topics().events
}

pub(super) fn partitions_of(batch: &Batch) -> Vec<i32> {
    batch.steps.iter().map(|step| step.partition).collect()
}

pub(super) struct Driver<W> {
    pub(super) lanes: Lanes<W>,
    pub(super) name: &'static str,
    pub(super) source: Source,
    pub(super) options: ConsumeOptions,
    pub(super) status: Status,
    poller: Poller,
    shutdown: CancellationToken,
    pub(super) states: BTreeMap<i32, PartitionState>,
    /// Claimed partitions whose halted accounts have not been looked at.
    pub(super) to_resume: BTreeSet<i32>,
    /// When the halted accounts were counted.
    pub(super) looked_at: Instant,
    /// Most records of the next fetch: fewer after they took too long.
    pub(super) records_max: usize,
    /// Halted partitions that are still fetched.
    to_pause: Vec<i32>,
    /// A record that took too long alone, and how often.
    pub(super) slow: Option<(Position, u32)>,
    /// End offsets of a rebuild, exclusive.
    ends: Option<BTreeMap<i32, i64>>,
    failures: u32,
    failed_at: Instant,
    /// The lane that failed last; `None` if what failed concerns all lanes.
    failed_lane: Option<usize>,
    reported_at: Instant,
    /// The offsets that the group was shown last, and when.
    shown: BTreeMap<i32, i64>,
    shown_at: Instant,
    asked_live_at: Instant,
}

impl<W: Worker> Driver<W> {
    fn new(
        workers: Vec<W>,
        source: Source,
        options: ConsumeOptions,
        status: Status,
        poller: Poller,
        shutdown: CancellationToken,
    ) -> Result<Driver<W>, Error> {
        let lanes = Lanes::new(workers, options.keeps_log)
            .ok_or_else(|| Error::Refused("no worker was given".to_owned()))?;
        Ok(Driver {
            name: lanes.name(),
            lanes,
            source,
            to_resume: BTreeSet::new(),
            looked_at: Instant::now(),
            records_max: options.batch_records_max,
            slow: None,
            to_pause: Vec::new(),
            failed_at: Instant::now(),
            options,
            status,
            poller,
            shutdown,
            states: BTreeMap::new(),
            ends: None,
            failures: 0,
            failed_lane: None,
            reported_at: Instant::now(),
            shown: BTreeMap::new(),
            shown_at: Instant::now(),
            asked_live_at: Instant::now(),
        })
    }

    async fn until(&mut self, reached: impl Fn(&Driver<W>) -> bool) -> Result<(), Error> {
        while !self.shutdown.is_cancelled() && !reached(self) {
            self.status.heartbeat().beat();
            match self.turn().await {
                Ok(()) => self.recover(),
                Err(Error::Postgres(error)) => {
                    self.show().await;
                    self.back_off(None, &format!("postgres: {error}")).await;
                }
                Err(Error::Kafka(error)) => self.back_off(None, &error.to_string()).await,
                Err(fatal) => {
                    error!(worker = self.name, error = %fatal, "consuming ends");
                    self.status.set_trouble(Some(fatal.to_string()));
                    return Err(fatal);
                }
            }
        }
        self.show().await;
        self.status.heartbeat().rest();
        Ok(())
    }

    /// After a while without a failure, the trouble is over even if nothing came to be folded.
    fn recover(&mut self) {
        if self.failures > 0 && self.failed_at.elapsed() > RECOVERED_AFTER {
            self.failures = 0;
            self.status.set_trouble(None);
        }
    }

    async fn turn(&mut self) -> Result<(), Error> {
        if self.asked_live_at.elapsed() >= ASK_LIVE_EVERY {
            self.asked_live_at = Instant::now();
            if self.is_retired().await? {
                self.follow_live().await?;
            }
        }
        for (partition, why) in self.status.asked_to_halt() {
            self.halt(partition, why);
        }
        self.claim_due().await?;
        self.pause_halted().await?;
        self.resume_due().await?;
        let is_filling = self.fill_due().await?;
        let wait = if is_filling { Duration::ZERO } else { FETCH_WAIT };
        let limits = FetchLimits { records: self.records_max, bytes: BATCH_BYTES_MAX, wait };
        let Fetched { mut records, changes, error } = self.poller.fetch(limits).await?;
        if let Some(ends) = &self.ends {
            let is_before = |at: Position| ends.get(&at.partition).is_some_and(|end| at.offset < *end);
            records.retain(|record| is_before(record.position));
        }
        for change in changes {
            self.follow(change);
        }
        let admitted = admit(&mut self.states, records, self.source.identity);
        self.fold(admitted).await?;
        if let Some(error) = error {
            self.look_into(error).await?;
        }
        self.report().await
    }

    /// Schedules partitions to be claimed at once.
    fn take(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.states.insert(*partition, PartitionState::Unclaimed(Instant::now()));
        }
    }

    fn follow(&mut self, change: Change) {
        info!(worker = self.name, ?change, "the group decided");
        match change {
            Change::Assigned(partitions) => self.take(&partitions),
            Change::Lost(partitions) => {
                for partition in &partitions {
                    self.states.remove(partition);
                    self.status.lose(*partition);
                }
                self.lanes.forget(&partitions);
            }
        }
    }

    async fn claim_due(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let is_due = |state: &PartitionState| matches!(state, PartitionState::Unclaimed(at) if *at <= now);
        let due: Vec<i32> =
            self.states.iter().filter(|(_, state)| is_due(state)).map(|(partition, _)| *partition).collect();
        if due.is_empty() {
            return Ok(());
        }
        if self.is_retired().await? {
            return self.follow_live().await;
        }
        let claims =
            checkpoint::claim(&self.source, self.options.schema, self.options.fold_version, &due).await?;
        self.lanes.forget(&due);
        let stands: Vec<Position> = claims
            .iter()
            .map(|claim| Position { partition: claim.partition, offset: claim.next_offset })
            .collect();
        let short = self.lost_tails(&stands).await?;
        let behind = self.logs_behind(&claims).await?;
        for claim in &claims {
            if let Some(end) = short.get(&claim.partition) {
                self.halt(
                    claim.partition,
                    format!("the log ends at {end}, offset {} was to be next", claim.next_offset),
                );
                continue;
            }
            if behind.contains(&claim.partition) {
                self.states.insert(claim.partition, PartitionState::Filling(*claim));
            } else {
                self.begin_folding(*claim);
            }
        }
        debug!(worker = self.name, partitions = claims.len() - short.len(), "claimed");
        self.seek_to_next(&due).await
    }

    pub(super) fn begin_folding(&mut self, claim: Claim) {
        self.states.insert(claim.partition, PartitionState::Folding(Folding::new(claim)));
        self.to_resume.insert(claim.partition);
        self.status.set_folding(claim.partition, claim.next_offset);
    }

    /// Returns the ends of the partitions that end before our next offset.
    async fn lost_tails(&self, stands: &[Position]) -> Result<BTreeMap<i32, i64>, Error> {
        let partitions: Vec<i32> = stands.iter().map(|stand| stand.partition).collect();
        let mut short = BTreeMap::new();
        for _ in 0..TAIL_CHECKS_MAX {
            let ends = self.poller.ends(partitions.clone(), ENDS_TIMEOUT).await?;
            let ends: BTreeMap<i32, i64> = ends.iter().map(|end| (end.partition, end.offset)).collect();
            let is_short =
                |stand: &&Position| ends.get(&stand.partition).is_none_or(|end| *end < stand.offset);
            let end_of = |stand: &Position| ends.get(&stand.partition).copied().unwrap_or_default();
            short = stands.iter().filter(is_short).map(|stand| (stand.partition, end_of(stand))).collect();
            if short.is_empty() || self.shutdown.is_cancelled() {
                break;
            }
            sleep(TAIL_CHECK_PAUSE).await;
        }
        Ok(short)
    }

    async fn fold(&mut self, admitted: Admitted) -> Result<(), Error> {
        let Admitted { batch, halts, rereads, holes } = admitted;
        if !holes.is_empty() {
            info!(worker = self.name, ?holes, "offsets without a record are passed");
        }
        let folded = self.transact(batch).await;
        // Sought whatever became of the batch: else the next fetch would begin after what is missing.
        let sought = self.read_again(&rereads).await;
        // After a failed batch the remaining records are read again, and their gaps with them.
        if folded? {
            for (partition, why) in halts {
                self.halt(partition, why);
            }
        }
        sought
    }

    /// Seeks missing records; each counts as missing only if it is missing after that.
    async fn read_again(&mut self, missing: &[Position]) -> Result<(), Error> {
        if missing.is_empty() {
            return Ok(());
        }
        warn!(worker = self.name, ?missing, "records are missing, reading again");
        let partitions: Vec<i32> = missing.iter().map(|at| at.partition).collect();
        self.seek_to_next(&partitions).await?;
        for at in missing {
            if let Some(PartitionState::Folding(folding)) = self.states.get_mut(&at.partition) {
                folding.sought(at.offset);
            }
        }
        Ok(())
    }

    /// Runs a batch, all lanes in parallel; returns whether all of it committed.
    async fn transact(&mut self, batch: Batch) -> Result<bool, Error> {
        let started = Instant::now();
        let mut running = Vec::new();
        for (lane, batch) in self.lanes.split(batch) {
            let Some(lent) = self.lanes.take(lane) else { return Err(Error::Panicked(self.name)) };
            let run = transaction::run(self.desk(Vec::new()), lent, Work::Fold(batch));
            running.push(async move { (lane, run.await) });
        }
        let mut ran = Vec::with_capacity(running.len());
        for (lane, run) in join_all(running).await {
            let Some((lent, work, ended)) = run else { return Err(Error::Panicked(self.name)) };
            self.lanes.put(lane, lent);
            if let Work::Fold(batch) = work {
                ran.push((lane, batch, ended));
            }
        }
        // Every lane finishes, even if others failed: a committed lane stays committed.
        let mut outcome = Ok(true);
        for (lane, batch, ended) in ran {
            let stands = match ended {
                Ended::Failed(failure) if failure.cause != Cause::Elsewhere => {
                    self.cut(lane, batch, failure).await
                }
                ended @ (Ended::Committed(_)
                | Ended::Fenced
                | Ended::Retired
                | Ended::Failed(_)
                | Ended::Unanswered(_)) => self.see_to(lane, batch, ended, started).await,
            };
            outcome = outcome.and_then(|all| stands.map(|stands| all && stands));
        }
        outcome
    }

    /// Runs work on a lane, under these claims.
    pub(super) async fn run_on(
        &mut self,
        lane: usize,
        claims: Vec<Claim>,
        work: Work,
    ) -> Result<(Work, Ended), Error> {
        let Some(lent) = self.lanes.take(lane) else { return Err(Error::Panicked(self.name)) };
        let ran = transaction::run(self.desk(claims), lent, work).await;
        let Some((lent, work, ended)) = ran else { return Err(Error::Panicked(self.name)) };
        self.lanes.put(lane, lent);
        Ok((work, ended))
    }

    fn desk(&self, claims: Vec<Claim>) -> Desk {
        Desk {
            pool: self.source.pool.clone(),
            options: self.options.clone(),
            heartbeat: self.status.heartbeat().clone(),
            claims,
        }
    }

    pub(super) fn count(&self, summary: &Summary) {
        for (reason, letters) in &summary.dead_letters {
            count_dead_letters(self.name, reason, *letters);
        }
        counter!("ledger_account_halts_total", "worker" => self.name).increment(summary.halted);
    }

    /// Continues after a lane's transaction has ended; returns whether its batch committed.
    pub(super) async fn see_to(
        &mut self,
        lane: usize,
        batch: Batch,
        ended: Ended,
        started: Instant,
    ) -> Result<bool, Error> {
        let records = batch.records.len();
        match ended {
            Ended::Committed(Done { summary, .. }) => {
                // What one lane commits says nothing about another that fails.
                if self.failed_lane.is_none_or(|failed| failed == lane) {
                    self.failures = 0;
                    self.status.set_trouble(None);
                }
                self.keep(lane, &batch);
                self.records_max = (self.records_max * 2).min(self.options.batch_records_max);
                self.count(&summary);
                counter!("ledger_consumed_records_total", "worker" => self.name).increment(records as u64);
                histogram!("ledger_batch_records", "worker" => self.name).record(records as f64);
                histogram!("ledger_batch_seconds", "worker" => self.name).record(started.elapsed());
                debug!(worker = self.name, records, events = summary.events, took = ?started.elapsed(), "batch folded");
                Ok(true)
            }
            Ended::Fenced => {
                warn!(worker = self.name, records, "a claim is gone, the batch was rolled back");
                self.settle(lane, Attempt::RolledBack, batch).await
            }
            Ended::Retired => {
                self.lanes.rolled_back(lane);
                self.follow_live().await?;
                Ok(false)
            }
            Ended::Failed(failure) => {
                self.lanes.rolled_back(lane);
                self.seek_to_next(&partitions_of(&batch)).await?;
                self.back_off(Some(lane), &failure.why).await;
                Ok(false)
            }
            Ended::Unanswered(why) => {
                warn!(worker = self.name, records, why, "the answer to a commit was lost");
                self.settle(lane, Attempt::Unanswered, batch).await
            }
        }
    }

    /// Returns whether the loop follows the live generation and this one is no longer live.
    async fn is_retired(&self) -> Result<bool, Error> {
        if !self.options.follows_live {
            return Ok(false);
        }
        let live = self.ask_live().await?;
        Ok(live.is_some_and(|live| live != self.options.schema))
    }

    async fn ask_live(&self) -> Result<Option<Schema>, Error> {
        let model = self.options.schema.model;
        let live = ask(&self.source.pool, move |connection| Box::pin(pg::live_generation(connection, model)));
        Ok(live.await?)
    }

    /// Switches to the generation that is live now: every partition is claimed anew there.
    pub(super) async fn follow_live(&mut self) -> Result<(), Error> {
        let model = self.options.schema.model;
        let live = self.ask_live().await?;
        let Some(live) = live else { return Err(Error::Refused(format!("no {} is live", model.name()))) };
        info!(worker = self.name, from = %self.options.schema, to = %live, "another generation is live");
        self.options.schema = live;
        let partitions: Vec<i32> = self.states.keys().copied().collect();
        for partition in &partitions {
            self.status.lose(*partition);
        }
        self.lanes.forget(&partitions);
        self.take(&partitions);
        Ok(())
    }

    /// Reads from the checkpoint whether a batch committed, however long Postgres takes to answer.
    async fn settle(&mut self, lane: usize, attempt: Attempt, batch: Batch) -> Result<bool, Error> {
        let partitions = partitions_of(&batch);
        let rows = loop {
            match checkpoint::rows(&self.source.pool, self.options.schema, &partitions).await {
                Ok(rows) => break rows,
                Err(error) => self.back_off(Some(lane), &format!("postgres: {error}")).await,
            }
            if self.shutdown.is_cancelled() {
                self.lanes.rolled_back(lane);
                return Ok(false);
            }
            // After a flip the generation may be dropped; then its checkpoint never answers again.
            if self.is_retired().await.unwrap_or(false) {
                self.lanes.rolled_back(lane);
                self.follow_live().await?;
                return Ok(false);
            }
        };
        let verdict = judge(attempt, &batch.steps, &rows);
        info!(worker = self.name, ?attempt, ?verdict, "the checkpoint shows whether the batch was committed");
        if verdict.committed {
            self.keep(lane, &batch);
        } else {
            self.lanes.rolled_back(lane);
        }
        let mut stale = Vec::new();
        let mut rereads = Vec::new();
        for (partition, next) in &verdict.partitions {
            match next {
                Next::GoOn => {}
                Next::Again => rereads.push(*partition),
                Next::From(offset) => {
                    stale.push(*partition);
                    rereads.push(*partition);
                    self.move_to(*partition, *offset);
                }
                Next::Lost => {
                    stale.push(*partition);
                    self.claim_later(*partition);
                }
            }
        }
        self.lanes.forget(&stale);
        self.seek_to_next(&rereads).await?;
        Ok(verdict.committed)
    }

    fn keep(&mut self, lane: usize, batch: &Batch) {
        self.lanes.committed(lane);
        for step in &batch.steps {
            self.move_to(step.partition, step.new_offset);
        }
    }

    fn move_to(&mut self, partition: i32, next_offset: i64) {
        if let Some(PartitionState::Folding(folding)) = self.states.get_mut(&partition) {
            folding.set_next_offset(next_offset);
            self.status.set_folding(partition, next_offset);
        }
    }

    pub(super) fn claim_later(&mut self, partition: i32) {
        let at = Instant::now() + rand::rng().random_range(RECLAIM_AFTER);
        self.states.insert(partition, PartitionState::Unclaimed(at));
        self.status.lose(partition);
    }

    pub(super) fn halt(&mut self, partition: i32, why: String) {
        error!(worker = self.name, partition, why, "partition halted, somebody must look");
        counter!("ledger_partitions_halted_total", "worker" => self.name).increment(1);
        self.states.insert(partition, PartitionState::Halted);
        self.to_pause.push(partition);
        self.status.halt(partition, why);
    }

    /// Seeks each claimed partition to its next offset.
    pub(super) async fn seek_to_next(&mut self, partitions: &[i32]) -> Result<(), Error> {
        let next = |partition: &i32| match self.states.get(partition) {
            Some(PartitionState::Folding(folding)) => Some(folding.read_from(*partition)),
            _ => None,
        };
        let positions: Vec<Position> = partitions.iter().filter_map(next).collect();
        if positions.is_empty() {
            return Ok(());
        }
        let sought = self.poller.seek(positions).await;
        if sought.is_err() {
            // The read position is unknown: restart with a claim.
            self.take(partitions);
        }
        Ok(sought?)
    }

    /// An offset that the log does not have means a broken log; ignores anything else.
    async fn look_into(&mut self, error: KafkaError) -> Result<(), Error> {
        if is_unreadable(&error) {
            warn!(worker = self.name, %error, "a batch of the journal can't be read");
            return self.halt_unreadable().await;
        }
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            // Such as another process that took our instance's name.
            return Err(Error::Refused(error.to_string()));
        }
        let lost_offset = [RDKafkaErrorCode::AutoOffsetReset, RDKafkaErrorCode::OffsetOutOfRange];
        if !error.rdkafka_error_code().is_some_and(|code| lost_offset.contains(&code)) {
            warn!(worker = self.name, %error, "kafka");
            return Ok(());
        }
        let next = |(partition, state): (&i32, &PartitionState)| {
            let PartitionState::Folding(folding) = state else { return None };
            Some(Position { partition: *partition, offset: folding.next_offset() })
        };
        let next: Vec<Position> = self.states.iter().filter_map(next).collect();
        let short = self.lost_tails(&next).await?;
        for (partition, end) in &short {
            self.halt(*partition, format!("the log ends at {end}, before the next offset to fold"));
        }
        let partitions: Vec<i32> = next.iter().map(|next| next.partition).collect();
        self.seek_to_next(&partitions).await
    }

    /// Halts the partitions whose next record can't be read; the others go on.
    async fn halt_unreadable(&mut self) -> Result<(), Error> {
        let partitions: Vec<i32> = self.status.folding().into_keys().collect();
        for end in self.poller.ends(partitions, ENDS_TIMEOUT).await? {
            let Some(PartitionState::Folding(folding)) = self.states.get(&end.partition) else { continue };
            if folding.next_offset() >= end.offset {
                continue;
            }
            self.status.heartbeat().beat();
            if let Some(found) = self.probe(folding.read_from(end.partition), end.offset).await? {
                let Unreadable { partition, first, reason, .. } = found;
                self.halt(partition, format!("the record at offset {first} can't be read: {reason}"));
            }
        }
        Ok(())
    }

    /// Reads a partition by itself: the client library tells that a batch can't be read, and not of which partition.
    async fn probe(&self, at: Position, end: i64) -> Result<Option<Unreadable>, Error> {
        let (kafka, topic) = (self.source.kafka.clone(), topic(&self.source));
        let probing = tokio::task::spawn_blocking(move || {
            Prober::new(&kafka, &topic)?.unreadable(at.partition, at.offset, end)
        });
        let probed = probing.await.map_err(|error| kafka::Error::Internal(error.to_string()))?;
        Ok(probed?)
    }

    /// Stops fetching from halted partitions, which would bring the same errors or records again and again.
    async fn pause_halted(&mut self) -> Result<(), Error> {
        let paused = std::mem::take(&mut self.to_pause);
        if paused.is_empty() { Ok(()) } else { Ok(self.poller.pause(paused).await?) }
    }

    /// Shows the group how far we have committed. Nothing is read from there: operators see there where we are, and a
    /// database that is older than what was shown was restored from a backup.
    async fn show(&mut self) {
        let folding = self.status.folding();
        if self.ends.is_some() || folding.is_empty() || folding == self.shown {
            return;
        }
        let position =
            |(partition, offset): (&i32, &i64)| Position { partition: *partition, offset: *offset };
        match self.poller.commit(folding.iter().map(position).collect()).await {
            Ok(()) => {
                self.shown = folding;
                self.shown_at = Instant::now();
            }
            Err(error) => debug!(worker = self.name, %error, "offsets not shown to the group"),
        }
    }

    /// Reports progress: to the group, and to the metrics as lag.
    async fn report(&mut self) -> Result<(), Error> {
        if self.shown_at.elapsed() >= SHOW_EVERY {
            self.show().await;
        }
        if self.reported_at.elapsed() < REPORT_EVERY {
            return Ok(());
        }
        self.reported_at = Instant::now();
        log_dead_letters();
        let folding = self.status.folding();
        if folding.is_empty() {
            return Ok(());
        }
        for end in self.poller.ends(folding.keys().copied().collect(), ENDS_TIMEOUT).await? {
            let next = folding.get(&end.partition).copied().unwrap_or_default();
            gauge!("ledger_lag_records", "worker" => self.name, "partition" => end.partition.to_string())
                .set((end.offset - next).max(0) as f64);
        }
        Ok(())
    }

    /// Waits after a failure of a lane, or of all, longer each time, with jitter so that processes do not retry together.
    pub(super) async fn back_off(&mut self, lane: Option<usize>, why: &str) {
        self.failed_lane = lane;
        self.failures = self.failures.saturating_add(1);
        self.failed_at = Instant::now();
        self.status.set_trouble(Some(why.to_owned()));
        let full = BACKOFF_MIN.saturating_mul(1 << self.failures.min(10)).min(BACKOFF_MAX);
        let pause = full.mul_f64(rand::rng().random_range(0.5..1.0));
        warn!(worker = self.name, why, failures = self.failures, ?pause, "trying again after a pause");
        tokio::select! {
            () = sleep(pause) => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    fn has_halted(&self) -> bool {
        self.states.values().any(|state| *state == PartitionState::Halted)
    }

    fn has_reached_ends(&self) -> bool {
        let reached = |(partition, end): (&i32, &i64)| match self.states.get(partition) {
            Some(PartitionState::Folding(folding)) => folding.next_offset() >= *end,
            _ => false,
        };
        self.to_resume.is_empty() && self.ends.as_ref().is_some_and(|ends| ends.iter().all(reached))
    }
}
