//! The steps of top-ups that follow from a batch, written in its transaction.

use std::collections::BTreeSet;

use ledger_core::account::Core;
use ledger_core::account::top_up::Attempt;
use ledger_core::event::{Clock, Data, Event};
use ledger_core::fold::{Applied, Fact, Outcome, Reason};
use ledger_core::policy::top_up::{self, Want};
use ledger_core::value::id::{AccountId, AttemptId, EventId, PaymentId};
use ledger_core::value::money::Usd;
use ledger_core::value::time::Time;

#[derive(Debug, Default)]
pub struct Decided {
    pub(super) steps: Vec<Step>,
    /// Attempts and refusals decided in this batch: the start of one is folded in the next batch at the earliest.
    decided: BTreeSet<(AccountId, EventId)>,
}

#[derive(Debug)]
pub(super) enum Step {
    /// Proposes an attempt, which this event starts.
    Propose(Proposal, Event),
    /// The start has applied, with its append time: the attempt is to be charged.
    Start(Proposal, Time),
    /// The attempt has an outcome, or its start was refused.
    End(AccountId, AttemptId),
    /// The credit was refused and the attempt is open: a person must decide.
    Park(Refused),
    /// A brake refuses the top-up, by this event.
    Refuse(Event),
}

#[derive(Debug)]
pub(super) struct Refused {
    pub account: AccountId,
    pub attempt: AttemptId,
    /// The payment that was to be credited.
    pub payment: PaymentId,
    pub reason: &'static str,
}

/// An attempt with the account data that charging needs.
#[derive(Debug)]
pub(super) struct Proposal {
    pub account: AccountId,
    pub attempt: Attempt,
    pub usd: Option<Usd>,
    pub live: bool,
    pub ledger_time: Time,
}

impl Proposal {
    fn of(core: &Core, attempt: Attempt) -> Self {
        Self {
            account: core.account.clone(),
            usd: core.usd_per_unit.and_then(|price| Usd::price_of(attempt.amount, price)),
            live: core.clock == Clock::Live,
            ledger_time: core.ledger_time,
            attempt,
        }
    }
}

impl Decided {
    /// Collects what a folded event says about attempts that a restored database still has. Attempts since are looked up
    /// at the provider, once it is known that they are open.
    pub fn folded_again(&mut self, core: &Core, fact: &Fact, applied: &Applied) {
        let step = step_of(core, fact, applied).filter(|step| matches!(step, Step::End(..)));
        self.steps.extend(step);
    }

    /// Collects the steps that follow from a folded event.
    pub fn folded(&mut self, core: &Core, fact: &Fact, applied: &Applied) {
        self.steps.extend(step_of(core, fact, applied));
        self.want(core);
    }

    /// Collects the step that an account wants next.
    pub fn want(&mut self, core: &Core) {
        if core.top_ups.settings.is_none() {
            return;
        }
        // Stamped with the account's own time, so that every worker writes the same bytes.
        let (event, proposed) = match top_up::want(core) {
            Want::Start(attempt) => {
                let event = top_up::started(&core.account, &attempt, core.ledger_time);
                (event, Some(Proposal::of(core, attempt)))
            }
            Want::Refuse(brake) => (top_up::refused(core, brake, core.ledger_time), None),
            Want::Nothing | Want::Wait(_) | Want::Outcome(_) => return,
        };
        if self.decided.insert((core.account.clone(), event.id.clone())) {
            self.steps.push(match proposed {
                Some(proposal) => Step::Propose(proposal, event),
                None => Step::Refuse(event),
            });
        }
    }
}

fn step_of(core: &Core, fact: &Fact, applied: &Applied) -> Option<Step> {
    let end = |attempt: &AttemptId| Some(Step::End(core.account.clone(), attempt.clone()));
    match (&fact.event.data, applied.outcome) {
        (Data::TopUpStarted(_), Outcome::Applied) => {
            let attempt = core.top_ups.last.clone()?;
            Some(Step::Start(Proposal::of(core, attempt), fact.appended_at))
        }
        (Data::TopUpStarted(start), Outcome::Rejected(reason)) if reason != Reason::ClockJump => {
            end(&start.attempt_id)
        }
        (Data::TopUpFailed(failure), Outcome::Applied) => end(&failure.attempt_id),
        (Data::CreditsToppedUp(paid), Outcome::Applied) => end(&paid.attempt_id),
        // The payment is credited already, as a purchase. A repeated report of the credit is a duplicate of the refused
        // one.
        (Data::CreditsToppedUp(paid), refused) if core.top_ups.has_open(&paid.attempt_id) => {
            let reason = match refused {
                Outcome::Rejected(reason) => reason.code(),
                other @ (Outcome::Applied | Outcome::Duplicate | Outcome::Conflict) => other.as_str(),
            };
            Some(Step::Park(Refused {
                account: core.account.clone(),
                attempt: paid.attempt_id.clone(),
                payment: paid.payment_id.clone(),
                reason,
            }))
        }
        _ => None,
    }
}
