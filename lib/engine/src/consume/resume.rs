//! Lets halted accounts go on: those that this binary can fold by now, and those that an operator asks for.

use std::time::Duration;

use ledger_core::value::id::AccountId;
use metrics::gauge;
use tokio::time::Instant;
use tracing::{info, warn};

use super::driver::Driver;
use super::error::Error;
use super::failure::Cause;
use super::partitions::PartitionState;
use super::transaction::{Ended, Work};
use super::worker::Worker;
use crate::ask::ask;
use crate::tables::checkpoint::Claim;
use crate::tables::halted;

/// Most parked records folded in one transaction.
const RECORDS_MAX: usize = 5_000;
/// How often the halted accounts are counted, and an operator's wish is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl<W: Worker> Driver<W> {
    /// Resumes the halted accounts of partitions just claimed, and of all others where an operator asks for it.
    pub(super) async fn resume_due(&mut self) -> Result<(), Error> {
        let claimed = std::mem::take(&mut self.to_resume);
        if !claimed.is_empty() {
            let claims = self.claims_of(claimed.iter().copied());
            if !self.resume(claims, false).await? {
                self.to_resume = claimed;
                return Ok(());
            }
        }
        if self.looked_at.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.looked_at = Instant::now();
        let claims = self.claims_of(self.states.keys().copied());
        let (schema, partitions) =
            (self.options.schema, claims.iter().map(|claim| claim.partition).collect::<Vec<_>>());
        let counted = ask(&self.source.pool, move |connection| {
            Box::pin(async move { halted::count(connection, schema, &partitions).await })
        });
        let (halted, asked) = counted.await?;
        gauge!("ledger_halted_accounts", "worker" => self.name).set(halted as f64);
        gauge!("ledger_partitions_halted", "worker" => self.name).set(self.status.halted() as f64);
        if asked {
            self.resume(claims, true).await?;
        }
        Ok(())
    }

    fn claims_of(&self, partitions: impl Iterator<Item = i32>) -> Vec<Claim> {
        let claim = |partition: i32| match self.states.get(&partition) {
            Some(PartitionState::Folding(folding)) => Some(folding.claim(partition)),
            _ => None,
        };
        partitions.filter_map(claim).collect()
    }

    /// Returns whether all accounts that may go on went on, or are halted again.
    async fn resume(&mut self, claims: Vec<Claim>, asked: bool) -> Result<bool, Error> {
        for (lane, claims) in self.lanes.share(claims, |claim| claim.partition) {
            let mut after = Some(String::new());
            while let Some(from) = after {
                let work = Work::Find { after: from, asked };
                let (_, ended) = self.run_on(lane, claims.clone(), work).await?;
                let Ended::Committed(found) = ended else {
                    self.lanes.rolled_back(lane);
                    return self.leave_halted(&claims, ended).await;
                };
                if !self.resume_accounts(lane, &claims, found.accounts).await? {
                    return Ok(false);
                }
                after = found.last;
            }
        }
        Ok(true)
    }

    /// Folds what is parked of these accounts; the one that fails is sought out, as in a batch, and stays halted.
    async fn resume_accounts(
        &mut self,
        lane: usize,
        claims: &[Claim],
        accounts: Vec<AccountId>,
    ) -> Result<bool, Error> {
        let mut waiting = vec![(accounts, RECORDS_MAX)];
        while let Some((accounts, records_max)) = waiting.pop() {
            if accounts.is_empty() {
                continue;
            }
            let work = Work::Resume { accounts: accounts.clone(), records_max };
            let (_, ended) = self.run_on(lane, claims.to_vec(), work).await?;
            match ended {
                Ended::Committed(done) => {
                    self.lanes.committed(lane);
                    self.count(&done.summary);
                    info!(worker = self.name, events = done.summary.events, "halted accounts went on");
                    waiting.push((done.accounts, (records_max * 2).min(RECORDS_MAX)));
                }
                Ended::Failed(failure) if failure.cause != Cause::Elsewhere => {
                    self.lanes.rolled_back(lane);
                    if accounts.len() > 1 {
                        let (first, second) = accounts.split_at(accounts.len() / 2);
                        waiting.push((second.to_vec(), records_max));
                        waiting.push((first.to_vec(), records_max));
                    } else if records_max > 1 {
                        waiting.push((accounts, records_max / 2));
                    } else if let Some(account) = accounts.into_iter().next()
                        && !self.halt_again(lane, claims, account, failure.why).await?
                    {
                        return Ok(false);
                    }
                }
                other @ (Ended::Fenced | Ended::Retired | Ended::Failed(_) | Ended::Unanswered(_)) => {
                    self.lanes.rolled_back(lane);
                    return self.leave_halted(claims, other).await;
                }
            }
        }
        Ok(true)
    }

    async fn halt_again(
        &mut self,
        lane: usize,
        claims: &[Claim],
        account: AccountId,
        why: String,
    ) -> Result<bool, Error> {
        let (_, ended) = self.run_on(lane, claims.to_vec(), Work::HaltAgain(account, why)).await?;
        self.lanes.rolled_back(lane);
        match ended {
            Ended::Committed(done) => {
                self.count(&done.summary);
                Ok(true)
            }
            other @ (Ended::Fenced | Ended::Retired | Ended::Failed(_) | Ended::Unanswered(_)) => {
                self.leave_halted(claims, other).await
            }
        }
    }

    /// Leaves accounts halted for now; the next turn tries again. Returns that not all went on.
    async fn leave_halted(&mut self, claims: &[Claim], ended: Ended) -> Result<bool, Error> {
        match ended {
            Ended::Committed(_) => return Ok(true),
            Ended::Retired => self.follow_live().await?,
            Ended::Fenced => {
                warn!(worker = self.name, "a claim is gone, accounts stay halted");
                let partitions: Vec<i32> = claims.iter().map(|claim| claim.partition).collect();
                self.lanes.forget(&partitions);
                partitions.into_iter().for_each(|partition| self.claim_later(partition));
            }
            Ended::Failed(failure) => self.back_off(None, &failure.why).await,
            Ended::Unanswered(why) => self.back_off(None, &why).await,
        }
        Ok(false)
    }
}
