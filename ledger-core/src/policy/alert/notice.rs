//! Balance notices: each is raised once per episode.
//!
//! An episode begins when an addition leaves the figure above the line, so hovering around the line repeats nothing, and an
//! account that opens at 0 raises none. Every top-up raises its own.

use serde::{Deserialize, Serialize};

use super::Kind;
use crate::account::Core;
use crate::event::Data;
use crate::policy::balance::low_line;
use crate::value::credits::Credits;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    pub kind: Kind,
    /// Its number among the notices of its kind.
    pub n: u32,
    pub line: Credits,
    pub figure: Credits,
}

/// Episodes of one kind of notice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Episodes {
    /// Whether an episode has begun and its notice is still due.
    armed: bool,
    /// Number of notices raised.
    n: u32,
}

impl Episodes {
    fn due(&mut self, kind: Kind, line: Credits, figure: Credits) -> Due {
        self.n += 1;
        Due { kind, n: self.n, line, figure }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notices {
    low: Episodes,
    /// The last low-balance threshold seen.
    line: Option<Credits>,
    depleted: Episodes,
    /// Armed by each notice of depletion.
    again: Episodes,
    /// Number of reported top-ups, succeeded and failed.
    #[serde(default)]
    recharged: Episodes,
    #[serde(default)]
    failed: Episodes,
}

impl Notices {
    /// Evaluates the figures after a moment; `adds` means that credits were added.
    pub fn after(&mut self, core: &Core, adds: bool) -> impl Iterator<Item = Due> {
        let settled = core.settled();
        let low = self.low(core.lots.paid(), low_line(core), adds);
        let depleted = self.depleted(settled, adds);
        let again = self.available_again(settled);
        [low, depleted, again].into_iter().flatten()
    }

    /// Reports each top-up that succeeded or failed, at any balance.
    pub fn top_up(&mut self, core: &Core, data: &Data) -> Option<Due> {
        let line = core.top_ups.settings.as_ref().and_then(|settings| settings.threshold).unwrap_or_default();
        match data {
            Data::CreditsToppedUp(top_up) => {
                Some(self.recharged.due(Kind::CreditAutoRechargeTriggered, line, top_up.amount))
            }
            Data::TopUpFailed(_) => {
                let amount = core.top_ups.last.as_ref().map_or(Credits::ZERO, |attempt| attempt.amount);
                Some(self.failed.due(Kind::CreditPurchaseFailed, line, amount))
            }
            Data::AccountOpened(_)
            | Data::AccountChanged(_)
            | Data::AccountClosed(_)
            | Data::PlanChanged(_)
            | Data::ClockAdvanced(_)
            | Data::UsageRecorded(_)
            | Data::UsageReversed(_)
            | Data::CreditsGranted(_)
            | Data::GrantVoided(_)
            | Data::CreditsAdjusted(_)
            | Data::CreditsPurchased(_)
            | Data::CreditsRefunded(_)
            | Data::PeriodReset(_)
            | Data::LimitsSet(_)
            | Data::UserLimitSet(_)
            | Data::OrgAlertSet(_)
            | Data::OrgAlertRemoved(_)
            | Data::UserAlertSet(_)
            | Data::AutoTopUpSet(_)
            | Data::TopUpStarted(_)
            | Data::TopUpRefused(_)
            | Data::DisputeOpened(_)
            | Data::DisputeWon(_)
            | Data::RefundFailed(_) => None,
        }
    }

    /// Without a threshold, uses 0 and raises no notice.
    fn low(&mut self, figure: Credits, line: Option<Credits>, adds: bool) -> Option<Due> {
        let before = std::mem::replace(&mut self.line, line).unwrap_or_default();
        let now = line.unwrap_or_default();
        if figure > now {
            self.low.armed |= adds;
            return None;
        }
        let line_moved_above = figure > before;
        let is_due = std::mem::take(&mut self.low.armed) || line_moved_above;
        let line = line.filter(|_| is_due)?;
        Some(self.low.due(Kind::CreditBalanceLow, line, figure))
    }

    fn depleted(&mut self, settled: Credits, adds: bool) -> Option<Due> {
        if settled.is_positive() {
            self.depleted.armed |= adds;
            return None;
        }
        if !std::mem::take(&mut self.depleted.armed) {
            return None;
        }
        self.again.armed = true;
        Some(self.depleted.due(Kind::CreditBalanceDepleted, Credits::ZERO, settled))
    }

    /// Raised after any cause: an addition, a reversal, forgiveness.
    fn available_again(&mut self, settled: Credits) -> Option<Due> {
        if !settled.is_positive() || !std::mem::take(&mut self.again.armed) {
            return None;
        }
        Some(self.again.due(Kind::CreditsAvailableAgain, Credits::ZERO, settled))
    }
}
