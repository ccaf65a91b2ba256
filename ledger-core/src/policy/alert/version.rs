//! Versions: counts the changes of a threshold, so that each version fires anew.
//!
//! A limit's version is per user, and an account may have a million users; so the default's changes are counted once,
//! and separately only for users who have their own limit, or had one in the open period.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::account::limit::Limits;
use crate::event::Limit;
use crate::value::credits::Credits;
use crate::value::id::UserId;

/// Most users whose versions are kept after they lost their own limit; beyond that, those with the lowest versions are
/// forgotten, and may be reported once more in the period.
pub const FORMER_MAX: usize = 10_000;

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

/// One user's own limit and the number of values it has had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Own {
    limit: Limit,
    version: u32,
}

/// Versions of every user's limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LimitVersions {
    /// For users who never had their own limit.
    default: Threshold,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    own: BTreeMap<UserId, Own>,
    /// For users who had their own limit: how far their version is from the default's. It moves with the default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    former: BTreeMap<UserId, i64>,
}

impl LimitVersions {
    /// Returns the version of a user's limit.
    pub fn of(&self, user: &UserId) -> u32 {
        if let Some(own) = self.own.get(user) {
            return own.version;
        }
        let apart = self.former.get(user).copied().unwrap_or(0);
        u32::try_from(i64::from(self.default.version) + apart).unwrap_or(u32::MAX)
    }

    /// Applies the current limits, enabled or not.
    pub fn set(&mut self, limits: &Limits) {
        let mut default = self.default.clone();
        default.set(limits.default_limit);
        let touched: BTreeSet<&UserId> = self.own.keys().chain(limits.custom.keys()).collect();
        let (mut own, mut former) = (BTreeMap::new(), self.former.clone());
        for user in touched {
            let mut threshold = self.threshold(user);
            threshold.set(limits.limit_of(user));
            former.remove(user);
            if let Some(limit) = limits.custom.get(user) {
                own.insert(user.clone(), Own { limit: *limit, version: threshold.version });
            } else if threshold.version != default.version {
                former.insert(user.clone(), i64::from(threshold.version) - i64::from(default.version));
            }
        }
        *self = Self { default, own, former };
        self.forget_surplus();
    }

    /// Forgets former users beyond the most that are kept, and raises the default to the highest of their versions: from
    /// then on the default's version is theirs, and a version that has fired must never come again.
    fn forget_surplus(&mut self) {
        let surplus = self.former.len().saturating_sub(FORMER_MAX);
        if surplus == 0 {
            return;
        }
        let mut by_version: Vec<(i64, UserId)> =
            self.former.iter().map(|(user, apart)| (*apart, user.clone())).collect();
        by_version.sort_unstable();
        by_version.truncate(surplus);
        let raise = by_version.last().map_or(0, |(highest, _)| (*highest).max(0));
        for (_, user) in &by_version {
            self.former.remove(user);
        }
        self.former.values_mut().for_each(|apart| *apart -= raise);
        self.former.retain(|_, apart| *apart != 0);
        let version = self.default.version.saturating_add(u32::try_from(raise).unwrap_or(u32::MAX));
        self.default.version = version;
    }

    /// Applies one user's limit, of their own or the default again.
    pub fn set_one(&mut self, user: &UserId, limits: &Limits) {
        let mut threshold = self.threshold(user);
        threshold.set(limits.limit_of(user));
        self.former.remove(user);
        if let Some(limit) = limits.custom.get(user) {
            self.own.insert(user.clone(), Own { limit: *limit, version: threshold.version });
            return;
        }
        self.own.remove(user);
        if threshold.version != self.default.version {
            let apart = i64::from(threshold.version) - i64::from(self.default.version);
            self.former.insert(user.clone(), apart);
        }
        self.forget_surplus();
    }

    fn threshold(&self, user: &UserId) -> Threshold {
        let value = match self.own.get(user) {
            Some(own) => own.limit.amount(),
            None => self.default.value,
        };
        Threshold { value, version: self.of(user) }
    }

    /// Forgets users who had their own limit: versions only distinguish firings of one period.
    pub fn period_ends(&mut self) {
        self.former.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::SetLimits;

    fn id(text: &str) -> UserId {
        UserId::new(text).expect("an id")
    }

    /// Sets limits one after the other and compares a user's version after each.
    fn check(user: &str, steps: &[(&str, u32)]) {
        let mut versions = LimitVersions::default();
        for (body, expected) in steps {
            if *body == "period ends" {
                versions.period_ends();
            } else {
                let body: SetLimits = serde_json::from_str(body).expect("a body");
                versions.set(&Limits::of(&body, None));
            }
            assert_eq!(versions.of(&id(user)), *expected, "{user} after {body} of {steps:?}");
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
    fn so_many_former_limits_are_kept_and_no_more() {
        let mut versions = LimitVersions::default();
        for batch in 0..=FORMER_MAX / 2_000 + 1 {
            let custom = (0..2_000).map(|n| (id(&format!("u{batch}-{n}")), Limit::Unlimited)).collect();
            let mut limits = Limits::of(&SetLimits { custom: Some(custom), ..SetLimits::default() }, None);
            limits.default_limit = Some(Credits::whole(1));
            versions.set(&limits);
        }
        versions.set(&Limits::of(&SetLimits::default(), None));
        assert_eq!(versions.former.len(), FORMER_MAX);
        assert!(versions.own.is_empty());
    }

    /// Whoever has lost a limit keeps counting, also when there are more of them than are kept.
    #[test]
    fn no_version_comes_again_when_former_users_are_forgotten() {
        let blocks = FORMER_MAX / 2_000 + 2;
        let user = |block: usize, n: usize| id(&format!("u{block}-{n}"));
        let mut versions = LimitVersions::default();
        let mut highest: BTreeMap<UserId, u32> = BTreeMap::new();
        for step in 0..3 * blocks {
            let block = step * 3 % blocks;
            let of_block = (0..2_000).map(|n| {
                let limit = Credits::whole(i64::try_from(step + n).expect("small"));
                (user(block, n), Limit::At(limit))
            });
            let mut limits = Limits::of(&SetLimits::default(), None);
            limits.custom = of_block.collect();
            limits.default_limit = (step % 5 > 1).then(|| Credits::whole(1));
            versions.set(&limits);
            for user in (0..blocks).flat_map(|block| (0..2_000).step_by(97).map(move |n| user(block, n))) {
                let version = versions.of(&user);
                let before = highest.insert(user.clone(), version).unwrap_or(0);
                assert!(version >= before, "{user} at step {step}: {version} after {before}");
            }
        }
        assert!(
            versions.default.version > 2,
            "some were forgotten, and the default carries their versions on"
        );
    }
}
