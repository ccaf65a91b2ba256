//! Each user's usage in the open period, for the rules about users.
//!
//! An account may have a million users, so a batch loads only the pages that it touches, and names the missing ones before
//! it changes anything. A change of a rule visits all users whom it may affect, a few at a time in order of their ids.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Deserializer, Serialize};

use crate::account::Core;
use crate::account::limit::Limits;
use crate::event::{Data, Usage};
use crate::fold::UsageChange;
use crate::value::credits::{Credits, Wide, add, wide};
use crate::value::id::{Label, UserId};

/// One user's usage in the open period, and what has fired for them in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPage {
    /// All of it, less reversals.
    #[serde(deserialize_with = "wide")]
    pub used: Credits,
    /// What of it was used in which feature; none where that is 0.
    #[serde(default, deserialize_with = "wide_by_label")]
    pub features: BTreeMap<Label, Credits>,
    /// Usage events, less those that are reversed.
    pub events: u64,
    /// Version of the user alert that fired last; 0 = none.
    pub alert_fired: u32,
    /// Version of the limit that fired last; 0 = none.
    pub limit_fired: u32,
}

fn wide_by_label<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Label, Credits>, D::Error> {
    let read = BTreeMap::<Label, Wide>::deserialize(from)?;
    Ok(read.into_iter().map(|(label, Wide(sum))| (label, sum)).collect())
}

impl UserPage {
    /// Adds usage, or takes a reversed one off again.
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

    /// Returns the usage where it has reached the threshold of a user alert; without usage nothing is reached.
    pub fn alert_figure(&self, threshold: Credits) -> Option<Credits> {
        (self.events > 0 && self.used >= threshold).then_some(self.used)
    }

    /// Returns the usage that counts where it has reached a limit; without usage nothing is reached.
    pub fn limit_figure(&self, limits: &Limits, limit: Credits) -> Option<Credits> {
        let counted = limits.counted(self.used, &self.features);
        (self.events > 0 && counted >= limit).then_some(counted)
    }
}

/// Pages of users that have to be loaded before their rules can be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MissingUsers {
    /// These users, whether or not they used anything.
    These(Vec<UserId>),
    /// The next users of the open period by id, after this one, of those who used at least this much.
    Next {
        /// What they used.
        past: Credits,
        /// The last user evaluated; none: no user yet.
        after: Option<UserId>,
    },
}

/// Users who come one after another by id.
#[derive(Debug, Default)]
pub(crate) struct Part {
    after: Option<UserId>,
    /// The last of them; none: nobody comes behind.
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

/// Pages of one account's users in the open period, loaded for one batch, and what the batch changed in them.
#[derive(Debug, Default)]
pub struct Users {
    /// The period they are of; none on an account that is not open.
    period_index: Option<i64>,
    /// It began within this batch, so who has no page has used nothing.
    is_new: bool,
    pages: FxHashMap<UserId, UserPage>,
    touched: BTreeSet<UserId>,
    /// The last user whom the edit of a rule has come to, while it goes through all of them.
    walked: Option<UserId>,
    /// Those whom it comes to next are loaded.
    part: Option<Part>,
    /// Those who were loaded for that alone, and are let go behind it.
    passing: Vec<UserId>,
}

impl Users {
    /// Begins a batch on an account.
    pub fn of(core: Option<&Core>) -> Self {
        Self { period_index: core.map(|core| core.period.index), ..Self::default() }
    }

    /// Returns the period that the pages are of.
    pub fn period_index(&self) -> Option<i64> {
        self.period_index
    }

    /// Takes a user's page as stored; none: they used nothing. What the batch has changed is newer and stays.
    pub fn load(&mut self, user: UserId, page: Option<UserPage>) {
        self.pages.entry(user).or_insert_with(|| page.unwrap_or_default());
    }

    /// Takes pages, as stored, of the users that `MissingUsers::Next` names, by id; `are_last` where no more come.
    pub fn load_next(&mut self, pages: Vec<(UserId, UserPage)>, are_last: bool) {
        let to = pages.last().filter(|_| !are_last).map(|(user, _)| user.clone());
        self.part = Some(Part { after: self.walked.clone(), to });
        for (user, page) in pages {
            if let Entry::Vacant(entry) = self.pages.entry(user.clone()) {
                entry.insert(page);
                self.passing.push(user);
            }
        }
    }

    /// Lets go of the users whom the edit of a rule has passed, and returns the pages that it has changed: to be stored
    /// before anything else of them is loaded.
    pub fn pass(&mut self) -> Vec<(UserId, UserPage)> {
        let mut changed = Vec::new();
        for user in std::mem::take(&mut self.passing) {
            let page = self.pages.remove(&user);
            if self.touched.remove(&user) {
                changed.extend(page.map(|page| (user, page)));
            }
        }
        changed
    }

    /// Returns the pages to be stored, by user, all of `period_index`.
    pub fn touched(&self) -> impl Iterator<Item = (&UserId, &UserPage)> {
        self.touched.iter().filter_map(|user| Some((user, self.pages.get(user)?)))
    }

    /// Goes on to the period that is open now; the former's pages are of no more use.
    pub(crate) fn enter(&mut self, period_index: i64) {
        if self.period_index != Some(period_index) {
            *self = Self { period_index: Some(period_index), is_new: true, ..Self::default() };
        }
    }

    /// Sees to it that these users' pages are there.
    pub(crate) fn need<'a>(&self, users: impl IntoIterator<Item = &'a UserId>) -> Result<(), MissingUsers> {
        if self.is_new {
            return Ok(());
        }
        let missing: Vec<UserId> =
            users.into_iter().filter(|user| !self.pages.contains_key(*user)).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(MissingUsers::These(missing)) }
    }

    /// Returns the next part, of which everyone is there who used at least `past`.
    pub(crate) fn next_part(&mut self, past: Credits) -> Result<Part, MissingUsers> {
        if self.is_new {
            return Ok(Part::default());
        }
        let part = self.part.take();
        let part = part.ok_or_else(|| MissingUsers::Next { past, after: self.walked.clone() })?;
        self.walked = part.to.clone();
        Ok(part)
    }

    /// Returns a page to be changed.
    pub(crate) fn change(&mut self, user: &UserId) -> &mut UserPage {
        self.touched.insert(user.clone());
        self.pages.entry(user.clone()).or_default()
    }

    /// Returns a page that is there.
    pub(crate) fn page(&self, user: &UserId) -> Option<&UserPage> {
        self.pages.get(user)
    }

    /// Returns everyone of a part who used at least `past`, by id.
    pub(crate) fn past(&self, past: Credits, part: &Part) -> BTreeSet<UserId> {
        let there = self.pages.iter().filter(|(user, page)| page.used >= past && part.has(user));
        there.map(|(user, _)| user.clone()).collect()
    }
}

/// Returns whose usage an event surely changes, so that a batch loads the pages in bulk.
pub fn user_of(data: &Data) -> Option<&UserId> {
    let Data::UsageRecorded(usage) = data else { return None };
    usage.user_id.as_ref()
}
