//! Each user's usage in the open period and the version of their limit, for the rules about users.
//!
//! An account may have a million users, so a batch loads only the pages that it touches, and names the missing ones before
//! it changes anything. A change of a rule visits all users whom it may affect, a few at a time in order of their ids.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Deserializer, Serialize};

use super::version::LimitPage;
use crate::account::Core;
use crate::account::limit::Limits;
use crate::event::{Data, Usage};
use crate::fold::UsageChange;
use crate::value::credits::{Credits, Wide, add, wide};
use crate::value::id::{Label, UserId};

/// One user's usage in the open period, and the last versions that fired for them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPage {
    /// Total usage, net of reversals.
    #[serde(deserialize_with = "wide")]
    pub used: Credits,
    /// Usage by feature; features at 0 are left out.
    #[serde(default, deserialize_with = "wide_by_label")]
    pub features: BTreeMap<Label, Credits>,
    /// Number of usage events, net of reversals.
    pub events: u64,
    /// Version of the user alert that fired last; 0 means none.
    pub alert_fired: u32,
    /// Version of the limit that fired last; 0 means none.
    pub limit_fired: u32,
}

fn wide_by_label<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Label, Credits>, D::Error> {
    let read = BTreeMap::<Label, Wide>::deserialize(from)?;
    Ok(read.into_iter().map(|(label, Wide(sum))| (label, sum)).collect())
}

impl UserPage {
    /// Adds usage, or subtracts a reversed one.
    pub fn count(&mut self, usage: &Usage, change: &UsageChange) {
        let credits = change.withdrawal.credits;
        let by = if change.sign < 0 { credits.negated() } else { credits };
        self.used = add(self.used, by);
        self.events = self.events.saturating_add_signed(change.sign);
        let Some(feature) = &usage.feature else { return };
        let sum = self.features.get(feature).map_or(by, |sum| add(*sum, by));
        if sum.is_zero() {
            self.features.remove(feature);
        } else {
            self.features.insert(feature.clone(), sum);
        }
    }

    /// Returns the usage if it has reached the threshold of a user alert; `None` for a user without usage.
    pub fn alert_figure(&self, threshold: Credits) -> Option<Credits> {
        (self.events > 0 && self.used >= threshold).then_some(self.used)
    }

    /// Returns the counted usage if it has reached a limit; `None` for a user without usage.
    pub fn limit_figure(&self, limits: &Limits, limit: Credits) -> Option<Credits> {
        let counted = limits.counted(self.used, &self.features);
        (self.events > 0 && counted >= limit).then_some(counted)
    }
}

/// Pages of users that have to be loaded before their rules can be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MissingUsers {
    /// These users, with or without usage and limits of their own.
    These(Vec<UserId>),
    /// The next users of the open period in id order, after `after`, who may have reached a threshold.
    Next {
        past: Past,
        /// The last user evaluated; `None` before the first.
        after: Option<UserId>,
    },
}

/// Usage at which an edited rule may affect users: these are to be visited, and others may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// The threshold of everybody; `None`: nobody is affected by one.
    pub usage: Option<Credits>,
    /// The series whose own limits are thresholds too.
    pub own_limits: Option<u64>,
}

/// A user in the order of ids: their usage, and their limit's page.
pub type NextUser = (UserId, UserPage, Option<LimitPage>);

/// A range of users in id order.
#[derive(Debug, Default)]
pub(crate) struct Part {
    after: Option<UserId>,
    /// The last user of the range; `None` if no users follow.
    to: Option<UserId>,
}

impl Part {
    pub fn has(&self, user: &UserId) -> bool {
        self.after.as_ref().is_none_or(|after| user > after) && self.to.as_ref().is_none_or(|to| user <= to)
    }

    pub fn is_last(&self) -> bool {
        self.to.is_none()
    }
}

/// Pages of one account's users, loaded for one batch, and what the batch changed in them.
#[derive(Debug, Default)]
pub struct Users {
    /// The period of the pages; `None` if the account is not open.
    period_index: Option<i64>,
    /// Whether the period began within this batch, so that a user without a page has no usage.
    is_new: bool,
    pages: FxHashMap<UserId, UserPage>,
    touched: BTreeSet<UserId>,
    /// Pages of limits, which outlast the period; `None` is a user who never had a limit of their own.
    limits: FxHashMap<UserId, Option<LimitPage>>,
    touched_limits: BTreeSet<UserId>,
    /// The last user evaluated by a rule edit that is in progress.
    walked: Option<UserId>,
    /// The next range of that edit, once it is loaded.
    part: Option<Part>,
    /// Users loaded only for that edit; they are unloaded after their evaluation.
    passing: Vec<UserId>,
    passing_limits: Vec<UserId>,
}

impl Users {
    pub fn of(core: Option<&Core>) -> Self {
        Self { period_index: core.map(|core| core.period.index), ..Self::default() }
    }

    pub fn period_index(&self) -> Option<i64> {
        self.period_index
    }

    /// Adds a user's stored page; `None` means no usage. A page that the batch has changed is newer and stays. A period that
    /// began within the batch has no stored pages.
    pub fn load(&mut self, user: UserId, page: Option<UserPage>) {
        if !self.is_new {
            self.pages.entry(user).or_insert_with(|| page.unwrap_or_default());
        }
    }

    /// Adds the stored page of a user's limit. A page that the batch has changed is newer and stays.
    pub fn load_limit(&mut self, user: UserId, page: Option<LimitPage>) {
        self.limits.entry(user).or_insert(page);
    }

    /// Adds the stored pages that `MissingUsers::Next` requests, in id order; `are_last` if no more follow.
    pub fn load_next(&mut self, users: Vec<NextUser>, are_last: bool) {
        let to = users.last().filter(|_| !are_last).map(|(user, ..)| user.clone());
        self.part = Some(Part { after: self.walked.clone(), to });
        for (user, page, limit) in users {
            if let Entry::Vacant(entry) = self.limits.entry(user.clone()) {
                entry.insert(limit);
                self.passing_limits.push(user.clone());
            }
            if let Entry::Vacant(entry) = self.pages.entry(user.clone()) {
                entry.insert(page);
                self.passing.push(user);
            }
        }
    }

    /// Unloads the users that a rule edit has passed, and returns the changed pages: store them before more pages of
    /// the account are loaded.
    pub fn pass(&mut self) -> Vec<(UserId, UserPage)> {
        for user in std::mem::take(&mut self.passing_limits) {
            self.limits.remove(&user);
        }
        let mut changed = Vec::new();
        for user in std::mem::take(&mut self.passing) {
            let page = self.pages.remove(&user);
            if self.touched.remove(&user) {
                changed.extend(page.map(|page| (user, page)));
            }
        }
        changed
    }

    /// Returns the pages to store, by user, all of `period_index`.
    pub fn touched(&self) -> impl Iterator<Item = (&UserId, &UserPage)> {
        self.touched.iter().filter_map(|user| Some((user, self.pages.get(user)?)))
    }

    /// Returns the pages of limits to store, by user; `None` is one to remove.
    pub fn touched_limits(&self) -> impl Iterator<Item = (&UserId, Option<&LimitPage>)> {
        self.touched_limits.iter().map(|user| (user, self.limit(user)))
    }

    /// Switches to the open period and drops the usage of the former.
    pub(crate) fn enter(&mut self, period_index: i64) {
        if self.period_index != Some(period_index) {
            let limits = std::mem::take(&mut self.limits);
            let touched_limits = std::mem::take(&mut self.touched_limits);
            *self = Self {
                period_index: Some(period_index),
                is_new: true,
                limits,
                touched_limits,
                ..Self::default()
            };
        }
    }

    /// Checks that these users' pages are loaded, those of their limits where the account has any.
    pub(crate) fn need<'a>(
        &self,
        users: impl IntoIterator<Item = &'a UserId>,
        with_limits: bool,
    ) -> Result<(), MissingUsers> {
        let lacks_page = |user: &UserId| !self.is_new && !self.pages.contains_key(user);
        let lacks_limit = |user: &UserId| with_limits && !self.limits.contains_key(user);
        let missing: Vec<UserId> =
            users.into_iter().filter(|user| lacks_page(user) || lacks_limit(user)).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(MissingUsers::These(missing)) }
    }

    /// Checks that the limits of all loaded users are loaded.
    pub(crate) fn need_limits(&self) -> Result<(), MissingUsers> {
        self.need(self.pages.keys(), true)
    }

    /// Returns the next range, in which all users are loaded who may have reached a threshold.
    pub(crate) fn next_part(&mut self, past: Past) -> Result<Part, MissingUsers> {
        if self.is_new {
            return Ok(Part::default());
        }
        let part = self.part.take();
        let part = part.ok_or_else(|| MissingUsers::Next { past, after: self.walked.clone() })?;
        self.walked = part.to.clone();
        Ok(part)
    }

    pub(crate) fn change(&mut self, user: &UserId) -> &mut UserPage {
        self.touched.insert(user.clone());
        self.pages.entry(user.clone()).or_default()
    }

    pub(crate) fn page(&self, user: &UserId) -> Option<&UserPage> {
        self.pages.get(user)
    }

    pub(crate) fn limit(&self, user: &UserId) -> Option<&LimitPage> {
        self.limits.get(user)?.as_ref()
    }

    /// Replaces the page of a user's limit.
    pub(crate) fn set_limit(&mut self, user: &UserId, page: Option<LimitPage>) {
        if self.limit(user) != page.as_ref() {
            self.touched_limits.insert(user.clone());
        }
        self.limits.insert(user.clone(), page);
    }

    /// Returns the users of a range whose usage is past their threshold, in id order.
    pub(crate) fn past(&self, part: &Part, is_past: impl Fn(&UserId, &UserPage) -> bool) -> BTreeSet<UserId> {
        let there = self.pages.iter().filter(|(user, page)| part.has(user) && is_past(user, page));
        there.map(|(user, _)| user.clone()).collect()
    }
}

/// Returns the user whose usage an event certainly changes, so that a batch loads the pages in bulk.
pub fn user_of(data: &Data) -> Option<&UserId> {
    let Data::UsageRecorded(usage) = data else { return None };
    usage.user_id.as_ref()
}
