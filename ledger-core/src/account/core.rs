//! The account aggregate: what the fold keeps of one account between two events.
//!
//! Small by design. Users, history and used-up lots are pages, which the fold requests (`fold::pages`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::account::alert::{OrgAlert, UserAlert};
use crate::account::limit::{Limits, OwnLimit};
use crate::account::lot::{Lot, Lots};
use crate::account::overdraft::Overdraft;
use crate::account::top_up::TopUps;
use crate::event::{Clock, OnExhausted, OpenAccount, OverdraftPolicy, PackExpiry, PlanBody, Rollover, Unit};
use crate::value::credits::{Credits, add, sub, wide};
use crate::value::id::{AccountId, AlertId, EventId, Label, RateCardId, ReferrerId, Text};
use crate::value::money::Usd;
use crate::value::period::{Period, Periods, Schedule};
use crate::value::time::{Time, Zone};

/// A plan with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub name: Option<Text>,
    pub schedule: Schedule,
    pub allowance: Credits,
    pub rollover: Rollover,
    /// What happens to bought credits at a reset.
    pub pack_expiry: PackExpiry,
    /// What the account may do at zero balance.
    pub on_exhausted: OnExhausted,
    /// With `allow`, the lowest balance below zero; `None` means no bound.
    pub overage_limit: Option<Credits>,
    pub rate_card: Option<RateCardId>,
}

impl Plan {
    /// Fills in the defaults of a plan as sent; `anchor` is used when the plan names none.
    pub fn of(body: &PlanBody, anchor: Time) -> Self {
        Self {
            name: body.name.clone(),
            schedule: Schedule {
                cycle: body.cycle,
                anchor: body.anchor.unwrap_or(anchor),
                timezone: body.timezone.unwrap_or(Zone::UTC),
            },
            allowance: body.allowance,
            rollover: body.rollover.unwrap_or_default(),
            pack_expiry: body.pack_expiry.unwrap_or_default(),
            on_exhausted: body.on_exhausted.unwrap_or_default(),
            overage_limit: body.overage_limit,
            rate_card: body.rate_card.clone(),
        }
    }

    /// Returns the plan as a caller would send it, with every default written out.
    pub fn body(&self) -> PlanBody {
        PlanBody {
            name: self.name.clone(),
            cycle: self.schedule.cycle,
            anchor: Some(self.schedule.anchor),
            timezone: Some(self.schedule.timezone),
            allowance: self.allowance,
            rollover: Some(self.rollover),
            pack_expiry: Some(self.pack_expiry),
            on_exhausted: Some(self.on_exhausted),
            overage_limit: self.overage_limit,
            rate_card: self.rate_card.clone(),
        }
    }
}

/// A waiting plan that never took effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplacedPlan {
    pub plan: Plan,
    /// The change that replaced it.
    pub by: EventId,
}

/// Figures of the open period.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Settled balance at the start of the period, after rollover, expiry and forgiveness.
    #[serde(deserialize_with = "wide")]
    pub carried_in: Credits,
    /// Credits added since then: includes signed adjustments, net of voids and refunds.
    #[serde(deserialize_with = "wide")]
    pub added: Credits,
    /// Usage recorded in the period, net of reversals.
    #[serde(deserialize_with = "wide")]
    pub used: Credits,
    /// Amounts of all lots that started in the period.
    #[serde(deserialize_with = "wide")]
    pub granted: Credits,
    #[serde(deserialize_with = "wide")]
    pub expired: Credits,
}

impl Figures {
    pub fn maximum(&self) -> Credits {
        add(self.carried_in, self.added)
    }
}

/// Lifetime sums by entry type; they always add up to the settled balance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the entry types")]
pub struct Totals {
    #[serde(deserialize_with = "wide")]
    pub granted: Credits,
    #[serde(deserialize_with = "wide")]
    pub purchased: Credits,
    #[serde(deserialize_with = "wide")]
    pub topped_up: Credits,
    #[serde(deserialize_with = "wide")]
    pub rolled_in: Credits,
    /// Net of reversals.
    #[serde(deserialize_with = "wide")]
    pub consumed: Credits,
    #[serde(deserialize_with = "wide")]
    pub expired: Credits,
    #[serde(deserialize_with = "wide")]
    pub rolled_out: Credits,
    #[serde(deserialize_with = "wide")]
    pub voided: Credits,
    #[serde(deserialize_with = "wide")]
    pub refunded: Credits,
    /// Signed.
    #[serde(deserialize_with = "wide")]
    pub adjusted: Credits,
    /// Usage drawn from paid lots.
    #[serde(deserialize_with = "wide")]
    pub spent: Credits,
    /// Sum of every amount ever booked, whatever its sign; bounds all other sums.
    #[serde(deserialize_with = "wide")]
    pub turnover: Credits,
}

/// The end of an account: nothing resets, fires or is charged any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// Ledger time of the closing.
    pub at: Time,
    pub reason: Text,
}

/// The state of one account, without its pages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Core {
    pub account: AccountId,
    pub name: Option<Text>,
    pub unit: Unit,
    /// Value of one unit.
    pub usd_per_unit: Option<Usd>,
    /// Source of its ledger time.
    pub clock: Clock,
    /// What happens to overdraft at a reset.
    pub overdraft_policy: OverdraftPolicy,
    /// Threshold of the low-balance notice and of status `low`.
    pub low_balance_threshold: Option<Credits>,
    /// Limits on each user's usage, without users' own; `None` if never set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub org_alerts: BTreeMap<AlertId, OrgAlert>,
    /// The alert on each user's usage; `None` if never set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_alert: Option<UserAlert>,
    #[serde(default, skip_serializing_if = "TopUps::is_untouched")]
    pub top_ups: TopUps,
    pub referred_by: Option<ReferrerId>,
    /// Ledger time of its opening.
    pub opened_at: Time,
    /// `None` while the account is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Closing>,
    pub ledger_time: Time,
    /// The plan in force.
    pub plan: Plan,
    /// The plan that takes effect at the next boundary.
    pub next_plan: Option<Plan>,
    /// The waiting plan that the last change of the plan replaced, if one was waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_plan: Option<ReplacedPlan>,
    /// The schedule in force with its numbering.
    pub periods: Periods,
    pub period: Period,
    pub figures: Figures,
    /// Credits drawn from the open period's plan lot, less what reversals returned to it. It may exceed an allowance that was
    /// lowered.
    #[serde(deserialize_with = "wide")]
    pub allowance_drawn: Credits,
    pub totals: Totals,
    pub overdraft: Overdraft,
    pub events: u64,
    /// Open lots with credits left; stored in a table of their own.
    #[serde(skip)]
    pub lots: Lots,
}

impl Core {
    /// Opens an account at ledger time `now`, without its allowance yet.
    pub fn open(account: AccountId, opening: &OpenAccount, now: Time) -> Self {
        let plan = Plan::of(&opening.plan, now);
        let periods = Periods::new(plan.schedule);
        let unit = opening.unit.unwrap_or_default();
        let usd_default = (unit == Unit::Usd).then_some(Usd::ONE);
        Self {
            account,
            name: opening.name.clone(),
            unit,
            usd_per_unit: opening.usd_per_unit.or(usd_default),
            clock: opening.clock.unwrap_or_default(),
            overdraft_policy: opening.overdraft.unwrap_or_default(),
            low_balance_threshold: opening.low_balance_threshold,
            limits: None,
            org_alerts: BTreeMap::new(),
            user_alert: None,
            top_ups: TopUps::default(),
            referred_by: opening.referred_by.clone(),
            opened_at: now,
            closed: None,
            ledger_time: now,
            period: periods.at(now),
            plan,
            next_plan: None,
            replaced_plan: None,
            periods,
            figures: Figures::default(),
            allowance_drawn: Credits::ZERO,
            totals: Totals::default(),
            overdraft: Overdraft::default(),
            events: 0,
            lots: Lots::default(),
        }
    }

    /// Restores the open lots after the core was read without them.
    pub fn with_lots(mut self, lots: impl IntoIterator<Item = Lot>) -> Self {
        for lot in lots {
            self.lots.insert(lot, self.ledger_time);
        }
        self
    }

    /// Returns the settled balance: remaining credits minus overdraft.
    pub fn settled(&self) -> Credits {
        sub(self.lots.drawable(), self.overdraft.total())
    }

    /// Returns the boundary that ends the open period; `None` beyond the representable times, and once the account is
    /// closed: its last period stays open.
    pub fn next_boundary(&self) -> Option<Time> {
        (self.closed.is_none() && self.period.ends_at < Time::MAX).then_some(self.period.ends_at)
    }

    /// Returns the next instant at which time alone changes the account; `None` beyond the representable times.
    pub fn next_crossing(&self) -> Option<Time> {
        let boundary = self.next_boundary();
        match (boundary, self.lots.next_crossing()) {
            (Some(boundary), Some(lot)) => Some(boundary.min(lot)),
            (boundary, lot) => boundary.or(lot),
        }
    }

    /// Returns whether time alone changes the account up to `until`.
    pub fn crosses(&self, until: Time) -> bool {
        self.next_crossing().is_some_and(|at| at <= until)
    }

    /// Returns when the waiting plan takes effect; `None` if no plan waits.
    pub fn next_plan_at(&self) -> Option<Time> {
        self.next_plan.as_ref().map(|_| self.period.ends_at)
    }

    /// Returns what remains of a plan lot of this amount, after what has been drawn of it.
    pub fn allowance_left(&self, amount: Credits) -> Credits {
        sub(amount, self.allowance_drawn).max(Credits::ZERO)
    }

    /// Returns the period after the open one, under the plan that will be in force then.
    pub fn next_period(&self) -> (Periods, Period) {
        let schedule = self.next_plan.as_ref().unwrap_or(&self.plan).schedule;
        if schedule == self.periods.schedule {
            (self.periods, self.periods.next(&self.period))
        } else {
            self.periods.changed_at(&self.period, schedule)
        }
    }

    /// Returns how many boundaries, lot starts and lot ends a move to `until` crosses, counted up to the limit of one
    /// move without walking through them.
    pub fn crossings_until(&self, until: Time) -> i64 {
        let lots = i64::try_from(self.lots.crossings_until(until)).unwrap_or(i64::MAX);
        lots.saturating_add(self.boundaries_until(until))
    }

    fn boundaries_until(&self, until: Time) -> i64 {
        if self.closed.is_some() {
            return 0;
        }
        let next = self.next_plan.as_ref().unwrap_or(&self.plan);
        if next.schedule == self.periods.schedule {
            return self.periods.crossings_until(&self.period, until);
        }
        if until < self.period.ends_at {
            return 0;
        }
        let (periods, period) = self.periods.changed_at(&self.period, next.schedule);
        periods.crossings_until(&period, until).saturating_add(1)
    }

    /// Returns the effective limit of a user with this stored limit of their own; `None` if there is none or limits are
    /// disabled.
    pub fn limit_of(&self, own: Option<&OwnLimit>) -> Option<Credits> {
        let limits = self.limits.as_ref().filter(|limits| limits.enabled)?;
        limits.limit_of(limits.own(own))
    }

    /// Returns the part of a user's usage of the open period that counts toward a limit, even if limits are disabled.
    pub fn counted<'a>(
        &self,
        used: Credits,
        by_feature: impl IntoIterator<Item = (&'a Label, &'a Credits)>,
    ) -> Credits {
        self.limits.as_ref().map_or(used, |limits| limits.counted(used, by_feature))
    }

    /// Returns whether a user's counted usage has reached their limit: they are blocked and over budget.
    pub fn is_blocked(&self, own: Option<&OwnLimit>, counted: Credits) -> bool {
        self.limit_of(own).is_some_and(|limit| counted >= limit)
    }

    /// Returns the settled balance that the conservation law requires.
    pub fn conserved(&self) -> Credits {
        let totals = &self.totals;
        let added = [totals.granted, totals.purchased, totals.topped_up, totals.rolled_in, totals.adjusted];
        let taken = [totals.consumed, totals.expired, totals.rolled_out, totals.voided, totals.refunded];
        let added = added.into_iter().fold(Credits::ZERO, add);
        taken.into_iter().fold(added, sub)
    }
}

/// The core with its lots: what a snapshot stores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub core: Core,
    pub lots: Vec<Lot>,
}

impl From<&Core> for Snapshot {
    fn from(core: &Core) -> Self {
        Self {
            lots: core.lots.iter().cloned().collect(),
            core: Core { lots: Lots::default(), ..core.clone() },
        }
    }
}

impl From<Snapshot> for Core {
    fn from(snapshot: Snapshot) -> Self {
        snapshot.core.with_lots(snapshot.lots)
    }
}
