//! Versions: counts the changes of a threshold, so that each version fires anew.
//!
//! A limit's version is per user, and an account may have a million users; so the default's changes are counted once,
//! and separately only for users who have their own limit, or had one in the open period: each of them has a page.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::account::limit::Limits;
use crate::event::Limit;
use crate::value::credits::Credits;
use crate::value::id::UserId;

/// Most runs of series that are told apart once they have ended in the open period. Beyond that, users who lost their own
/// limit in the earliest are taken for those of the highest version among them, and may be reported once more.
pub const ENDED_MAX: usize = 100;

/// A threshold and the number of values it has had.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Threshold {
    value: Option<Credits>,
    pub version: u32,
}

impl Threshold {
    /// Sets the current value: a different one is a new version; `None` is no value.
    pub fn set(&mut self, value: Option<Credits>) {
        if value.is_some() && value != self.value {
            self.version += 1;
        }
        self.value = value;
    }
}

/// The version of the limit of a user who has a limit of their own, or had one in the open period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitPage {
    /// Their own limit, in force until a later series begins.
    Own { series: u64, limit: Limit, version: u32 },
    /// They lost it by themselves: how far their version is from the default's, in that period. It moves with the default.
    Former { period_index: i64, apart: i64 },
}

/// How series of users' own limits ended: the default that their users had from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ended {
    default: Option<Credits>,
    /// The default's version.
    version: u32,
}

/// The earliest series that ended in the open period, once they are too many to be told apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Merged {
    /// The last of them.
    to: u64,
    /// How far their users' versions are from the default's, at most.
    apart: i64,
}

/// Versions of every user's limit, with the pages of those who have one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LimitVersions {
    /// For users who never had their own limit.
    default: Threshold,
    /// Whether a user may have a page.
    #[serde(default)]
    pub has_pages: bool,
    /// The series in force.
    #[serde(default)]
    series: u64,
    /// The series that was in force when the open period began: earlier ones ended before.
    #[serde(default)]
    since: u64,
    /// Series that ended in the open period, by the last one of each run that ended alike.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    ended: BTreeMap<u64, Ended>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    merged: Option<Merged>,
    /// The highest version that a limit of a user's own ever had.
    #[serde(default)]
    highest: u32,
}

impl LimitVersions {
    /// Returns a user's own limit, if it is in force, and the version of the limit that they have.
    pub fn of(&self, page: Option<&LimitPage>, period_index: i64) -> (Option<Limit>, u32) {
        match page {
            Some(LimitPage::Own { series, limit, version }) if *series == self.series => {
                (Some(*limit), *version)
            }
            Some(LimitPage::Own { series, limit, version }) => {
                (None, self.beside_default(self.apart(*series, *limit, *version)))
            }
            Some(LimitPage::Former { period_index: of, apart }) if *of == period_index => {
                (None, self.beside_default(*apart))
            }
            Some(LimitPage::Former { .. }) | None => (None, self.default.version),
        }
    }

    /// Applies new limits, enabled or not, and returns the pages of the users whose own limits they set. Applied once more
    /// they change nothing.
    pub fn set<'a>(
        &mut self,
        limits: &Limits,
        custom: impl IntoIterator<Item = (&'a UserId, Limit, Option<LimitPage>)>,
        period_index: i64,
    ) -> Vec<(&'a UserId, LimitPage)> {
        let mut pages = Vec::new();
        for (user, limit, page) in custom {
            pages.push((user, self.own(page.as_ref(), limit, limits.series, period_index)));
        }
        self.default.set(limits.default_limit);
        if self.series != limits.series {
            self.end_series(limits);
        }
        pages
    }

    /// Applies one user's limit, of their own or the default again, and returns their page; `None` is as if they never had
    /// a limit of their own.
    pub fn set_one(
        &mut self,
        page: Option<&LimitPage>,
        limit: Option<Limit>,
        period_index: i64,
    ) -> Option<LimitPage> {
        if let Some(limit) = limit {
            return Some(self.own(page, limit, self.series, period_index));
        }
        let mut threshold = self.threshold(page, period_index);
        threshold.set(self.default.value);
        let apart = i64::from(threshold.version) - i64::from(self.default.version);
        (apart != 0).then_some(LimitPage::Former { period_index, apart })
    }

    fn own(&mut self, page: Option<&LimitPage>, limit: Limit, series: u64, period_index: i64) -> LimitPage {
        let mut threshold = self.threshold(page, period_index);
        threshold.set(limit.amount());
        self.has_pages = true;
        self.highest = self.highest.max(threshold.version);
        LimitPage::Own { series, limit, version: threshold.version }
    }

    fn threshold(&self, page: Option<&LimitPage>, period_index: i64) -> Threshold {
        let (own, version) = self.of(page, period_index);
        Threshold { value: own.map_or(self.default.value, Limit::amount), version }
    }

    fn beside_default(&self, apart: i64) -> u32 {
        u32::try_from(i64::from(self.default.version) + apart).unwrap_or(u32::MAX)
    }

    /// Returns how far the version of a user is from the default's, who had this limit when its series ended.
    fn apart(&self, series: u64, limit: Limit, version: u32) -> i64 {
        if series < self.since {
            return 0;
        }
        if let Some(merged) = self.merged.as_ref().filter(|merged| series <= merged.to) {
            return merged.apart;
        }
        let Some((_, ended)) = self.ended.range(series..).next() else { return 0 };
        let is_new = ended.default.is_some() && ended.default != limit.amount();
        i64::from(version) + i64::from(is_new) - i64::from(ended.version)
    }

    fn end_series(&mut self, limits: &Limits) {
        let ended = Ended { default: self.default.value, version: self.default.version };
        if self.ended.last_key_value().is_some_and(|(_, last)| *last == ended) {
            self.ended.pop_last();
        }
        self.ended.insert(self.series, ended);
        self.series = limits.series;
        if self.ended.len() > ENDED_MAX
            && let Some((to, ended)) = self.ended.pop_first()
        {
            let apart = i64::from(self.highest) + 1 - i64::from(ended.version);
            let apart = self.merged.as_ref().map_or(apart, |merged| merged.apart.max(apart)).max(0);
            self.merged = Some(Merged { to, apart });
        }
    }

    /// Forgets what distinguishes users who had their own limit: versions only distinguish firings of one period.
    pub fn period_ends(&mut self) {
        self.since = self.series;
        self.ended.clear();
        self.merged = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::SetLimits;

    fn id(text: &str) -> UserId {
        UserId::new(text).expect("an id")
    }

    /// The versions of an account and the pages of all its users.
    #[derive(Default)]
    struct All {
        versions: LimitVersions,
        pages: BTreeMap<UserId, LimitPage>,
        limits: Option<Limits>,
        period_index: i64,
    }

    impl All {
        fn set(&mut self, body: &SetLimits) {
            // Without `custom` in a body, these stories mean that nobody has a limit of their own.
            let body = SetLimits { custom: Some(body.custom.clone().unwrap_or_default()), ..body.clone() };
            let limits = Limits::of(&body, self.limits.as_ref());
            let custom = body.custom.iter().flatten();
            let custom = custom.map(|(user, limit)| (user, *limit, self.pages.get(user).copied()));
            let pages = self.versions.set(&limits, custom, self.period_index);
            self.pages.extend(pages.into_iter().map(|(user, page)| (user.clone(), page)));
            self.limits = Some(limits);
        }

        fn of(&self, user: &UserId) -> u32 {
            self.versions.of(self.pages.get(user), self.period_index).1
        }
    }

    /// Sets limits one after the other and compares a user's version after each.
    fn check(user: &str, steps: &[(&str, u32)]) {
        let mut all = All::default();
        for (body, expected) in steps {
            if *body == "period ends" {
                all.versions.period_ends();
                all.period_index += 1;
            } else {
                all.set(&serde_json::from_str(body).expect("a body"));
            }
            assert_eq!(all.of(&id(user)), *expected, "{user} after {body} of {steps:?}");
        }
    }

    #[test]
    fn a_changed_default_is_a_new_version_for_those_without_a_limit_of_their_own() {
        let steps = [
            (r#"{"default_limit":"1000","custom":{"ana":"500"}}"#, 1),
            (r#"{"default_limit":"2000","custom":{"ana":"500"}}"#, 2),
            (r#"{"default_limit":"2000.0","custom":{"ana":"500"}}"#, 2),
        ];
        check("bo", &steps);
        check("ana", &steps.map(|(body, _)| (body, 1)));
    }

    #[test]
    fn unlimited_and_back_is_a_new_version() {
        check(
            "ana",
            &[
                (r#"{"custom":{"ana":"500"}}"#, 1),
                (r#"{"custom":{"ana":"unlimited"}}"#, 1),
                (r#"{"custom":{"ana":"500"}}"#, 2),
            ],
        );
        check("bo", &[(r#"{"default_limit":"5"}"#, 1), ("{}", 1), (r#"{"default_limit":"5"}"#, 2)]);
    }

    #[test]
    fn switching_off_and_on_is_no_new_version() {
        check(
            "ana",
            &[
                (r#"{"default_limit":"5"}"#, 1),
                (r#"{"enabled":false,"default_limit":"5"}"#, 1),
                (r#"{"enabled":true,"default_limit":"5"}"#, 1),
            ],
        );
    }

    #[test]
    fn a_limit_of_ones_own_that_equals_the_default_is_no_change() {
        check(
            "ana",
            &[
                (r#"{"default_limit":"5"}"#, 1),
                (r#"{"default_limit":"5","custom":{"ana":"5"}}"#, 1),
                (r#"{"default_limit":"7","custom":{"ana":"5"}}"#, 1),
                (r#"{"default_limit":"5"}"#, 1),
                (r#"{"default_limit":"6"}"#, 2),
            ],
        );
    }

    #[test]
    fn who_had_a_limit_of_his_own_counts_on_from_there() {
        check(
            "ana",
            &[
                (r#"{"default_limit":"5","custom":{"ana":"1"}}"#, 1),
                (r#"{"default_limit":"5","custom":{"ana":"2"}}"#, 2),
                (r#"{"default_limit":"5","custom":{"ana":"3"}}"#, 3),
                (r#"{"default_limit":"5"}"#, 4),
                (r#"{"default_limit":"6"}"#, 5),
                (r#"{"default_limit":"6","custom":{"ana":"1"}}"#, 6),
                (r#"{"default_limit":"6"}"#, 7),
                // Another period distinguishes them by itself.
                ("period ends", 2),
            ],
        );
    }

    #[test]
    fn replacing_own_limits_under_one_default_takes_no_room() {
        let mut all = All::default();
        for n in 0..3 * ENDED_MAX {
            let custom = BTreeMap::from([(id(&format!("u{n}")), Limit::Unlimited)]);
            let default_limit = Some(Credits::whole(1));
            all.set(&SetLimits { custom: Some(custom), default_limit, ..SetLimits::default() });
        }
        assert!(all.versions.ended.len() <= 2 && all.versions.merged.is_none(), "{:?}", all.versions);
        // Each had one value and then the default's: `u0` had only the default's.
        assert_eq!([all.of(&id("u0")), all.of(&id("u1")), all.of(&id("never"))], [1, 2, 1]);
    }

    /// A user who has lost a limit keeps counting, also when there are more series than are told apart.
    #[test]
    fn no_version_comes_again_however_often_own_limits_are_replaced() {
        let blocks = 5;
        let user = |block: usize, n: usize| id(&format!("u{block}-{n}"));
        let mut all = All::default();
        let mut highest: BTreeMap<UserId, u32> = BTreeMap::new();
        for step in 0..4 * ENDED_MAX {
            let limit = |n: usize| Limit::At(Credits::whole(i64::try_from(step + n).expect("small")));
            // The last block has a limit of its own in one series only, and is among the merged later.
            let block = if step == 2 { blocks } else { step * 3 % blocks };
            let custom = (0..9).map(|n| (user(block, n), limit(n))).collect();
            let default = i64::try_from(step).expect("small");
            let default_limit = (step % 5 > 1).then(|| Credits::whole(default));
            all.set(&SetLimits { custom: Some(custom), default_limit, ..SetLimits::default() });
            for user in (0..=blocks).flat_map(|block| (0..9).map(move |n| user(block, n))) {
                let version = all.of(&user);
                let before = highest.insert(user.clone(), version).unwrap_or(0);
                assert!(version >= before, "{user} at step {step}: {version} after {before}");
            }
        }
        assert_eq!(all.versions.ended.len(), ENDED_MAX);
        assert!(all.versions.merged.is_some());
    }
}
