//! Alert settings of an account, with their defaults filled in.

use serde::{Deserialize, Serialize};

use crate::event::{Basis, Channel, Recipients, SetOrgAlert, SetUserAlert};
use crate::value::credits::Credits;

/// Most org alerts of an account.
pub const ORG_ALERTS_MAX: usize = 1_000;
/// Channels of an org alert that names none: a webhook must be named.
const CHANNELS_DEFAULT: [Channel; 2] = [Channel::Email, Channel::InApp];

/// An alert on the account's own figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrgAlert {
    /// The figure that it watches.
    pub basis: Basis,
    /// Percent, or an amount in the account's unit.
    pub threshold: Credits,
    pub recipients: Recipients,
    /// By which ways.
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

/// An alert on the usage of each user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserAlert {
    /// Whether it fires.
    pub enabled: bool,
    /// Usage of the period that it fires at; none only where it was never switched on.
    pub threshold: Option<Credits>,
    /// Whether the user is notified too.
    pub notify_user: bool,
    /// Who else is notified.
    pub recipients: Recipients,
}

impl UserAlert {
    /// Fills in the defaults; who switches the alert off without a threshold keeps the one that stood.
    pub fn of(body: &SetUserAlert, before: Option<&UserAlert>) -> Self {
        Self {
            enabled: body.enabled.unwrap_or(true),
            threshold: body.threshold.or_else(|| before?.threshold),
            notify_user: body.notify_user.unwrap_or(false),
            recipients: body.recipients.clone().unwrap_or_default(),
        }
    }
}
