//! Counters: the amounts that a batch adds to users' usage and to the sums by every dimension.
//!
//! Merged in memory and added to the rows, so that any split of the log into batches gives the same rows. A row that
//! reversals bring to zero stays: its existence must not depend on the split.

use std::collections::BTreeMap;

use ledger_core::account::Core;
use ledger_core::event::{Data, Usage};
use ledger_core::fold::UsageChange;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, Label, OrgId, OutsideName, Slug, UserId};
use ledger_core::value::time::Day;

/// The key of a user's counter: usage in a period by feature.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserKey {
    pub account: AccountId,
    pub period_index: i64,
    pub user: UserId,
    pub feature: Option<Label>,
}

impl UserKey {
    /// Returns whether both are of one user in one period, whatever the features.
    pub fn is_of_same_user(&self, other: &UserKey) -> bool {
        (&self.account, self.period_index, &self.user) == (&other.account, other.period_index, &other.user)
    }
}

/// The key of a sum by category alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CategoryKey {
    pub account: AccountId,
    pub period_index: i64,
    pub category: Option<Slug>,
}

/// The growth of a counter; negative if the batch reverses more than it uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Usage minus reversals.
    pub credits: Credits,
    /// Usage events minus reversals.
    pub events: i64,
}

/// The key of a sum by every dimension.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RollupKey {
    pub account: AccountId,
    /// The period it counts in.
    pub period_index: i64,
    /// Of `occurred_at`, in the time zone of that period's schedule.
    pub day: Day,
    /// Dimensions as in the usage.
    pub user: Option<UserId>,
    pub category: Option<Slug>,
    pub tier: Option<Label>,
    pub model: Option<OutsideName>,
    pub feature: Option<Label>,
    pub org: Option<OrgId>,
}

/// The growth of a sum by every dimension.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rollup {
    pub sum: Sum,
    /// Signed change of each quantity.
    pub quantities: BTreeMap<Slug, Credits>,
}

/// The growth of all counters, in the order of the tables' keys.
#[derive(Debug, Default)]
pub struct Counters {
    pub users: BTreeMap<UserKey, Sum>,
    pub categories: BTreeMap<CategoryKey, Sum>,
    pub rollups: BTreeMap<RollupKey, Rollup>,
    /// By every dimension but the user, whom these keys do not name.
    pub days: BTreeMap<RollupKey, Rollup>,
}

impl Counters {
    /// Adds usage, or subtracts a reversed one, with the core after the event.
    ///
    /// A reversal counts here only within the period of its usage, whose schedule is then still in force: so it
    /// computes the same day as the usage.
    pub fn count(&mut self, core: &Core, change: &UsageChange) {
        let withdrawal = &change.withdrawal;
        let Data::UsageRecorded(usage) = &withdrawal.event.data else { return };
        let by = Sum {
            credits: if change.sign < 0 { withdrawal.credits.negated() } else { withdrawal.credits },
            events: change.sign,
        };
        if let Some(user) = &usage.user_id {
            let key = UserKey {
                account: withdrawal.event.account.clone(),
                period_index: withdrawal.period_index,
                user: user.clone(),
                feature: usage.feature.clone(),
            };
            self.users.entry(key).or_default().add(by);
        }
        let key = CategoryKey {
            account: withdrawal.event.account.clone(),
            period_index: withdrawal.period_index,
            category: usage.category.clone(),
        };
        self.categories.entry(key).or_default().add(by);
        let key = RollupKey {
            account: withdrawal.event.account.clone(),
            period_index: withdrawal.period_index,
            day: core.periods.schedule.timezone.local_day(withdrawal.event.occurred_at),
            user: usage.user_id.clone(),
            category: usage.category.clone(),
            tier: usage.tier.clone(),
            model: usage.model.clone(),
            feature: usage.feature.clone(),
            org: usage.org_id.clone(),
        };
        self.days.entry(RollupKey { user: None, ..key.clone() }).or_default().add(by, usage);
        self.rollups.entry(key).or_default().add(by, usage);
    }
}

impl Sum {
    pub fn add(&mut self, by: Sum) {
        self.credits = plus(self.credits, by.credits);
        self.events += by.events;
    }
}

impl Rollup {
    fn add(&mut self, by: Sum, usage: &Usage) {
        self.sum.add(by);
        for (name, quantity) in usage.quantities.iter().flatten() {
            let amount = if by.events < 0 { quantity.amount().negated() } else { quantity.amount() };
            if amount.is_zero() {
                continue;
            }
            let sum = self.quantities.entry(name.clone()).or_default();
            *sum = plus(*sum, amount);
            if sum.is_zero() {
                self.quantities.remove(name);
            }
        }
    }
}

fn plus(a: Credits, b: Credits) -> Credits {
    a.plus(b).expect("a batch's events are too few to leave the range")
}
