//! Cuts a batch that fails for a reason of its own until the one record is found, and halts its account alone.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, warn};

use super::driver::{Driver, partitions_of};
use super::error::Error;
use super::failure::{Cause, Failure};
use super::transaction::{Batch, Ended, Work};
use super::worker::Worker;

/// Longest search in one turn: the consumer must be polled. What was found stays halted; the rest is read again.
const SEARCH_MAX: Duration = Duration::from_secs(60);
/// How often a record alone must take too long before its account is halted: the machine may have been busy.
const SLOW_TRIES_MAX: u32 = 3;

impl<W: Worker> Driver<W> {
    /// Folds a failed batch in parts, so that what can't be folded stops no other account; returns whether all of it
    /// is done.
    pub(super) async fn cut(&mut self, lane: usize, batch: Batch, failure: Failure) -> Result<bool, Error> {
        self.roll_back(lane, &batch, &failure);
        if failure.cause == Cause::Slow {
            return self.slow_down(lane, batch, failure.why).await;
        }
        warn!(
            worker = self.name,
            records = batch.records.len(),
            why = failure.why,
            "a batch fails, its records are tried apart"
        );
        let started = Instant::now();
        let mut failed = Some(failure.why);
        // The next part is the last.
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            let is_done = match failed.take() {
                Some(why) => match part.halves() {
                    Ok((first, second)) => {
                        parts.push(second);
                        parts.push(first);
                        true
                    }
                    Err(one) => self.halt_account(lane, one, why).await?,
                },
                None => match self.fold_part(lane, part).await? {
                    Ok(is_done) => is_done,
                    Err((part, why)) => {
                        parts.push(part);
                        failed = Some(why);
                        started.elapsed() < SEARCH_MAX
                    }
                },
            };
            if !is_done {
                let rest: Vec<i32> = parts.iter().flat_map(partitions_of).collect();
                self.seek_to_next(&rest).await?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Folds a part of a batch. Errors: the part, and why it fails itself.
    async fn fold_part(&mut self, lane: usize, part: Batch) -> Result<Result<bool, (Batch, String)>, Error> {
        let started = Instant::now();
        let (work, ended) = self.run_on(lane, Vec::new(), Work::Fold(part)).await?;
        let Work::Fold(part) = work else { return Ok(Ok(false)) };
        match ended {
            Ended::Failed(failure) if failure.cause == Cause::Own => {
                self.roll_back(lane, &part, &failure);
                Ok(Err((part, failure.why)))
            }
            ended @ (Ended::Committed(_)
            | Ended::Fenced
            | Ended::Retired
            | Ended::Failed(_)
            | Ended::Unanswered(_)) => Ok(Ok(self.see_to(lane, part, ended, started).await?)),
        }
    }

    /// Halts the account of the one record; returns whether that is done.
    async fn halt_account(&mut self, lane: usize, one: Batch, why: String) -> Result<bool, Error> {
        let started = Instant::now();
        let (work, ended) = self.run_on(lane, Vec::new(), Work::Halt(one, why)).await?;
        let Work::Halt(one, _) = work else { return Ok(false) };
        self.see_to(lane, one, ended, started).await
    }

    /// Reads fewer records at once after they took too long; one that takes too long alone halts its account.
    async fn slow_down(&mut self, lane: usize, batch: Batch, why: String) -> Result<bool, Error> {
        let (records, partitions) = (batch.records.len(), partitions_of(&batch));
        let tries = match batch.records.as_slice() {
            [one] => self.slow.filter(|(at, _)| *at == one.position).map_or(1, |(_, tries)| tries + 1),
            _ => 0,
        };
        if tries >= SLOW_TRIES_MAX {
            self.slow = None;
            error!(worker = self.name, why, tries, "a record takes too long by itself");
            return self.halt_account(lane, batch, why).await;
        }
        self.slow = batch.records.first().map(|one| (one.position, tries));
        self.records_max = (records / 2).max(1);
        self.seek_to_next(&partitions).await?;
        self.back_off(Some(lane), &format!("{records} records: {why}")).await;
        Ok(false)
    }

    fn roll_back(&mut self, lane: usize, batch: &Batch, failure: &Failure) {
        self.lanes.rolled_back(lane);
        if failure.panicked {
            // What a worker was about to change when it panicked is not known.
            self.lanes.forget(&partitions_of(batch));
        }
    }
}
