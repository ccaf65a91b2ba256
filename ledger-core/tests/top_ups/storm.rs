//! Storms: events in any order; brakes hold, one charge is one credit, and a replay charges nothing.
//!
//! A worker that lags, stops and folds anew from the beginning, an outbox that relays late and twice, and a provider that
//! declines, charges without an answer, or does not answer at all. The brakes are counted anew from what applied.
#![allow(clippy::unwrap_used, reason = "as in the tests of a crate")]

use std::collections::{BTreeMap, BTreeSet};

use ledger_core::account::top_up::Attempt;
use ledger_core::event::{Data, Event};
use ledger_core::fold::memory::Memory;
use ledger_core::fold::{Applied, Fact, Outcome, Reason};
use ledger_core::policy::top_up::{self, Want};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, AttemptId, PaymentId, Text};
use proptest::prelude::*;

use crate::story::{ACCOUNT, Story};

const PAYS: [&str; 4] = ["pm_ok", "pm_fail", "pm_timeout", "pm_down"];

#[derive(Debug, Clone)]
enum Step {
    Use {
        credits: u32,
    },
    Buy {
        amount: u32,
    },
    Save {
        on: bool,
        basis: bool,
        threshold: u32,
        amount: u32,
        most: u32,
        most_amount: Option<u32>,
    },
    Wait {
        hours: u32,
    },
    /// The worker folds so many events more.
    Fold {
        events: u32,
    },
    /// The outbox appends what waits, also what it has appended before.
    Relay {
        again: bool,
    },
    /// The provider is requested to charge every attempt that has started.
    Call {
        pays: usize,
    },
    /// The worker folds everything again, as a new generation.
    Rebuild,
    /// The provider reports every charge by itself, as webhooks do.
    Webhooks,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..60_u32).prop_map(|credits| Step::Use { credits }),
        1 => (1..50_u32).prop_map(|amount| Step::Buy { amount }),
        2 => (prop::bool::weighted(0.9), any::<bool>(), 0..20_u32, 20..60_u32, 1..5_u32, prop::option::of(20..200_u32))
            .prop_map(|(on, basis, threshold, amount, most, most_amount)| {
                Step::Save { on, basis, threshold, amount, most, most_amount }
            }),
        2 => (1..400_u32).prop_map(|hours| Step::Wait { hours }),
        8 => (1..6_u32).prop_map(|events| Step::Fold { events }),
        6 => any::<bool>().prop_map(|again| Step::Relay { again }),
        6 => (0..PAYS.len()).prop_map(|pays| Step::Call { pays }),
        1 => Just(Step::Rebuild),
        1 => Just(Step::Webhooks),
    ]
}

/// What survives the worker: what it has decided, and how far that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Proposed,
    Started,
    Ended,
}

#[derive(Default)]
struct World {
    story: Option<Story>,
    attempts: BTreeMap<AttemptId, (State, Attempt)>,
    outbox: Vec<Event>,
    relayed: usize,
    worker: Memory,
    folded: usize,
    /// What is below was acted on before: folding it again does nothing.
    acted: usize,
    /// The provider's own records, by idempotency key.
    charged: BTreeMap<AttemptId, Credits>,
    declined: BTreeSet<AttemptId>,
}

impl World {
    fn new() -> Self {
        let mut story = Story::new();
        story.play(r#"plan 0 "cycle":"weekly""#);
        Self { story: Some(story), ..Self::default() }
    }

    fn story(&mut self) -> &mut Story {
        self.story.as_mut().expect("a story is being played")
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Use { credits } => drop(self.story().play(&format!("use {credits}"))),
            Step::Buy { amount } => {
                let number = self.story().facts.len();
                self.story().play(&format!("buy b{number} {amount}"));
            }
            Step::Save { on, basis, threshold, amount, most, most_amount } => {
                let basis = if *basis { "credit_balance" } else { "available_balance" };
                let most_amount = most_amount.map_or("null".into(), |most| format!("\"{most}\""));
                let body = format!(
                    r#"{{"enabled":{on},"basis":"{basis}","threshold":"{threshold}","amount":"{amount}","payment_method":"pm",
                        "max_per_period":{most},"max_amount_per_period":{most_amount}}}"#
                );
                let number = self.story().facts.len();
                self.story().event(&format!("e{number}"), "ledger.auto_top_up.set.v1", &body);
            }
            Step::Wait { hours } => {
                let story = self.story();
                story.now = story.now.plus_seconds(i64::from(*hours) * 3_600);
                story.play("tick");
            }
            Step::Fold { events } => (0..*events).for_each(|_| self.fold_next()),
            Step::Relay { again } => self.relay(*again),
            Step::Call { pays } => self.call(PAYS[*pays]),
            Step::Rebuild => {
                self.worker = Memory::default();
                self.folded = 0;
            }
            Step::Webhooks => self.webhooks(),
        }
    }

    fn append(&mut self, event: Event) {
        self.story().push_from(event.source.as_str(), event.id.as_str(), event.data);
    }

    fn relay(&mut self, again: bool) {
        let from = if again { 0 } else { self.relayed };
        let waiting: Vec<Event> = self.outbox[from..].to_vec();
        waiting.into_iter().for_each(|event| self.append(event));
        self.relayed = self.outbox.len();
    }

    fn fold_next(&mut self) {
        let next = self.folded;
        let Some(fact) = self.story().facts.get(next).cloned() else { return };
        self.folded += 1;
        let applied = self.worker.fold(std::slice::from_ref(&fact)).remove(0);
        if self.folded > self.acted {
            self.acted = self.folded;
            self.act(&fact, &applied);
        }
    }

    /// What the worker's transaction does in addition to its fold.
    fn act(&mut self, fact: &Fact, applied: &Applied) {
        match (&fact.event.data, applied.outcome) {
            (Data::TopUpStarted(start), Outcome::Applied) => {
                self.become_state(&start.attempt_id, State::Started)
            }
            (Data::TopUpStarted(start), Outcome::Rejected(Reason::TopUpNotDue)) => {
                self.become_state(&start.attempt_id, State::Ended);
            }
            (Data::TopUpFailed(failure), Outcome::Applied) => {
                self.become_state(&failure.attempt_id, State::Ended)
            }
            (Data::CreditsToppedUp(paid), Outcome::Applied) => {
                self.become_state(&paid.attempt_id, State::Ended)
            }
            _ => {}
        }
        let core = self.worker.accounts[&AccountId::new(ACCOUNT).unwrap()].core.clone().expect("open");
        match top_up::want(&core) {
            Want::Start(attempt) if !self.attempts.contains_key(&attempt.attempt_id) => {
                self.outbox.push(top_up::started(&core.account, &attempt, core.ledger_time));
                self.attempts.insert(attempt.attempt_id.clone(), (State::Proposed, attempt));
            }
            Want::Refuse(brake) => {
                let event = top_up::refused(&core, brake, core.ledger_time);
                if self.outbox.iter().all(|other| other.id != event.id) {
                    self.outbox.push(event);
                }
            }
            Want::Start(_) | Want::Nothing | Want::Outcome(_) | Want::Wait(_) => {}
        }
    }

    fn become_state(&mut self, attempt: &AttemptId, state: State) {
        if let Some(entry) = self.attempts.get_mut(attempt) {
            entry.0 = state;
        }
    }

    fn call(&mut self, pays: &str) {
        let account = AccountId::new(ACCOUNT).unwrap();
        let due: Vec<Attempt> = self
            .attempts
            .values()
            .filter(|(state, _)| *state == State::Started)
            .map(|(_, attempt)| attempt.clone())
            .collect();
        for attempt in due {
            let key = attempt.attempt_id.clone();
            let is_new = !self.charged.contains_key(&key) && !self.declined.contains(&key);
            if is_new && ["pm_ok", "pm_timeout"].contains(&pays) {
                self.charged.insert(key.clone(), attempt.amount);
            }
            if is_new && pays == "pm_fail" {
                self.declined.insert(key.clone());
            }
            if is_new && ["pm_timeout", "pm_down"].contains(&pays) {
                continue;
            }
            let at = self.story().now;
            let event = match self.charged.get(&key) {
                Some(amount) => top_up::succeeded(&account, key.clone(), payment(&key), *amount, None, at),
                None => top_up::failed(&account, key.clone(), Text::new("card_declined").unwrap(), at),
            };
            if self.outbox.iter().all(|other| other.id != event.id) {
                self.outbox.push(event);
            }
        }
    }

    fn webhooks(&mut self) {
        let (account, at) = (AccountId::new(ACCOUNT).unwrap(), self.story().now);
        for (key, amount) in self.charged.clone() {
            self.append(top_up::succeeded(&account, key.clone(), payment(&key), amount, None, at));
        }
    }

    /// Lets everything unfinished end.
    fn settle(&mut self) {
        loop {
            let before = (self.story().facts.len(), self.folded, self.outbox.len());
            (self.folded..self.story().facts.len()).for_each(|_| self.fold_next());
            self.call("pm_ok");
            self.relay(false);
            if before == (self.story().facts.len(), self.folded, self.outbox.len()) {
                return;
            }
        }
    }
}

fn payment(attempt: &AttemptId) -> PaymentId {
    PaymentId::new(&format!("pay-{attempt}")).unwrap()
}

/// Counts anew what the brakes are about, from the events that applied alone.
fn check_brakes(story: &Story) {
    let mut open: Option<AttemptId> = None;
    let (mut most, mut most_amount) = (10, None);
    let mut of_period: BTreeMap<i64, (u32, Credits)> = BTreeMap::new();
    for (fact, applied) in story.facts.iter().zip(&story.applied) {
        if applied.outcome != Outcome::Applied {
            continue;
        }
        match &fact.event.data {
            Data::AutoTopUpSet(settings) => {
                most = settings.max_per_period.expect("given");
                most_amount = settings.max_amount_per_period;
            }
            Data::TopUpStarted(start) => {
                assert_eq!(open, None, "two attempts are open");
                open = Some(start.attempt_id.clone());
                let (count, amount) = of_period.get(&applied.period_index).copied().unwrap_or_default();
                assert!(count < most, "more top-ups than allowed");
                let after = amount.plus(start.amount).unwrap();
                assert!(most_amount.is_none_or(|most| after <= most), "more money than allowed");
            }
            Data::TopUpFailed(_) => open = None,
            Data::CreditsToppedUp(paid) => {
                if open.as_ref() == Some(&paid.attempt_id) {
                    open = None;
                }
                let (count, amount) = of_period.entry(applied.period_index).or_default();
                *count += 1;
                *amount = amount.plus(paid.amount).unwrap();
            }
            Data::AccountOpened(_)
            | Data::AccountChanged(_)
            | Data::AccountClosed(_)
            | Data::UserLimitSet(_)
            | Data::RefundFailed(_)
            | Data::PlanChanged(_)
            | Data::ClockAdvanced(_)
            | Data::UsageRecorded(_)
            | Data::UsageReversed(_)
            | Data::CreditsGranted(_)
            | Data::GrantVoided(_)
            | Data::CreditsAdjusted(_)
            | Data::CreditsPurchased(_)
            | Data::CreditsRefunded(_)
            | Data::PeriodReset(_)
            | Data::LimitsSet(_)
            | Data::OrgAlertSet(_)
            | Data::OrgAlertRemoved(_)
            | Data::UserAlertSet(_)
            | Data::TopUpRefused(_)
            | Data::DisputeOpened(_)
            | Data::DisputeWon(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn a_storm_passes_no_brake_and_one_charge_is_one_credit(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.settle();
        check_brakes(world.story());

        let charged = world.charged.values().fold(Credits::ZERO, |sum, amount| sum.plus(*amount).unwrap());
        let core = world.story().account().core.clone().expect("open");
        prop_assert_eq!(core.totals.topped_up, charged, "one charge, one credit");
        prop_assert!(world.attempts.values().all(|(state, _)| *state != State::Started), "every attempt has ended");

        // Folding it again, as a new generation and as one without stored state, charges nothing and requires the same.
        let (before, book) = (world.outbox.len(), world.charged.clone());
        world.step(&Step::Rebuild);
        world.settle();
        prop_assert_eq!(world.outbox.len(), before);
        prop_assert_eq!(&world.charged, &book);
        let anew = world.worker.accounts[&AccountId::new(ACCOUNT).unwrap()].core.clone().expect("open");
        prop_assert_eq!(anew, core);
    }
}
