//! Paper: the demo's own arithmetic, from the input alone, to hold the ledger's answers to.
//!
//! A second, smaller ledger with three buckets instead of lots. It is right for the demo's stories only: gifts never
//! expire, plan credits are spent first, then gifts, then what was bought.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use ledger_core::value::credits::{Credits, OutOfRange};
use ledger_core::value::time::Time;

use super::prices::Meter;
use super::scenario::{Action, Rollover, Scenario, Step};
use super::workload::Item;

/// Sums of some usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// What it cost.
    pub credits: Credits,
    /// How many events.
    pub events: u64,
}

impl Sum {
    /// Adds another's.
    pub fn add(&mut self, other: Sum) -> Result<(), OutOfRange> {
        self.credits = self.credits.plus(other.credits)?;
        self.events += other.events;
        Ok(())
    }
}

/// Category, tier and model of usage; the last two empty where it has none.
pub type Kind = (String, String, String);

/// What one account must look like at the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Paper {
    /// All usage.
    pub total: Sum,
    /// Usage by user.
    pub users: BTreeMap<String, Sum>,
    /// Usage by kind.
    pub kinds: BTreeMap<Kind, Sum>,
    /// Every period, by its number.
    pub periods: BTreeMap<i64, Period>,
    /// What may still be spent; negative where more was used.
    pub settled: Credits,
    /// What of it was bought.
    pub bought: Credits,
}

/// What happened in one period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    /// The balance at its first instant.
    pub opened_with: Credits,
    /// What was bought and given in it, less what was paid back.
    pub added: Credits,
    /// What was used.
    pub used: Credits,
    /// What expired in it or at its end.
    pub expired: Credits,
    /// What went on from it into the next.
    pub rolled_over: Credits,
}

/// What is left, by what becomes of it.
#[derive(Debug, Default)]
struct Buckets {
    plan: Credits,
    gifts: Credits,
    bought: Credits,
    overdraft: Credits,
}

impl Buckets {
    fn take(&mut self, amount: Credits) -> Result<(), OutOfRange> {
        let mut left = amount;
        for bucket in [&mut self.plan, &mut self.gifts, &mut self.bought] {
            let part = left.min(*bucket);
            *bucket = bucket.minus(part)?;
            left = left.minus(part)?;
        }
        self.overdraft = self.overdraft.plus(left)?;
        Ok(())
    }

    /// Repays overdraft first and returns what is left to give.
    fn repay(&mut self, amount: Credits) -> Result<Credits, OutOfRange> {
        let part = amount.min(self.overdraft);
        self.overdraft = self.overdraft.minus(part)?;
        amount.minus(part)
    }

    fn settled(&self) -> Result<Credits, OutOfRange> {
        self.plan.plus(self.gifts)?.plus(self.bought)?.minus(self.overdraft)
    }
}

/// Works out what an account must look like.
pub fn work_out(scenario: &Scenario) -> Result<Paper> {
    let mut sheet = Sheet::new(scenario)?;
    for step in scenario.steps()? {
        sheet.roll(step.at())?;
        match step {
            Step::Http(_, items) | Step::Kafka(_, items) => sheet.use_up(&items)?,
            Step::Act(_, action) => sheet.act(action)?,
            Step::End(_) => {}
        }
    }
    sheet.finish()
}

/// The sheet while it is being filled.
struct Sheet<'a> {
    scenario: &'a Scenario,
    buckets: Buckets,
    allowance: Credits,
    allowance_next: Credits,
    period: i64,
    paper: Paper,
    reversed: BTreeSet<&'a str>,
}

impl<'a> Sheet<'a> {
    fn new(scenario: &'a Scenario) -> Result<Sheet<'a>> {
        let allowance = scenario.plan.allowance;
        let buckets = Buckets { plan: allowance, ..Buckets::default() };
        let period = scenario.first_period;
        let mut paper = Paper::default();
        paper.periods.insert(period, Period { opened_with: allowance, ..Period::default() });
        let reversed = BTreeSet::new();
        Ok(Sheet { scenario, buckets, allowance, allowance_next: allowance, period, paper, reversed })
    }

    /// Crosses every boundary up to a time.
    fn roll(&mut self, to: Time) -> Result<()> {
        let index = self.scenario.period_at(to)?;
        while self.period < index {
            self.cross()?;
        }
        Ok(())
    }

    fn cross(&mut self) -> Result<()> {
        let unused = self.buckets.plan;
        let rolled = match self.scenario.plan.rollover {
            Rollover::None => Credits::ZERO,
            Rollover::Capped(cap) => unused.min(cap),
        };
        let mut expired = unused.minus(rolled)?;
        if self.scenario.plan.packs_reset {
            expired = expired.plus(std::mem::take(&mut self.buckets.bought))?;
        }
        let closing = self.open_period();
        closing.rolled_over = rolled;
        closing.expired = expired;
        self.period += 1;
        self.open_period();
        self.allowance = self.allowance_next;
        let arrived = self.buckets.repay(self.allowance)?;
        self.buckets.plan = rolled.plus(arrived)?;
        self.open_period().opened_with = self.buckets.settled()?;
        Ok(())
    }

    fn open_period(&mut self) -> &mut Period {
        self.paper.periods.entry(self.period).or_default()
    }

    fn use_up(&mut self, items: &[&'a Item]) -> Result<()> {
        for item in items {
            self.buckets.take(item.credits)?;
            let period = self.open_period();
            period.used = period.used.plus(item.credits)?;
        }
        Ok(())
    }

    fn act(&mut self, action: &Action) -> Result<()> {
        let period = self.open_period();
        match action {
            Action::Purchase { amount, .. } | Action::Grant { amount, .. } => {
                period.added = period.added.plus(*amount)?;
            }
            Action::Refund { amount, .. } => period.added = period.added.minus(*amount)?,
            Action::ReverseFirstSince(_) | Action::AllowanceFromNextPeriod(_) => {}
        }
        match action {
            Action::Purchase { amount, .. } => {
                let left = self.buckets.repay(*amount)?;
                self.buckets.bought = self.buckets.bought.plus(left)?;
            }
            // The payment has that much left: nothing else is touched.
            Action::Refund { amount, .. } => self.buckets.bought = self.buckets.bought.minus(*amount)?,
            Action::Grant { amount, .. } => {
                let left = self.buckets.repay(*amount)?;
                self.buckets.gifts = self.buckets.gifts.plus(left)?;
            }
            Action::ReverseFirstSince(since) => self.take_back(*since)?,
            Action::AllowanceFromNextPeriod(allowance) => self.allowance_next = *allowance,
        }
        Ok(())
    }

    /// Gives an event's credits back to the plan credits of its own period, which it came from.
    fn take_back(&mut self, since: Time) -> Result<()> {
        let item = self.scenario.reversed(since).context("there is an event to reverse")?;
        self.buckets.plan = self.buckets.plan.plus(item.credits)?;
        let period = self.open_period();
        period.used = period.used.minus(item.credits)?;
        self.reversed.insert(&item.id);
        Ok(())
    }

    fn finish(mut self) -> Result<Paper> {
        for item in &self.scenario.items {
            if !self.reversed.contains(item.id.as_str()) {
                count(&mut self.paper, item)?;
            }
        }
        self.paper.settled = self.buckets.settled()?;
        self.paper.bought = self.buckets.bought;
        Ok(self.paper)
    }
}

fn count(paper: &mut Paper, item: &Item) -> Result<(), OutOfRange> {
    let user = paper.users.entry(item.user.to_string()).or_default();
    let kind = paper.kinds.entry(kind(item.meter)).or_default();
    for sum in [&mut paper.total, user, kind] {
        sum.add(Sum { credits: item.credits, events: 1 })?;
    }
    Ok(())
}

fn kind(meter: &Meter) -> Kind {
    let (tier, model) = meter.model.map_or(("", ""), |model| (model.tier, model.name));
    (meter.category.into(), tier.into(), model.into())
}

#[cfg(test)]
mod tests {
    use super::super::{scenario, trace};
    use super::*;

    fn check(suffix: &str, settled: &str, periods: &[(&str, &str, &str)]) {
        let scenarios = scenario::all("demo", &trace::calls().expect("the trace reads")).expect("scenarios");
        let scenario = scenarios.iter().find(|scenario| scenario.id == format!("demo-{suffix}")).expect("it");
        let paper = work_out(scenario).expect("a sheet");
        let shown: Vec<(String, String, String)> = paper
            .periods
            .values()
            .map(|p| (p.used.to_string(), p.expired.to_string(), p.rolled_over.to_string()))
            .collect();
        let shown: Vec<(&str, &str, &str)> =
            shown.iter().map(|(u, e, r)| (u.as_str(), e.as_str(), r.as_str())).collect();
        assert_eq!(shown, periods, "{suffix}");
        assert_eq!(paper.settled.to_string(), settled, "{suffix}");
    }

    // The sums of usage were made once by a program in another language.

    #[test]
    fn a_monthly_allowance_without_rollover_starts_afresh() {
        check(
            "team",
            "1796.039965",
            &[
                ("314.53068", "1185.46932", "0"),
                ("1439.186115", "60.813885", "0"),
                ("786.31158", "713.68842", "0"),
                ("203.960035", "0", "0"),
            ],
        );
    }

    #[test]
    fn capped_rollover_keeps_the_cap_and_no_more() {
        check(
            "monthly",
            "123.37034",
            &[
                ("38.233405", "11.766595", "50"),
                ("158.15185", "0", "0"),
                ("68.4284", "0", "31.5716"),
                ("25.04941", "0", "0"),
            ],
        );
        check("yearly", "1709.64264", &[("197.599675", "402.400325", "600"), ("100.35736", "0", "0")]);
    }

    #[test]
    fn a_wallet_keeps_what_was_bought() {
        check(
            "wallet",
            "11.72743405",
            &[("2.31937705", "0", "0"), ("2.3539939", "0", "0"), ("0.599195", "0", "0")],
        );
    }
}
