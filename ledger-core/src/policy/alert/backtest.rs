//! Tries a rule on an account's history: what would it have fired?
//!
//! The history is folded again with a [`Backtest`] as observer, which evaluates as the rules in force do.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::figure::org_figure;
use super::users::UserPage;
use crate::account::Core;
use crate::account::limit::Limits;
use crate::event::{Basis, Data, SetLimits};
use crate::fold::{Applied, Moment, Observer};
use crate::value::credits::Credits;
use crate::value::id::{Label, SubjectId, UserId};
use crate::value::time::Time;

/// Most hits that one backtest lists.
pub const HITS_MAX: usize = 10_000;

/// A rule to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// An alert on the account's own figures.
    OrgAlert {
        /// The figure.
        basis: Basis,
        /// Percent or an amount.
        threshold: Credits,
    },
    /// An alert on each user's usage.
    UserAlert {
        /// Usage of the period at which it fires.
        threshold: Credits,
    },
    /// One limit for every user.
    Limit {
        /// Counted usage of the period.
        limit: Credits,
        /// Features whose usage does not count.
        excluded_features: Vec<Label>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "BacktestHit")]
pub struct Hit {
    /// Ledger time.
    pub fired_at: Time,
    pub period_index: i64,
    /// The account or the user.
    pub subject: SubjectId,
    pub figure: Credits,
}

/// The state of a rule tried on one account's history.
#[derive(Debug)]
pub struct Backtest {
    rule: Tried,
    /// The last period seen, and whether the account's own rule has fired in it.
    period_index: Option<i64>,
    fired: bool,
    users: BTreeMap<UserId, UserPage>,
    hits: Vec<Hit>,
    total: u64,
}

#[derive(Debug)]
enum Tried {
    OrgAlert(Basis, Credits),
    UserAlert(Credits),
    Limit(Credits, Limits),
}

impl From<Rule> for Tried {
    fn from(rule: Rule) -> Self {
        match rule {
            Rule::OrgAlert { basis, threshold } => Tried::OrgAlert(basis, threshold),
            Rule::UserAlert { threshold } => Tried::UserAlert(threshold),
            Rule::Limit { limit, excluded_features } => {
                let body = SetLimits {
                    default_limit: Some(limit),
                    excluded_features: Some(excluded_features),
                    ..SetLimits::default()
                };
                Tried::Limit(limit, Limits::of(&body, None))
            }
        }
    }
}

impl Observer for Backtest {
    fn after(&mut self, core: &Core, moment: &Moment<'_>) {
        self.enter(core.period.index);
        let Tried::OrgAlert(basis, threshold) = self.rule else { return };
        if self.fired {
            return;
        }
        if let Some(figure) = org_figure(core, basis, threshold) {
            self.fired = true;
            self.hit(core, moment.at, core.account.as_subject(), figure);
        }
    }
}

impl Backtest {
    /// Starts a backtest; the caller folds the history from the opening, with this as observer.
    pub fn new(rule: Rule) -> Self {
        let rule = Tried::from(rule);
        Self { rule, period_index: None, fired: false, users: BTreeMap::new(), hits: Vec::new(), total: 0 }
    }

    /// Adds an applied event to its user's usage; call it after the fold of the event.
    pub fn usage(&mut self, core: &Core, applied: &Applied) {
        self.enter(core.period.index);
        if matches!(self.rule, Tried::OrgAlert(..)) {
            return;
        }
        let Some(change) = &applied.usage else { return };
        let Data::UsageRecorded(usage) = &change.withdrawal.event.data else { return };
        let Some(user) = &usage.user_id else { return };
        let page = self.users.entry(user.clone()).or_default();
        page.count(usage, change);
        if page.alert_fired > 0 {
            return;
        }
        let figure = match &self.rule {
            Tried::OrgAlert(..) => None,
            Tried::UserAlert(threshold) => page.alert_figure(*threshold),
            Tried::Limit(limit, limits) => page.limit_figure(limits, *limit),
        };
        if let Some(figure) = figure {
            page.alert_fired = 1;
            self.hit(core, core.ledger_time, user.as_subject(), figure);
        }
    }

    /// Returns the rule's firings, in order, at most `HITS_MAX`.
    pub fn hits(&self) -> &[Hit] {
        &self.hits
    }

    /// Returns the number of firings, including those beyond `HITS_MAX`.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn enter(&mut self, period_index: i64) {
        if self.period_index != Some(period_index) {
            self.period_index = Some(period_index);
            self.fired = false;
            self.users.clear();
        }
    }

    fn hit(&mut self, core: &Core, fired_at: Time, subject: SubjectId, figure: Credits) {
        self.total += 1;
        if self.hits.len() < HITS_MAX {
            self.hits.push(Hit { fired_at, period_index: core.period.index, subject, figure });
        }
    }
}
