//! Limits on what each user may use in a period.
//!
//! Limits block new work (`check`, `reserve`), never usage, which has already happened. Usage of an excluded feature does
//! not count, and exclusions apply to the whole period: changing them recounts it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::event::{Limit, Recipients, SetLimits};
use crate::value::credits::{Credits, sub};
use crate::value::id::{Label, UserId};

/// Most users with a limit of their own.
pub const OWN_LIMITS_MAX: usize = 10_000;

/// An account's limits with their defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub enabled: bool,
    /// Limit of users without their own; `None` means no limit.
    pub default_limit: Option<Credits>,
    /// Users' own limits; they win over the default.
    pub custom: BTreeMap<UserId, Limit>,
    pub excluded_features: BTreeSet<Label>,
    pub notify: Recipients,
}

impl Limits {
    /// Fills in the defaults. A body without `custom` leaves users' own limits as they are; one with it replaces them all.
    pub fn of(body: &SetLimits, before: Option<&Limits>) -> Self {
        Self {
            enabled: body.enabled.unwrap_or(true),
            default_limit: body.default_limit,
            custom: body
                .custom
                .clone()
                .or_else(|| before.map(|limits| limits.custom.clone()))
                .unwrap_or_default(),
            excluded_features: body.excluded_features.iter().flatten().cloned().collect(),
            notify: body.notify.clone().unwrap_or_default(),
        }
    }

    /// Returns a user's limit, their own before the default; `None` means no limit. Ignores `enabled`.
    pub fn limit_of(&self, user: &UserId) -> Option<Credits> {
        match self.custom.get(user) {
            Some(limit) => limit.amount(),
            None => self.default_limit,
        }
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
    use super::*;

    fn id(text: &str) -> UserId {
        UserId::new(text).expect("an id")
    }

    fn limits(body: &str) -> Limits {
        Limits::of(&serde_json::from_str::<SetLimits>(body).expect("a body"), None)
    }

    fn check(body: &str, user: &str, expected: Option<i64>) {
        let limit = limits(body).limit_of(&id(user));
        assert_eq!(limit, expected.map(Credits::whole), "{user} under {body}");
    }

    #[test]
    fn a_users_own_limit_wins_over_the_default() {
        let body = r#"{"default_limit":"1000","custom":{"ana":"500","bo":"unlimited","cy":"0"}}"#;
        check(body, "ana", Some(500));
        check(body, "bo", None);
        check(body, "cy", Some(0));
        check(body, "dan", Some(1000));
        check(r#"{"custom":{"ana":"5"}}"#, "dan", None);
    }

    #[test]
    fn own_limits_stay_where_they_are_not_named_and_are_replaced_where_they_are() {
        let before = limits(r#"{"custom":{"ana":"5","bo":"6"}}"#);
        let after = |body: &str| {
            let body: SetLimits = serde_json::from_str(body).expect("a body");
            Limits::of(&body, Some(&before))
                .custom
                .into_keys()
                .map(|user| user.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(after(r#"{"default_limit":"9"}"#), ["ana", "bo"]);
        assert_eq!(after(r#"{"custom":{"cy":"7"}}"#), ["cy"]);
        assert!(after(r#"{"custom":{}}"#).is_empty());
    }

    #[test]
    fn what_is_left_out_takes_its_default() {
        let limits = limits("{}");
        assert!(limits.enabled && limits.custom.is_empty() && limits.excluded_features.is_empty());
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
