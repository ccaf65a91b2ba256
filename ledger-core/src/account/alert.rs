//! Alert settings of an account, with their defaults filled in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Basis, Channel, Recipients, SetOrgAlert, SetUserAlert};
use crate::value::credits::Credits;

/// Most org alerts of an account.
pub const ORG_ALERTS_MAX: usize = 1_000;
/// Default channels of an org alert; a webhook is used only when it is named.
const CHANNELS_DEFAULT: [Channel; 2] = [Channel::Email, Channel::InApp];

/// An alert on the account's own figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrgAlert {
    pub basis: Basis,
    /// Percent, or an amount in the account's unit.
    pub threshold: Credits,
    pub recipients: Recipients,
    pub channels: Vec<Channel>,
}

impl From<&SetOrgAlert> for OrgAlert {
    fn from(body: &SetOrgAlert) -> Self {
        Self {
            basis: body.basis,
            threshold: body.threshold,
            recipients: body.recipients.clone().unwrap_or_default(),
            channels: body.channels.clone().unwrap_or_else(|| CHANNELS_DEFAULT.to_vec()),
        }
    }
}

/// An alert on each user's usage in the period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserAlert {
    pub enabled: bool,
    /// Usage of the period at which the alert fires; null only if the alert was never enabled.
    pub threshold: Option<Credits>,
    pub notify_user: bool,
    pub recipients: Recipients,
}

impl UserAlert {
    /// Fills in the defaults. A request that disables the alert without a threshold keeps the previous threshold.
    pub fn of(body: &SetUserAlert, before: Option<&UserAlert>) -> Self {
        Self {
            enabled: body.enabled.unwrap_or(true),
            threshold: body.threshold.or_else(|| before?.threshold),
            notify_user: body.notify_user.unwrap_or(false),
            recipients: body.recipients.clone().unwrap_or_default(),
        }
    }
}
