//! Rules: alerts as an account's admins set them, with their defaults filled in, and when a figure reaches them.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::account::Core;
use crate::credits::Credits;
use crate::event::{Basis, Channel, Recipients, SetOrgAlert, SetUserAlert};

/// Most org alerts that stand on an account at once.
pub const ORG_ALERTS_MAX: usize = 1_000;
/// Where an org alert is told that names no channels: a webhook is for those who ask for it.
const CHANNELS_DEFAULT: [Channel; 2] = [Channel::Email, Channel::InApp];

/// An alert on the account's own figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrgAlert {
    /// The figure that it watches.
    pub basis: Basis,
    /// Percent, or an amount in the account's unit.
    pub threshold: Credits,
    /// Who is told.
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
    /// Whether the user is told too.
    pub notify_user: bool,
    /// Who else is told.
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

/// Returns the figure that a basis stands for where it has reached a threshold, in the threshold's unit.
///
/// Percents are compared exactly and shown rounded; without a maximum above 0 there are none.
pub fn org_figure(core: &Core, basis: Basis, threshold: Credits) -> Option<Credits> {
    let (used, settled, maximum) = (core.figures.used, core.settled(), core.figures.maximum());
    let percent = |part: Credits, reached: fn(Ordering) -> bool| {
        let is_reached = part.cmp_percent(threshold, maximum).is_some_and(reached);
        is_reached.then(|| part.percent_of(maximum).unwrap_or(Credits::MAX_SUM).min(Credits::MAX_SUM))
    };
    match basis {
        Basis::PercentUsed => percent(used, Ordering::is_ge),
        Basis::AbsoluteUsed => (used >= threshold).then_some(used),
        Basis::PercentRemaining => percent(settled.max(Credits::ZERO), Ordering::is_le),
        Basis::AbsoluteRemaining => (settled <= threshold).then_some(settled),
    }
}
