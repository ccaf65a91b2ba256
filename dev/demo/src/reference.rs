//! Reference: the demo's own arithmetic, from the input alone, to compare the ledger's answers with.
//!
//! A second, smaller ledger with three buckets instead of lots. It is right for the demo's stories only: grants never
//! expire, plan credits are spent first, then grants, then bought credits.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use ledger_core::value::credits::{Credits, OutOfRange};
use ledger_core::value::time::Time;

use crate::prices::Meter;
use crate::scenario::{Action, Rollover, Scenario, Step};
use crate::workload::Item;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub credits: Credits,
    pub events: u64,
}

impl Sum {
    pub fn add(&mut self, other: Sum) -> Result<(), OutOfRange> {
        self.credits = self.credits.plus(other.credits)?;
        self.events += other.events;
        Ok(())
    }
}

/// Category, tier and model of usage; the last two are empty where there are none.
pub type Kind = (String, String, String);

/// The expected state of one account at the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub total: Sum,
    /// Usage by user.
    pub users: BTreeMap<String, Sum>,
    /// Usage by kind.
    pub kinds: BTreeMap<Kind, Sum>,
    /// Every period, by its number.
    pub periods: BTreeMap<i64, Period>,
    /// The settled balance; negative where usage exceeded the credits.
    pub settled: Credits,
    /// The bought part of it.
    pub bought: Credits,
}

/// The figures of one period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    /// The balance at its first instant.
    pub opened_with: Credits,
    /// What was bought and granted in it, less refunds.
    pub added: Credits,
    pub used: Credits,
    /// What expired in it or at its end.
    pub expired: Credits,
    /// What rolled over into the next.
    pub rolled_over: Credits,
}

/// The remaining credits, by kind.
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

    /// Repays overdraft first and returns the rest.
    fn repay(&mut self, amount: Credits) -> Result<Credits, OutOfRange> {
        let part = amount.min(self.overdraft);
        self.overdraft = self.overdraft.minus(part)?;
        amount.minus(part)
    }

    fn settled(&self) -> Result<Credits, OutOfRange> {
        self.plan.plus(self.gifts)?.plus(self.bought)?.minus(self.overdraft)
    }
}

/// Computes the expected state of an account.
pub fn work_out(scenario: &Scenario) -> Result<Figures> {
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

/// The figures while they are computed.
struct Sheet<'a> {
    scenario: &'a Scenario,
    buckets: Buckets,
    allowance: Credits,
    allowance_next: Credits,
    period: i64,
    figures: Figures,
    reversed: BTreeSet<&'a str>,
}

impl<'a> Sheet<'a> {
    fn new(scenario: &'a Scenario) -> Result<Sheet<'a>> {
        let allowance = scenario.plan.allowance;
        let buckets = Buckets { plan: allowance, ..Buckets::default() };
        let period = scenario.first_period;
        let mut figures = Figures::default();
        figures.periods.insert(period, Period { opened_with: allowance, ..Period::default() });
        let reversed = BTreeSet::new();
        Ok(Sheet { scenario, buckets, allowance, allowance_next: allowance, period, figures, reversed })
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
        self.figures.periods.entry(self.period).or_default()
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
            // The payment has that much left: no other credits are taken.
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

    /// Returns an event's credits to the plan credits of its own period, which they came from.
    fn take_back(&mut self, since: Time) -> Result<()> {
        let item = self.scenario.reversed(since).context("there is an event to reverse")?;
        self.buckets.plan = self.buckets.plan.plus(item.credits)?;
        let period = self.open_period();
        period.used = period.used.minus(item.credits)?;
        self.reversed.insert(&item.id);
        Ok(())
    }

    fn finish(mut self) -> Result<Figures> {
        for item in &self.scenario.items {
            if !self.reversed.contains(item.id.as_str()) {
                count(&mut self.figures, item)?;
            }
        }
        self.figures.settled = self.buckets.settled()?;
        self.figures.bought = self.buckets.bought;
        Ok(self.figures)
    }
}

fn count(figures: &mut Figures, item: &Item) -> Result<(), OutOfRange> {
    let user = figures.users.entry(item.user.to_string()).or_default();
    let kind = figures.kinds.entry(kind(item.meter)).or_default();
    for sum in [&mut figures.total, user, kind] {
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
        let figures = work_out(scenario).expect("a sheet");
        let shown: Vec<(String, String, String)> = figures
            .periods
            .values()
            .map(|p| (p.used.to_string(), p.expired.to_string(), p.rolled_over.to_string()))
            .collect();
        let shown: Vec<(&str, &str, &str)> =
            shown.iter().map(|(u, e, r)| (u.as_str(), e.as_str(), r.as_str())).collect();
        assert_eq!(shown, periods, "{suffix}");
        assert_eq!(figures.settled.to_string(), settled, "{suffix}");
    }

    // A program in another language computed these sums of usage once.

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
