//! A firing: one alert or notice, and its audience.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{Channel, Recipients, derive};
use crate::value::credits::{Credits, wide};
use crate::value::id::{AccountId, AlertId, EventId, SubjectId};
use crate::value::time::Time;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "FiringKind")]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An org alert's figure has reached its threshold.
    OrgAlert,
    /// A user's usage has reached the user alert's threshold.
    UserAlert,
    /// A user's counted usage has reached their limit.
    UserLimitReached,
    /// Bought credits are at or below the threshold.
    CreditBalanceLow,
    /// The balance is 0 or less.
    CreditBalanceDepleted,
    /// The balance is above 0 again after depletion.
    CreditsAvailableAgain,
    /// An auto top-up succeeded.
    CreditAutoRechargeTriggered,
    /// An auto top-up failed.
    CreditPurchaseFailed,
}

impl Kind {
    pub const ALL: [Kind; 8] = [
        Kind::OrgAlert,
        Kind::UserAlert,
        Kind::UserLimitReached,
        Kind::CreditBalanceLow,
        Kind::CreditBalanceDepleted,
        Kind::CreditsAvailableAgain,
        Kind::CreditAutoRechargeTriggered,
        Kind::CreditPurchaseFailed,
    ];

    pub fn as_str(&self) -> &'static str {
        match self {
            Kind::OrgAlert => "org_alert",
            Kind::UserAlert => "user_alert",
            Kind::UserLimitReached => "user_limit_reached",
            Kind::CreditBalanceLow => "credit_balance_low",
            Kind::CreditBalanceDepleted => "credit_balance_depleted",
            Kind::CreditsAvailableAgain => "credits_available_again",
            Kind::CreditAutoRechargeTriggered => "credit_auto_recharge_triggered",
            Kind::CreditPurchaseFailed => "credit_purchase_failed",
        }
    }
}

/// One firing of a rule. Its JSON is the admins' view, without the audience.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firing {
    /// Derived: replays and second workers produce the same id.
    pub firing_id: Uuid,
    pub kind: Kind,
    /// Only for org alerts.
    pub alert_id: Option<AlertId>,
    /// The account, or the user for `user_alert` and `user_limit_reached`.
    pub subject: SubjectId,
    /// The threshold reached: percent, or an amount in the account's unit.
    #[serde(deserialize_with = "wide")]
    pub threshold: Credits,
    /// Version of the threshold; 1 for notices.
    pub threshold_version: u32,
    pub period_index: i64,
    /// The figure at the firing, in the threshold's unit.
    #[serde(deserialize_with = "wide")]
    pub figure: Credits,
    /// Ledger time of the event, or the instant of a crossing.
    pub fired_at: Time,
    /// The event, or the derived id of a crossing.
    pub event_id: EventId,
    #[serde(skip)]
    pub audience: Audience,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audience {
    /// The rule's recipients when it fired.
    pub recipients: Recipients,
    /// The rule's channels; a recipient may lack some of them.
    pub channels: Vec<Channel>,
    /// Whether the user who is the subject is notified as well.
    pub notify_user: bool,
}

/// Returns the id of an alert's firing for one subject in one period; only org alerts have an id of their own.
pub fn firing_id(
    account: &AccountId,
    kind: Kind,
    alert: Option<&AlertId>,
    version: u32,
    subject: &SubjectId,
    period_index: i64,
) -> Uuid {
    let alert = alert.map_or("-", AlertId::as_str);
    let (version, period) = (version.to_string(), period_index.to_string());
    derive::named("firing", &[account.as_str(), kind.as_str(), alert, &version, subject.as_str(), &period])
}

/// Returns the id of an account's `n`-th notice of a kind.
pub fn notice_id(account: &AccountId, kind: Kind, n: u32) -> Uuid {
    derive::named("notice", &[account.as_str(), kind.as_str(), &n.to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firing_is_shown_as_the_contract_says() {
        let acme = AccountId::new("acme").expect("an id");
        let alert = AlertId::new("a75").expect("an id");
        let firing = Firing {
            firing_id: firing_id(&acme, Kind::OrgAlert, Some(&alert), 1, &acme.as_subject(), 1),
            kind: Kind::OrgAlert,
            alert_id: Some(alert),
            subject: acme.as_subject(),
            threshold: Credits::whole(75),
            threshold_version: 1,
            period_index: 1,
            figure: "75.2".parse().expect("an amount"),
            fired_at: "2026-02-03T10:00:00Z".parse().expect("a time"),
            event_id: EventId::new("msg-1:1").expect("an id"),
            audience: Audience::default(),
        };
        let json = serde_json::to_value(&firing).expect("JSON");
        let expected = serde_json::json!({
            "firing_id": firing.firing_id.to_string(), "kind": "org_alert", "alert_id": "a75", "subject": "acme",
            "threshold": "75", "threshold_version": 1, "period_index": 1, "figure": "75.2",
            "fired_at": "2026-02-03T10:00:00Z", "event_id": "msg-1:1",
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<Firing>(json).expect("a firing"), firing);
    }

    #[test]
    fn kinds_are_written_by_their_names() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.as_str());
        }
    }

    #[test]
    fn ids_of_firings_and_notices_never_change() {
        let acme = AccountId::new("acme").expect("an id");
        let firing = |kind, alert: Option<&str>, version, subject| {
            let alert = alert.map(|id| AlertId::new(id).expect("an id"));
            firing_id(&acme, kind, alert.as_ref(), version, &SubjectId::new(subject).expect("an id"), 3)
                .to_string()
        };
        // Frozen: reported firings carry it.
        let of_alert = firing(Kind::OrgAlert, Some("a75"), 1, "acme");
        assert_eq!(of_alert, "b38e1708-ae5b-56a2-b03c-94beb6e58ca5");
        let of_user = firing(Kind::UserAlert, None, 1, "ana");
        assert_eq!(of_user, "3b95cca7-4324-5e45-a0b6-65a88ad95c19");
        let of_limit = firing(Kind::UserLimitReached, None, 2, "ana");
        assert_eq!(of_limit, "57e37cb4-fa55-5ed7-8d70-37255a28a9f2");
        let notice = notice_id(&acme, Kind::CreditBalanceLow, 2).to_string();
        assert_eq!(notice, "c389f02f-7959-5f00-b5db-209d1e74fff5");
    }
}
