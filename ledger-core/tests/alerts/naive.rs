//! A naive model of sections 8 and 9 of the contract, written from their text: after every moment it evaluates every
//! rule and every user anew, from everything that ever happened, and fires what is not in the set of earlier firings.
//! Balances are the fold's own; other tests check those.

use std::collections::{BTreeMap, BTreeSet};

use ledger_core::account::Core;
use ledger_core::event::{Basis, Data, SetLimits, Usage};
use ledger_core::fold::{Applied, Fact, Outcome, Reason, roll_to};
use ledger_core::value::time::Time;

const CREDIT: i128 = 1_000_000_000;

/// The figures of the account at one moment.
struct Moment {
    settled: i128,
    bought: i128,
    line: Option<i128>,
    adds: bool,
}

struct Used {
    source_and_id: String,
    user: String,
    feature: Option<String>,
    credits: i128,
    period: i64,
    reversed: bool,
}

impl Used {
    /// Usage by nobody counts for no user.
    fn of(fact: &Fact, usage: &Usage, period: i64) -> Option<Used> {
        Some(Used {
            source_and_id: format!("{} {}", fact.event.source, fact.event.id),
            user: usage.user_id.as_ref()?.to_string(),
            feature: usage.feature.as_ref().map(ToString::to_string),
            credits: usage.credits.expect("credits").units(),
            period,
            reversed: false,
        })
    }
}

/// A rule's name, its threshold version, its subject and the period.
type Fired = (String, u32, String, i64);

#[derive(Default)]
pub struct Naive {
    moments: Vec<Moment>,
    usage: Vec<Used>,
    alerts: BTreeMap<String, (Basis, i128, u32)>,
    last_version: BTreeMap<String, u32>,
    user_alert: Option<(bool, Option<i128>)>,
    user_alert_version: u32,
    /// Every setting of limits, with its period.
    limits: Vec<(i64, SetLimits)>,
    fired: BTreeSet<Fired>,
    counts: BTreeMap<&'static str, u32>,
    last_depleted: Option<usize>,
    last_again: Option<usize>,
    /// `kind alert subject threshold version period figure at event`; the event is `*` at a crossing.
    pub firings: Vec<String>,
}

impl Naive {
    /// Takes one event with the account before and after it.
    pub fn play(&mut self, before: Option<&Core>, after: Option<&Core>, fact: &Fact, applied: &Applied) {
        let Some(after) = after else { return };
        let mut added = None;
        if let Some(before) = before
            && applied.outcome != Outcome::Rejected(Reason::ClockJump)
        {
            let mut rolled = before.clone();
            self.cross(&mut rolled, fact.event.recorded_at);
            added = Some(rolled.figures.added);
        }
        let mut adds = false;
        if applied.outcome == Outcome::Applied {
            self.learn(fact, applied, after.period.index);
            adds = match &fact.event.data {
                Data::AccountOpened(_) | Data::CreditsPurchased(_) => true,
                Data::CreditsGranted(grant) => {
                    grant.effective_at.is_none_or(|from| from <= after.ledger_time)
                }
                Data::CreditsAdjusted(adjustment) => adjustment.amount.is_positive(),
                Data::PlanChanged(_) => Some(after.figures.added) > added,
                Data::AccountChanged(_)
                | Data::AccountClosed(_)
                | Data::UserLimitSet(_)
                | Data::RefundFailed(_)
                | Data::ClockAdvanced(_)
                | Data::UsageRecorded(_)
                | Data::UsageReversed(_)
                | Data::GrantVoided(_)
                | Data::CreditsRefunded(_)
                | Data::PeriodReset(_)
                | Data::LimitsSet(_)
                | Data::OrgAlertSet(_)
                | Data::OrgAlertRemoved(_)
                | Data::UserAlertSet(_)
                | Data::AutoTopUpSet(_)
                | Data::TopUpStarted(_)
                | Data::TopUpFailed(_)
                | Data::TopUpRefused(_)
                | Data::CreditsToppedUp(_)
                | Data::DisputeOpened(_)
                | Data::DisputeWon(_) => false,
            };
        }
        self.evaluate(after, after.ledger_time, fact.event.id.as_str(), adds);
    }

    /// Evaluates after every crossing; no two of a history fall on one instant.
    fn cross(&mut self, core: &mut Core, until: Time) {
        while let Some(at) = core.next_crossing().filter(|at| *at <= until) {
            let starts =
                core.lots.iter().any(|lot| core.lots.is_waiting(&lot.grant_id) && lot.effective_at == at);
            let period = core.period.index;
            roll_to(core, at);
            let adds = starts || core.period.index != period;
            self.evaluate(core, at, "*", adds);
        }
    }

    fn learn(&mut self, fact: &Fact, applied: &Applied, period: i64) {
        match &fact.event.data {
            Data::UsageRecorded(usage) => self.usage.extend(Used::of(fact, usage, period)),
            Data::UsageReversed(reversal) => {
                let name = format!("{} {}", reversal.source, reversal.event_id);
                if let Some(used) = self.usage.iter_mut().find(|used| used.source_and_id == name) {
                    // A closed period's figures never change.
                    used.reversed = used.period == period;
                }
                assert!(applied.reversed.is_some());
            }
            Data::OrgAlertSet(set) => {
                let id = set.alert_id.to_string();
                let (basis, threshold) = (set.basis, set.threshold.units());
                let same = self.alerts.get(&id).is_some_and(|(b, t, _)| (*b, *t) == (basis, threshold));
                if !same {
                    let version = self.last_version.entry(id.clone()).or_default();
                    *version += 1;
                    self.alerts.insert(id, (basis, threshold, *version));
                }
            }
            Data::OrgAlertRemoved(removal) => drop(self.alerts.remove(removal.alert_id.as_str())),
            Data::UserAlertSet(set) => {
                let before = self.user_alert.and_then(|(_, threshold)| threshold);
                let threshold = set.threshold.map(|threshold| threshold.units()).or(before);
                if threshold != before {
                    self.user_alert_version += 1;
                }
                self.user_alert = Some((set.enabled.unwrap_or(true), threshold));
            }
            Data::LimitsSet(set) => {
                let before = self.limits.last().and_then(|(_, last)| last.custom.clone());
                let custom = set.custom.clone().or(before);
                self.limits.push((period, SetLimits { custom, ..set.clone() }));
            }
            Data::UserLimitSet(set) => {
                let mut limits = self.limits.last().map(|(_, last)| last.clone()).unwrap_or_default();
                let custom = limits.custom.get_or_insert_default();
                match set.limit {
                    Some(limit) => drop(custom.insert(set.user_id.clone(), limit)),
                    None => drop(custom.remove(&set.user_id)),
                }
                self.limits.push((period, limits));
            }
            Data::AccountOpened(_)
            | Data::AccountChanged(_)
            | Data::AccountClosed(_)
            | Data::RefundFailed(_)
            | Data::PlanChanged(_)
            | Data::ClockAdvanced(_)
            | Data::CreditsGranted(_)
            | Data::GrantVoided(_)
            | Data::CreditsAdjusted(_)
            | Data::CreditsPurchased(_)
            | Data::CreditsRefunded(_)
            | Data::PeriodReset(_)
            | Data::AutoTopUpSet(_)
            | Data::TopUpStarted(_)
            | Data::TopUpFailed(_)
            | Data::TopUpRefused(_)
            | Data::CreditsToppedUp(_)
            | Data::DisputeOpened(_)
            | Data::DisputeWon(_) => {}
        }
    }

    fn evaluate(&mut self, core: &Core, at: Time, event: &str, adds: bool) {
        self.moments.push(Moment {
            settled: core.settled().units(),
            bought: core.lots.paid().units(),
            line: core.low_balance_threshold.map(|line| line.units()),
            adds,
        });
        self.org_alerts(core, at, event);
        self.notices(core, at, event);
        self.users(core, at, event);
    }

    fn fire(&mut self, rule: String, key: (&str, i128, u32, i64), figure: i128, at: Time, event: &str) {
        let (subject, threshold, version, period) = key;
        if self.fired.insert((rule.clone(), version, subject.to_owned(), period)) {
            self.firings
                .push(format!("{rule} {subject} {threshold} v{version} p{period} {figure} {at} {event}"));
        }
    }

    fn org_alerts(&mut self, core: &Core, at: Time, event: &str) {
        let (used, settled) = (core.figures.used.units(), core.settled().units());
        let maximum = core.figures.maximum().units();
        for (id, (basis, threshold, version)) in self.alerts.clone() {
            let above_0 = settled.max(0);
            let (reached, figure) = match basis {
                Basis::AbsoluteUsed => (used >= threshold, used),
                Basis::AbsoluteRemaining => (settled <= threshold, settled),
                Basis::PercentUsed if maximum > 0 => {
                    (used * 100 * CREDIT >= threshold * maximum, percent(used, maximum))
                }
                Basis::PercentRemaining if maximum > 0 => {
                    (above_0 * 100 * CREDIT <= threshold * maximum, percent(above_0, maximum))
                }
                Basis::PercentUsed | Basis::PercentRemaining => (false, 0),
            };
            if reached {
                let key = ("acme", threshold, version, core.period.index);
                self.fire(format!("org_alert {id}"), key, figure, at, event);
            }
        }
    }

    /// An episode runs since an addition left the figure above the line, while it stayed above it.
    fn episode_runs(&self, figure: fn(&Moment) -> i128, line: fn(&Moment) -> i128) -> bool {
        let now = self.moments.len() - 1;
        let begun = self.moments[..now].iter().rposition(|m| m.adds && figure(m) > line(m));
        begun.is_some_and(|begun| self.moments[begun..now].iter().all(|m| figure(m) > line(m)))
    }

    fn notices(&mut self, core: &Core, at: Time, event: &str) {
        let index = self.moments.len() - 1;
        let (last, before) =
            (&self.moments[index], self.moments.len().checked_sub(2).map(|at| &self.moments[at]));
        let line_before = before.and_then(|before| before.line).unwrap_or(0);
        let mut due = Vec::new();
        if let Some(line) = last.line
            && last.bought <= line
            && (self.episode_runs(|m| m.bought, |m| m.line.unwrap_or(0)) || last.bought > line_before)
        {
            due.push(("credit_balance_low", line, last.bought));
        }
        let settled = last.settled;
        if settled <= 0 && self.episode_runs(|m| m.settled, |_| 0) {
            due.push(("credit_balance_depleted", 0, settled));
            self.last_depleted = Some(index);
        }
        if settled > 0 && self.last_depleted > self.last_again {
            due.push(("credits_available_again", 0, settled));
            self.last_again = Some(index);
        }
        for (kind, line, figure) in due {
            let n = self.counts.entry(kind).or_default();
            *n += 1;
            self.firings.push(format!("{kind} #{n} {line} p{} {figure} {at} {event}", core.period.index));
        }
    }

    fn users(&mut self, core: &Core, at: Time, event: &str) {
        let period = core.period.index;
        let users: BTreeSet<String> = self.of_period(period).map(|used| used.user.clone()).collect();
        for user in users {
            let used: i128 = self.of_period(period).filter(|u| u.user == user).map(|u| u.credits).sum();
            if let Some((true, Some(threshold))) = self.user_alert
                && used >= threshold
            {
                let key = (user.as_str(), threshold, self.user_alert_version, period);
                self.fire("user_alert".into(), key, used, at, event);
            }
            let Some((_, limits)) = self.limits.last().cloned() else { continue };
            let excluded = |feature: &Option<String>| {
                let listed = limits.excluded_features.iter().flatten().map(ToString::to_string);
                feature.as_ref().is_some_and(|feature| listed.clone().any(|one| one == *feature))
            };
            let counting = self.of_period(period).filter(|u| u.user == user && !excluded(&u.feature));
            let counted: i128 = counting.map(|u| u.credits).sum();
            if limits.enabled.unwrap_or(true)
                && let Some(limit) = effective(&limits, &user)
                && counted >= limit
            {
                let key = (user.as_str(), limit, self.limit_version(&user, period), period);
                self.fire("user_limit_reached".into(), key, counted, at, event);
            }
        }
    }

    fn of_period(&self, period: i64) -> impl Iterator<Item = &Used> {
        self.usage.iter().filter(move |used| used.period == period && !used.reversed)
    }

    /// Counts the values that the user's limit has had. The end of a period resets the count of users without a limit
    /// of their own: they go on as if they never had one.
    fn limit_version(&self, user: &str, period: i64) -> u32 {
        let (mut version, mut without_own, mut of_user, mut of_default) = (0, 0, None, None);
        let mut has_own = false;
        let mut in_period = None;
        for (set_in, limits) in &self.limits {
            if in_period.is_some_and(|last| last != *set_in) && !has_own {
                version = without_own;
            }
            in_period = Some(*set_in);
            let (own, default) = (effective(limits, user), limits.default_limit.map(|limit| limit.units()));
            version += u32::from(own.is_some() && own != of_user);
            without_own += u32::from(default.is_some() && default != of_default);
            (of_user, of_default) = (own, default);
            has_own = limits.custom.iter().flatten().any(|(name, _)| name.as_str() == user);
        }
        if in_period != Some(period) && !has_own { without_own } else { version }
    }
}

fn effective(limits: &SetLimits, user: &str) -> Option<i128> {
    let own = limits.custom.iter().flatten().find(|(name, _)| name.as_str() == user);
    match own {
        Some((_, limit)) => limit.amount().map(|limit| limit.units()),
        None => limits.default_limit.map(|limit| limit.units()),
    }
}

/// Rounds half-even to 9 places; neither is below 0.
fn percent(part: i128, whole: i128) -> i128 {
    let (quotient, rest) = (part * 100 * CREDIT / whole, part * 100 * CREDIT % whole);
    quotient + i128::from(2 * rest > whole || (2 * rest == whole && quotient % 2 == 1))
}
