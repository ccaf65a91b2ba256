//! Limits on what each user may use in a period.
//!
//! Limits block new work (`check`, `reserve`), never usage, which has already happened. Usage of an excluded feature does
//! not count, and exclusions apply to the whole period: changing them recounts it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::event::{Data, Limit, Recipients, SetLimits};
use crate::value::credits::{Credits, sub};
use crate::value::id::{Label, UserId};

/// An account's limits with their defaults filled in, without users' own: any number of users may have one, so each is a row
/// of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub enabled: bool,
    /// Limit of users without their own; `None` means no limit.
    pub default_limit: Option<Credits>,
    pub excluded_features: BTreeSet<Label>,
    pub notify: Recipients,
    /// How often all users' own limits were replaced at once; those of an earlier series are void.
    pub series: u64,
    /// Number of edits of users' own limits, of one or of all at once.
    pub own_edits: u64,
}

/// One user's own limit, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnLimit {
    /// The series in which it was set.
    pub series: u64,
    pub limit: Limit,
}

impl Limits {
    /// Fills in the defaults. A body without `custom` leaves users' own limits as they are; one with it replaces them all.
    pub fn of(body: &SetLimits, before: Option<&Limits>) -> Self {
        let (series, own_edits) = before.map_or((0, 0), |limits| (limits.series, limits.own_edits));
        let replaces_own = u64::from(body.custom.is_some());
        Self {
            enabled: body.enabled.unwrap_or(true),
            default_limit: body.default_limit,
            excluded_features: body.excluded_features.iter().flatten().cloned().collect(),
            notify: body.notify.clone().unwrap_or_default(),
            series: series + replaces_own,
            own_edits: own_edits + replaces_own,
        }
    }

    /// Returns a user's own limit, unless it is void.
    pub fn own(&self, stored: Option<&OwnLimit>) -> Option<Limit> {
        stored.filter(|own| own.series == self.series).map(|own| own.limit)
    }

    /// Returns a user's limit, their own before the default; `None` means no limit. Ignores `enabled`.
    pub fn limit_of(&self, own: Option<Limit>) -> Option<Credits> {
        own.map_or(self.default_limit, Limit::amount)
    }

    /// Returns the users' own limits that an event sets, once it has applied; `None` is one that it removes.
    pub fn own_set_by<'a>(
        &self,
        data: &'a Data,
    ) -> impl Iterator<Item = (&'a UserId, Option<OwnLimit>)> + use<'a> {
        let series = self.series;
        let all = if let Data::LimitsSet(set) = data { set.custom.as_ref() } else { None };
        let all = all.into_iter().flatten().map(|(user, limit)| (user, Some(*limit)));
        let one = if let Data::UserLimitSet(set) = data { Some((&set.user_id, set.limit)) } else { None };
        all.chain(one).map(move |(user, limit)| (user, limit.map(|limit| OwnLimit { series, limit })))
    }

    /// Returns whether usage of a feature counts; usage without a feature does.
    pub fn counts(&self, feature: Option<&Label>) -> bool {
        feature.is_none_or(|feature| !self.excluded_features.contains(feature))
    }

    /// Returns the usage of the period that counts, from the user's total and its parts by feature.
    pub fn counted<'a>(
        &self,
        used: Credits,
        by_feature: impl IntoIterator<Item = (&'a Label, &'a Credits)>,
    ) -> Credits {
        let excluded = by_feature.into_iter().filter(|(feature, _)| !self.counts(Some(feature)));
        excluded.fold(used, |counted, (_, credits)| sub(counted, *credits))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn body(text: &str) -> SetLimits {
        serde_json::from_str(text).expect("a body")
    }

    fn limits(text: &str) -> Limits {
        Limits::of(&body(text), None)
    }

    #[test]
    fn a_users_own_limit_wins_over_the_default() {
        let limits = limits(r#"{"default_limit":"1000"}"#);
        let check = |own: Option<Limit>, expected: Option<i64>| {
            assert_eq!(limits.limit_of(own), expected.map(Credits::whole), "{own:?}");
        };
        check(Some(Limit::At(Credits::whole(500))), Some(500));
        check(Some(Limit::Unlimited), None);
        check(Some(Limit::At(Credits::ZERO)), Some(0));
        check(None, Some(1000));
        assert_eq!(Limits::of(&body("{}"), Some(&limits)).limit_of(None), None);
    }

    #[test]
    fn own_limits_stay_where_they_are_not_named_and_are_replaced_where_they_are() {
        let before = limits(r#"{"custom":{"ana":"5","bo":"6"}}"#);
        let set = |text: &str| {
            let data = Data::LimitsSet(body(text));
            let after = Limits::of(&body(text), Some(&before));
            let stays = after.own(Some(&OwnLimit { series: before.series, limit: Limit::Unlimited }));
            let set = after.own_set_by(&data).map(|(user, own)| format!("{user} {}", own.is_some()));
            (stays.is_some(), set.collect::<Vec<_>>().join(", "), after.own_edits)
        };
        assert_eq!(set(r#"{"default_limit":"9"}"#), (true, String::new(), 1));
        assert_eq!(set(r#"{"custom":{"cy":"7","di":"8"}}"#), (false, "cy true, di true".into(), 2));
        assert_eq!(set(r#"{"custom":{}}"#), (false, String::new(), 2));
    }

    #[test]
    fn what_is_left_out_takes_its_default() {
        let limits = limits("{}");
        assert!(limits.enabled && limits.excluded_features.is_empty());
        assert_eq!((limits.default_limit, limits.notify), (None, Recipients::AllAdmins));
    }

    #[test]
    fn usage_within_excluded_features_does_not_count() {
        let limits = limits(r#"{"excluded_features":["workflow","voice"]}"#);
        let label = |text: &str| Label::new(text).expect("a label");
        let by_feature = BTreeMap::from([
            (label("workflow"), Credits::whole(30)),
            (label("agent_chat"), Credits::whole(20)),
            (label("voice"), Credits::whole(5)),
        ]);
        assert_eq!(limits.counted(Credits::whole(60), &by_feature), Credits::whole(25));
        assert!(limits.counts(None) && limits.counts(Some(&label("agent_chat"))));
        assert!(!limits.counts(Some(&label("workflow"))));
    }
}
