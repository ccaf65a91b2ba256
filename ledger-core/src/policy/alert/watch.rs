//! Watch: tracks which of an account's rules have fired, and decides what fires next.
//!
//! Kept by the evaluator, next to the core and never in it: a balance does not depend on who was notified of it. Figures
//! of the account are evaluated after every moment of the fold (`Watcher`), those of users once an event is applied
//! (`Watch::users`); neither reports anything twice.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::figure::org_figure;
use super::firing::{firing_id, notice_id};
use super::notice::{Due, Notices};
use super::users::{MissingUsers, Part, Past, UserPage, Users};
use super::version::{LimitVersions, Threshold};
use super::{Audience, Firing, Kind};
use crate::account::Core;
use crate::account::alert::OrgAlert;
use crate::event::{Basis, Channel, Data, Recipients, SetLimits, SetUserLimit};
use crate::fold::{Applied, Fact, Moment, Observer, Outcome, UsageChange};
use crate::value::credits::Credits;
use crate::value::id::{AlertId, EventId, SubjectId, UserId};
use crate::value::time::Time;

/// Most removed org alerts whose versions are kept individually.
pub const REMOVED_MAX: usize = 1_000;

/// The fired rules of one account, and the versions of its thresholds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    period_index: i64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    org_alerts: BTreeMap<AlertId, ArmedAlert>,
    removed: Removed,
    user_alert: Threshold,
    limits: LimitVersions,
    notices: Notices,
    #[serde(skip)]
    nearest: Nearest,
}

/// For each basis, the lowest threshold of the org alerts that have not fired in the open period. No org alert fires
/// before its figure reaches it, however many alerts there are. Recomputed when unknown.
#[derive(Debug, Clone, Copy, Default)]
struct Nearest(Option<[Option<Credits>; 4]>);

impl PartialEq for Nearest {
    /// Derived from the rest, and not stored.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Nearest {}

impl Nearest {
    fn of<'a>(armed: impl Iterator<Item = &'a ArmedAlert>) -> Self {
        let mut nearest: [Option<Credits>; 4] = [None; 4];
        for armed_alert in armed {
            let threshold_of_basis = &mut nearest[armed_alert.basis as usize];
            let threshold = armed_alert.threshold;
            *threshold_of_basis = Some(match (*threshold_of_basis, armed_alert.basis) {
                (None, _) => threshold,
                (Some(other), Basis::PercentUsed | Basis::AbsoluteUsed) => other.min(threshold),
                (Some(other), Basis::PercentRemaining | Basis::AbsoluteRemaining) => other.max(threshold),
            });
        }
        Self(Some(nearest))
    }
}

/// The evaluation state of an org alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ArmedAlert {
    basis: Basis,
    threshold: Credits,
    version: u32,
    /// The last firing of this version.
    fired: Option<Fired>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Fired {
    period_index: i64,
    at: Time,
}

/// Last versions of removed org alerts, so that an alert that is set again gets a new version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Removed {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    versions: BTreeMap<AlertId, u32>,
    /// The highest version among those no longer kept.
    floor: u32,
}

impl Removed {
    fn put(&mut self, alert: AlertId, version: u32) {
        self.versions.insert(alert, version);
        if self.versions.len() > REMOVED_MAX
            && let Some((_, version)) = self.versions.pop_first()
        {
            self.floor = self.floor.max(version);
        }
    }

    /// Returns and removes the last version of an alert that is being set.
    fn take(&mut self, alert: &AlertId) -> u32 {
        self.versions.remove(alert).unwrap_or(self.floor)
    }
}

/// The admins' view of an org alert.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Alert")]
#[allow(missing_docs, reason = "as in `OrgAlert` and `Firing`")]
pub struct AlertView {
    pub alert_id: AlertId,
    pub basis: Basis,
    pub threshold: Credits,
    pub threshold_version: u32,
    pub recipients: Recipients,
    pub channels: Vec<Channel>,
    pub state: State,
    pub fired_at: Option<Time>,
}

/// Whether an alert can still fire in the open period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "AlertState")]
#[serde(rename_all = "snake_case")]
pub enum State {
    Armed,
    Fired,
}

/// Observes a fold and collects the firings.
#[derive(Debug)]
pub struct Watcher<'a> {
    pub watch: &'a mut Watch,
    /// Receives the new firings.
    pub firings: &'a mut Vec<Firing>,
}

impl Observer for Watcher<'_> {
    fn after(&mut self, core: &Core, moment: &Moment<'_>) {
        self.watch.after(core, moment, self.firings);
    }
}

/// Time and cause of a firing.
#[derive(Clone, Copy)]
struct Cause<'a> {
    at: Time,
    event_id: &'a EventId,
}

/// A rule with its threshold reached.
struct Reached<'a> {
    kind: Kind,
    alert: Option<&'a AlertId>,
    version: u32,
    subject: SubjectId,
    threshold: Credits,
    figure: Credits,
    audience: Audience,
}

impl Reached<'_> {
    fn firing(self, core: &Core, cause: Cause<'_>) -> Firing {
        let period = core.period.index;
        let id = firing_id(&core.account, self.kind, self.alert, self.version, &self.subject, period);
        Firing {
            firing_id: id,
            kind: self.kind,
            alert_id: self.alert.cloned(),
            subject: self.subject,
            threshold: self.threshold,
            threshold_version: self.version,
            period_index: period,
            figure: self.figure,
            fired_at: cause.at,
            event_id: cause.event_id.clone(),
            audience: self.audience,
        }
    }
}

impl Watch {
    /// Returns an account's org alerts, by id.
    pub fn alerts(&self, core: &Core) -> impl Iterator<Item = AlertView> {
        let open = core.period.index;
        core.org_alerts.iter().map(move |(id, alert)| {
            let armed_alert = self.org_alerts.get(id);
            let fired = armed_alert
                .and_then(|armed_alert| armed_alert.fired)
                .filter(|fired| fired.period_index == open);
            AlertView {
                alert_id: id.clone(),
                basis: alert.basis,
                threshold: alert.threshold,
                threshold_version: armed_alert.map_or(1, |armed_alert| armed_alert.version),
                recipients: alert.recipients.clone(),
                channels: alert.channels.clone(),
                state: if fired.is_some() { State::Fired } else { State::Armed },
                fired_at: fired.map(|fired| fired.at),
            }
        })
    }

    /// Evaluates the account's own figures after a moment: org alerts by id, then notices.
    fn after(&mut self, core: &Core, moment: &Moment<'_>, firings: &mut Vec<Firing>) {
        if core.closed.is_some() {
            return;
        }
        if self.period_index != core.period.index {
            self.period_index = core.period.index;
            self.limits.period_ends();
            self.nearest = Nearest::default();
        }
        if let Some(data) = moment.applied {
            self.learn(core, data);
        }
        let cause = Cause { at: moment.at, event_id: moment.event_id };
        if self.some_alert_is_reached(core) {
            for (id, alert) in &core.org_alerts {
                firings.extend(self.org_alert(core, id, alert, cause));
            }
        }
        let top_up = moment.applied.and_then(|data| self.notices.top_up(core, data));
        let due = self.notices.after(core, moment.adds).chain(top_up);
        firings.extend(due.map(|due| notice(core, due, cause)));
    }

    /// Applies settings that were just written; limits need pages of users, and follow with them.
    fn learn(&mut self, core: &Core, data: &Data) {
        match data {
            Data::UserAlertSet(_) => {
                self.user_alert.set(core.user_alert.as_ref().and_then(|alert| alert.threshold));
            }
            Data::OrgAlertSet(set) => self.set_org_alert(&set.alert_id, set.basis, set.threshold),
            Data::OrgAlertRemoved(removal) => {
                if let Some(armed_alert) = self.org_alerts.remove(&removal.alert_id) {
                    self.nearest = Nearest::default();
                    self.removed.put(removal.alert_id.clone(), armed_alert.version);
                }
            }
            Data::AccountOpened(_)
            | Data::AccountChanged(_)
            | Data::AccountClosed(_)
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
            | Data::UserLimitSet(_)
            | Data::AutoTopUpSet(_)
            | Data::TopUpStarted(_)
            | Data::TopUpFailed(_)
            | Data::TopUpRefused(_)
            | Data::CreditsToppedUp(_)
            | Data::DisputeOpened(_)
            | Data::DisputeWon(_)
            | Data::RefundFailed(_) => {}
        }
    }

    fn some_alert_is_reached(&mut self, core: &Core) -> bool {
        let open = core.period.index;
        let has_fired =
            |armed_alert: &ArmedAlert| armed_alert.fired.is_some_and(|fired| fired.period_index == open);
        if self.nearest.0.is_none() {
            self.nearest =
                Nearest::of(self.org_alerts.values().filter(|armed_alert| !has_fired(armed_alert)));
        }
        let nearest = self.nearest.0.unwrap_or_default();
        let mut each = Basis::ALL.into_iter().zip(nearest);
        each.any(|(basis, threshold)| {
            threshold.is_some_and(|threshold| org_figure(core, basis, threshold).is_some())
        })
    }

    fn set_org_alert(&mut self, id: &AlertId, basis: Basis, threshold: Credits) {
        let last = match self.org_alerts.get(id) {
            // A change of recipients or channels is not a new version.
            Some(armed_alert) if (armed_alert.basis, armed_alert.threshold) == (basis, threshold) => return,
            Some(armed_alert) => armed_alert.version,
            None => self.removed.take(id),
        };
        self.nearest = Nearest::default();
        self.org_alerts.insert(id.clone(), ArmedAlert { basis, threshold, version: last + 1, fired: None });
    }

    fn org_alert(&mut self, core: &Core, id: &AlertId, alert: &OrgAlert, cause: Cause<'_>) -> Option<Firing> {
        let period_index = core.period.index;
        let armed_alert = self.org_alerts.get_mut(id)?;
        if armed_alert.fired.is_some_and(|fired| fired.period_index == period_index) {
            return None;
        }
        let figure = org_figure(core, alert.basis, alert.threshold)?;
        armed_alert.fired = Some(Fired { period_index, at: cause.at });
        self.nearest = Nearest::default();
        let reached = Reached {
            kind: Kind::OrgAlert,
            alert: Some(id),
            version: armed_alert.version,
            subject: core.account.as_subject(),
            threshold: alert.threshold,
            figure,
            audience: Audience {
                recipients: alert.recipients.clone(),
                channels: alert.channels.clone(),
                notify_user: false,
            },
        };
        Some(reached.firing(core, cause))
    }

    /// Returns whether users of the account may have a limit of their own: if not, no pages of limits need to be loaded.
    pub fn has_own_limits(&self) -> bool {
        self.limits.has_pages
    }

    /// Adds an applied event to its user's page and evaluates the rules about users, by user: user alert, then
    /// limit.
    ///
    /// Call it once after the fold of the event, and again after each error, which lists the missing pages: `These`
    /// before anything has fired; `Next` after some users are evaluated and their firings are complete.
    pub fn users(
        &mut self,
        core: &Core,
        users: &mut Users,
        fact: &Fact,
        applied: &Applied,
        firings: &mut Vec<Firing>,
    ) -> Result<(), MissingUsers> {
        users.enter(core.period.index);
        if applied.outcome != Outcome::Applied || core.closed.is_some() {
            return Ok(());
        }
        let cause = Cause { at: core.ledger_time, event_id: &fact.event.id };
        match (&applied.usage, &fact.event.data) {
            (Some(change), _) => self.usage(core, users, change, cause, firings),
            (None, Data::LimitsSet(set)) => {
                self.set_limits(core, users, set)?;
                self.all_limits(core, users, set, cause, firings)
            }
            (None, Data::UserLimitSet(set)) => {
                users.need([&set.user_id], self.limits.has_pages)?;
                self.set_user_limit(core, users, set);
                firings.extend(self.limit(core, users, &set.user_id, cause));
                Ok(())
            }
            (None, Data::UserAlertSet(_)) => self.all_user_alerts(core, users, cause, firings),
            _ => Ok(()),
        }
    }

    fn usage(
        &self,
        core: &Core,
        users: &mut Users,
        change: &UsageChange,
        cause: Cause<'_>,
        firings: &mut Vec<Firing>,
    ) -> Result<(), MissingUsers> {
        let Data::UsageRecorded(usage) = &change.withdrawal.event.data else { return Ok(()) };
        let Some(user) = &usage.user_id else { return Ok(()) };
        users.need([user], self.limits.has_pages)?;
        users.change(user).count(usage, change);
        firings.extend(self.user_alert(core, users, user, cause));
        firings.extend(self.limit(core, users, user, cause));
        Ok(())
    }

    fn all_user_alerts(
        &self,
        core: &Core,
        users: &mut Users,
        cause: Cause<'_>,
        firings: &mut Vec<Firing>,
    ) -> Result<(), MissingUsers> {
        let alert = core.user_alert.as_ref().filter(|alert| alert.enabled);
        let Some(threshold) = alert.and_then(|alert| alert.threshold) else { return Ok(()) };
        loop {
            let part = users.next_part(Past { usage: Some(threshold), own_limits: None })?;
            for user in users.past(&part, |_, page| page.used >= threshold) {
                firings.extend(self.user_alert(core, users, &user, cause));
            }
            if part.is_last() {
                return Ok(());
            }
        }
    }

    /// Counts the versions of limits that were just set.
    fn set_limits(&mut self, core: &Core, users: &mut Users, set: &SetLimits) -> Result<(), MissingUsers> {
        let Some(limits) = &core.limits else { return Ok(()) };
        users.need(set.custom.iter().flat_map(BTreeMap::keys), self.limits.has_pages)?;
        let custom = set.custom.iter().flatten();
        let custom = custom.map(|(user, limit)| (user, *limit, users.limit(user).copied()));
        for (user, page) in self.limits.set(limits, custom, core.period.index) {
            users.set_limit(user, Some(page));
        }
        Ok(())
    }

    fn set_user_limit(&mut self, core: &Core, users: &mut Users, set: &SetUserLimit) {
        if core.limits.is_some() {
            let user = &set.user_id;
            let page = self.limits.set_one(users.limit(user), set.limit, core.period.index);
            users.set_limit(user, page);
        }
    }

    fn all_limits(
        &self,
        core: &Core,
        users: &mut Users,
        set: &SetLimits,
        cause: Cause<'_>,
        firings: &mut Vec<Firing>,
    ) -> Result<(), MissingUsers> {
        let Some(limits) = core.limits.as_ref().filter(|limits| limits.enabled) else { return Ok(()) };
        if self.limits.has_pages {
            users.need_limits()?;
        }
        // Own limits that the event itself has set are those of loaded users.
        let own_limits = (self.limits.has_pages && set.custom.is_none()).then_some(limits.series);
        let past = Past { usage: limits.default_limit, own_limits };
        loop {
            let part = match past {
                Past { usage: None, own_limits: None } => Part::default(),
                Past { .. } => users.next_part(past)?,
            };
            let is_past = |user: &UserId, page: &UserPage| {
                let (own, _) = self.limits.of(users.limit(user), core.period.index);
                limits.limit_of(own).is_some_and(|limit| page.used >= limit)
            };
            for user in users.past(&part, is_past) {
                firings.extend(self.limit(core, users, &user, cause));
            }
            if part.is_last() {
                return Ok(());
            }
        }
    }

    fn user_alert(&self, core: &Core, users: &mut Users, user: &UserId, cause: Cause<'_>) -> Option<Firing> {
        let alert = core.user_alert.as_ref().filter(|alert| alert.enabled)?;
        let (threshold, version) = (alert.threshold?, self.user_alert.version);
        let page = users.page(user).filter(|page| page.alert_fired != version)?;
        let figure = page.alert_figure(threshold)?;
        users.change(user).alert_fired = version;
        let (recipients, notify_user) = (alert.recipients.clone(), alert.notify_user);
        let audience = Audience { recipients, channels: Channel::ALL.to_vec(), notify_user };
        let kind = Kind::UserAlert;
        let reached =
            Reached { kind, alert: None, version, subject: user.as_subject(), threshold, figure, audience };
        Some(reached.firing(core, cause))
    }

    fn limit(&self, core: &Core, users: &mut Users, user: &UserId, cause: Cause<'_>) -> Option<Firing> {
        let limits = core.limits.as_ref().filter(|limits| limits.enabled)?;
        let (own, version) = self.limits.of(users.limit(user), core.period.index);
        let threshold = limits.limit_of(own)?;
        let page = users.page(user).filter(|page| page.limit_fired != version)?;
        let figure = page.limit_figure(limits, threshold)?;
        users.change(user).limit_fired = version;
        let recipients = limits.notify.clone();
        let audience = Audience { recipients, channels: Channel::ALL.to_vec(), notify_user: false };
        let kind = Kind::UserLimitReached;
        let reached =
            Reached { kind, alert: None, version, subject: user.as_subject(), threshold, figure, audience };
        Some(reached.firing(core, cause))
    }
}

fn notice(core: &Core, due: Due, cause: Cause<'_>) -> Firing {
    Firing {
        firing_id: notice_id(&core.account, due.kind, due.n),
        kind: due.kind,
        alert_id: None,
        subject: core.account.as_subject(),
        threshold: due.line,
        threshold_version: 1,
        period_index: core.period.index,
        figure: due.figure,
        fired_at: cause.at,
        event_id: cause.event_id.clone(),
        audience: Audience { channels: Channel::ALL.to_vec(), ..Audience::default() },
    }
}
