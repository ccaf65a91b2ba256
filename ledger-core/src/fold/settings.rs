//! Changes of name, plan, limits and alerts.

use super::booking::{Booking, Netting, period_lot_id};
use super::step::{Decision, Step};
use super::{EntryType, Reason};
use crate::account::alert::{ORG_ALERTS_MAX, OrgAlert, UserAlert};
use crate::account::limit::Limits;
use crate::account::{Plan, ReplacedPlan};
use crate::event::{
    ChangeAccount, ChangeAt, ChangePlan, RemoveOrgAlert, ResetPeriod, SetLimits, SetOrgAlert, SetUserAlert,
    SetUserLimit,
};
use crate::fold::pages::Missing;
use crate::value::credits::{Credits, add, sub};

impl Step<'_> {
    pub(super) fn change_account(&mut self, change: &ChangeAccount) -> Result<(), Reason> {
        if let Some(name) = &change.name {
            self.core.name = Some(name.clone());
        }
        if let Some(policy) = change.overdraft {
            self.core.overdraft_policy = policy;
        }
        if let Some(threshold) = change.low_balance_threshold {
            self.core.low_balance_threshold = threshold;
        }
        Ok(())
    }

    /// Changes the plan at once or at the next boundary; in both cases a plan that waited is dropped.
    pub(super) fn change_plan(&mut self, change: &ChangePlan) -> Decision {
        let plan = Plan::of(&change.plan, self.core.plan.schedule.anchor);
        let at_once = change.at.unwrap_or_default() == ChangeAt::Now;
        let same_schedule = plan.schedule == self.core.plan.schedule;
        if at_once && same_schedule && plan.allowance != self.core.plan.allowance {
            self.move_allowance(plan.allowance)?;
        }
        let core = &mut *self.core;
        let by = self.fact.event.id.clone();
        core.replaced_plan = core.next_plan.take().map(|plan| ReplacedPlan { plan, by });
        match (at_once, same_schedule) {
            (true, true) => core.plan = plan,
            // A period keeps its schedule, and with it what is given for it: name, allowance and rollover.
            (true, false) => {
                let Plan { name, schedule, allowance, rollover, .. } = core.plan.clone();
                core.plan = Plan { name, schedule, allowance, rollover, ..plan.clone() };
                core.next_plan = Some(plan);
            }
            (false, _) => core.next_plan = Some(plan),
        }
        Ok(Ok(()))
    }

    /// Gives the open period's plan lot another amount. What has been drawn of it stays drawn, so no order of changes
    /// brings credits twice.
    fn move_allowance(&mut self, allowance: Credits) -> Result<(), Missing> {
        let id = period_lot_id("plan", self.core.period.index);
        self.find_lot(&id)?;
        let mut lot = self.take_lot(&id);
        let left = self.core.allowance_left(allowance);
        let moved = sub(left, lot.remaining);
        lot.amount = allowance;
        lot.remaining = left;
        let mut changes = Netting::default();
        changes.add(&id, lot.source, moved);
        self.keep(lot);
        self.core.figures.added = add(self.core.figures.added, moved);
        self.core.totals.adjusted = add(self.core.totals.adjusted, moved);
        let overdraft = self.settle_into(&mut changes);
        if !moved.is_zero() {
            self.book(EntryType::Adjusted, self.fact.event.id.clone(), changes.into_changes(), overdraft);
        }
        Ok(())
    }

    /// Changes nothing: the fold crosses a boundary before any event at or after it. Errors: the period has not begun.
    pub(super) fn reset(&mut self, reset: &ResetPeriod) -> Result<(), Reason> {
        if reset.index > self.core.period.index { Err(Reason::PeriodNotBegun) } else { Ok(()) }
    }

    pub(super) fn set_limits(&mut self, limits: &SetLimits) -> Result<(), Reason> {
        self.core.limits = Some(Limits::of(limits, self.core.limits.as_ref()));
        Ok(())
    }

    /// Where limits were never set, they count as on, without a default. The limit itself is a row, which no balance needs.
    pub(super) fn set_user_limit(&mut self, set: &SetUserLimit) -> Result<(), Reason> {
        if set.limit.is_some() || self.core.limits.is_some() {
            let never_set = || Limits::of(&SetLimits::default(), None);
            self.core.limits.get_or_insert_with(never_set).own_edits += 1;
        }
        Ok(())
    }

    pub(super) fn set_org_alert(&mut self, alert: &SetOrgAlert) -> Result<(), Reason> {
        let alerts = &mut self.core.org_alerts;
        if alerts.len() >= ORG_ALERTS_MAX && !alerts.contains_key(&alert.alert_id) {
            return Err(Reason::TooManyAlerts);
        }
        alerts.insert(alert.alert_id.clone(), OrgAlert::from(alert));
        Ok(())
    }

    pub(super) fn remove_org_alert(&mut self, removal: &RemoveOrgAlert) -> Result<(), Reason> {
        let removed = self.core.org_alerts.remove(&removal.alert_id);
        removed.map(drop).ok_or(Reason::AlertUnknown)
    }

    pub(super) fn set_user_alert(&mut self, alert: &SetUserAlert) -> Result<(), Reason> {
        self.core.user_alert = Some(UserAlert::of(alert, self.core.user_alert.as_ref()));
        Ok(())
    }
}
