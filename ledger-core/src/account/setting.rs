//! Settings of an account one by one, as callers read and replace them.

use serde_json::{Value, json};

use super::core::Core;
use super::limit::OwnLimit;
use crate::event::Data;
use crate::value::id::{AlertId, UserId};

/// One setting of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting<'a> {
    /// Name, overdraft and low-balance threshold.
    Account,
    Plan,
    Limits,
    /// The limits that users have of their own.
    UserLimits,
    UserLimit(&'a UserId),
    UserAlert,
    AutoTopUp,
    OrgAlert(&'a AlertId),
}

impl<'a> Setting<'a> {
    /// Returns the setting that an event replaces or removes; none if it is about no setting.
    pub fn of(data: &'a Data) -> Option<Setting<'a>> {
        match data {
            Data::AccountChanged(_) => Some(Setting::Account),
            Data::PlanChanged(_) => Some(Setting::Plan),
            Data::LimitsSet(_) => Some(Setting::Limits),
            Data::UserLimitSet(set) => Some(Setting::UserLimit(&set.user_id)),
            Data::UserAlertSet(_) => Some(Setting::UserAlert),
            Data::AutoTopUpSet(_) => Some(Setting::AutoTopUp),
            Data::OrgAlertSet(alert) => Some(Setting::OrgAlert(&alert.alert_id)),
            Data::OrgAlertRemoved(removal) => Some(Setting::OrgAlert(&removal.alert_id)),
            Data::AccountOpened(_)
            | Data::AccountClosed(_)
            | Data::ClockAdvanced(_)
            | Data::PeriodReset(_)
            | Data::UsageRecorded(_)
            | Data::UsageReversed(_)
            | Data::CreditsGranted(_)
            | Data::GrantVoided(_)
            | Data::CreditsAdjusted(_)
            | Data::CreditsPurchased(_)
            | Data::CreditsToppedUp(_)
            | Data::CreditsRefunded(_)
            | Data::RefundFailed(_)
            | Data::DisputeOpened(_)
            | Data::DisputeWon(_)
            | Data::TopUpStarted(_)
            | Data::TopUpFailed(_)
            | Data::TopUpRefused(_) => None,
        }
    }

    /// Returns the setting that shows this one among others: who has read it has read this one too.
    pub fn list(self) -> Option<Setting<'a>> {
        match self {
            Setting::UserLimit(_) => Some(Setting::UserLimits),
            Setting::Account
            | Setting::Plan
            | Setting::Limits
            | Setting::UserLimits
            | Setting::UserAlert
            | Setting::AutoTopUp
            | Setting::OrgAlert(_) => None,
        }
    }

    /// Returns the user whose own limit the setting is.
    pub fn limited_user(self) -> Option<&'a UserId> {
        match self {
            Setting::UserLimit(user) => Some(user),
            Setting::Account
            | Setting::Plan
            | Setting::Limits
            | Setting::UserLimits
            | Setting::UserAlert
            | Setting::AutoTopUp
            | Setting::OrgAlert(_) => None,
        }
    }

    /// Returns what the account has of the setting: another one whenever the setting has changed; null if it was never set.
    /// `own` is the stored limit of the user whose limit the setting is. Of users' own limits together their number of edits
    /// stands for what they are.
    pub fn content(self, core: &Core, own: Option<&OwnLimit>) -> Value {
        let limits = core.limits.as_ref();
        match self {
            Setting::Account => json!([core.name, core.overdraft_policy, core.low_balance_threshold]),
            Setting::Plan => json!([core.plan, core.next_plan]),
            Setting::Limits => json!(core.limits),
            Setting::UserLimits => {
                json!(limits.map(|limits| limits.own_edits).filter(|own_edits| *own_edits > 0))
            }
            Setting::UserLimit(_) => json!(limits.and_then(|limits| limits.own(own))),
            Setting::UserAlert => json!(core.user_alert),
            Setting::AutoTopUp => json!(core.top_ups.settings),
            Setting::OrgAlert(alert) => json!(core.org_alerts.get(alert)),
        }
    }
}
