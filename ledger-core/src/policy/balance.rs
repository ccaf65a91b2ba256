//! An account's figures, in the admins' view.

use schemars::JsonSchema;
use serde::Serialize;

use crate::account::Core;
use crate::account::lot::{Lot, LotCategory};
use crate::event::{LotSource, Price};
use crate::value::credits::{Credits, add, sub};
use crate::value::id::GrantId;
use crate::value::period::Period;
use crate::value::time::Time;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "BalanceStatus")]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Available is 0 or less.
    Depleted,
    /// Bought credits are at or below the low-balance threshold.
    Low,
    Active,
}

/// Figures of an account at one position of the journal, in the account's unit.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Balance {
    /// Remaining credits minus overdraft.
    pub settled: Credits,
    pub held: Credits,
    /// Settled minus held.
    pub available: Credits,
    /// What remains of paid lots.
    pub credit_balance: Credits,
    pub overdraft: Credits,
    pub allowance: Credits,
    pub rollover: Credits,
    /// Credits carried in plus credits added in the period.
    pub period_maximum: Credits,
    /// Usage of the period, net of reversals.
    pub used: Credits,
    /// As a percentage of the maximum; null if that is 0 or less.
    pub percent_used: Option<Credits>,
    /// As a percentage of the maximum; null if that is 0 or less.
    pub percent_remaining: Option<Credits>,
    pub status: Status,
    /// Purchases and top-ups, gross of refunds.
    pub lifetime_added: Credits,
    /// Usage drawn from paid lots.
    pub lifetime_spent: Credits,
    pub period: Period,
    /// Open lots with credits left: in burn order, then those yet to start.
    pub lots: Vec<LotView>,
}

/// The admins' view of a lot.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Lot")]
#[allow(missing_docs, reason = "as in `Lot`")]
pub struct LotView {
    pub grant_id: GrantId,
    pub source: LotSource,
    pub category: LotCategory,
    pub amount: Credits,
    pub remaining: Credits,
    pub priority: i32,
    pub effective_at: Time,
    pub expires_at: Option<Time>,
    /// The money paid for it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
}

impl From<&Lot> for LotView {
    fn from(lot: &Lot) -> Self {
        Self {
            grant_id: lot.grant_id.clone(),
            source: lot.source,
            category: lot.category(),
            amount: lot.amount,
            remaining: lot.remaining,
            priority: lot.priority,
            effective_at: lot.effective_at,
            expires_at: lot.expires_at,
            price: lot.price.clone(),
        }
    }
}

impl Balance {
    /// Returns an account's figures, with `held` in open holds.
    pub fn of(core: &Core, held: Credits) -> Self {
        let settled = core.settled();
        let available = sub(settled, held);
        let credit_balance = core.lots.paid();
        let maximum = core.figures.maximum();
        Self {
            settled,
            held,
            available,
            credit_balance,
            overdraft: core.overdraft.total(),
            allowance: core.plan.allowance,
            rollover: core.lots.rolled_over(),
            period_maximum: maximum,
            used: core.figures.used,
            percent_used: core.figures.used.percent_of(maximum),
            percent_remaining: settled.max(Credits::ZERO).percent_of(maximum),
            status: status(available, credit_balance, low_line(core)),
            lifetime_added: add(core.totals.purchased, core.totals.topped_up),
            lifetime_spent: core.totals.spent,
            period: core.period,
            lots: core.lots.iter().map(LotView::from).collect(),
        }
    }
}

/// Returns the threshold at or below which bought credits are low, for the status and the notice:
/// auto top-up's threshold while that is enabled, otherwise the account's own.
pub fn low_line(core: &Core) -> Option<Credits> {
    core.top_ups.line().or(core.low_balance_threshold)
}

fn status(available: Credits, credit_balance: Credits, line: Option<Credits>) -> Status {
    if !available.is_positive() {
        Status::Depleted
    } else if line.is_some_and(|line| credit_balance <= line) {
        Status::Low
    } else {
        Status::Active
    }
}
