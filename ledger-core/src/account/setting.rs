//! Settings of an account one by one, as callers read and replace them.

use serde_json::{Value, json};

use super::core::Core;
use crate::event::Data;
use crate::value::id::AlertId;

/// One setting of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting<'a> {
    /// Name, overdraft and low-balance threshold.
    Account,
    Plan,
    Limits,
    UserAlert,
    AutoTopUp,
    OrgAlert(&'a AlertId),
}

impl<'a> Setting<'a> {
    /// Returns the setting that an event replaces or removes, if it is one of these.
    pub fn of(data: &'a Data) -> Option<Setting<'a>> {
        if let Data::AccountChanged(_) = data {
            return Some(Setting::Account);
        }
        if let Data::PlanChanged(_) = data {
            return Some(Setting::Plan);
        }
        if let Data::LimitsSet(_) = data {
            return Some(Setting::Limits);
        }
        if let Data::UserAlertSet(_) = data {
            return Some(Setting::UserAlert);
        }
        if let Data::AutoTopUpSet(_) = data {
            return Some(Setting::AutoTopUp);
        }
        if let Data::OrgAlertSet(alert) = data {
            return Some(Setting::OrgAlert(&alert.alert_id));
        }
        if let Data::OrgAlertRemoved(removal) = data {
            return Some(Setting::OrgAlert(&removal.alert_id));
        }
        None
    }

    /// Returns what the account has of the setting: equal exactly if the setting is; null if it was never set.
    pub fn content(self, core: &Core) -> Value {
        match self {
            Setting::Account => json!([core.name, core.overdraft_policy, core.low_balance_threshold]),
            Setting::Plan => json!([core.plan, core.next_plan]),
            Setting::Limits => json!(core.limits),
            Setting::UserAlert => json!(core.user_alert),
            Setting::AutoTopUp => json!(core.top_ups.settings),
            Setting::OrgAlert(alert) => json!(core.org_alerts.get(alert)),
        }
    }
}
