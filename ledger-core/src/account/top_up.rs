//! Auto top-up: an account's settings and the course of its attempts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Brake, SetAutoTopUp, TopUpBasis};
use crate::value::credits::{Credits, add, wide};
use crate::value::id::{AttemptId, PaymentMethodId};
use crate::value::time::Time;

/// Default limit of top-ups per period.
pub const MAX_PER_PERIOD: u32 = 10;
/// Wait after each consecutive failure: 1 h, 4 h, 24 h. One more failure suspends auto top-up.
pub const RETRY_AFTER_SECONDS: [i64; 3] = [3_600, 4 * 3_600, 24 * 3_600];

/// Auto top-up settings, with their defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AutoTopUp {
    pub enabled: bool,
    pub basis: TopUpBasis,
    /// A purchase is due when the figure is at or below this; null only if disabled.
    pub threshold: Option<Credits>,
    /// Credits of one purchase; null only if disabled.
    pub amount: Option<Credits>,
    /// Null only if disabled.
    pub payment_method: Option<PaymentMethodId>,
    /// Most top-ups that succeed in a period.
    pub max_per_period: u32,
    /// Most credits topped up in a period; null means no bound.
    pub max_amount_per_period: Option<Credits>,
}

impl From<&SetAutoTopUp> for AutoTopUp {
    fn from(body: &SetAutoTopUp) -> Self {
        Self {
            enabled: body.enabled.unwrap_or(false),
            basis: body.basis.unwrap_or_default(),
            threshold: body.threshold,
            amount: body.amount,
            payment_method: body.payment_method.clone(),
            max_per_period: body.max_per_period.unwrap_or(MAX_PER_PERIOD),
            max_amount_per_period: body.max_amount_per_period,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Derived from account and number; the provider's idempotency key.
    pub attempt_id: AttemptId,
    /// Counted from 1 on each account.
    pub number: u32,
    pub amount: Credits,
    pub payment_method: PaymentMethodId,
}

/// The state of an account's top-ups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopUps {
    /// The last saved settings; `None` if never saved.
    pub settings: Option<AutoTopUp>,
    /// Number of saves.
    pub version: u32,
    /// Numbers used up, by starts that applied and by starts that were no longer wanted.
    #[serde(rename = "asked")]
    pub numbers_used: u32,
    pub last: Option<Attempt>,
    /// Whether the last attempt's outcome is still unknown.
    pub is_open: bool,
    /// Consecutive failed attempts.
    pub failures: u32,
    /// No attempt starts before this time.
    pub retry_at: Option<Time>,
    /// Successes in the period of the last success.
    pub succeeded: Succeeded,
    /// Brakes whose refusal has been recorded.
    pub refused: Refused,
}

/// Successes of one period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succeeded {
    pub period_index: i64,
    pub count: u32,
    #[serde(deserialize_with = "wide")]
    pub amount: Credits,
}

/// Brakes that have refused in one period under one version of the settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub period_index: i64,
    pub version: u32,
    /// By the number of top-ups.
    pub by_count: bool,
    /// By their sum.
    pub by_amount: bool,
}

impl Refused {
    fn by(&self, brake: Brake) -> bool {
        match brake {
            Brake::MaxPerPeriod => self.by_count,
            Brake::MaxAmountPerPeriod => self.by_amount,
        }
    }
}

impl TopUps {
    /// Returns whether it was never set and never used.
    pub fn is_untouched(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the threshold while auto top-up is enabled.
    pub fn line(&self) -> Option<Credits> {
        self.settings.as_ref().filter(|settings| settings.enabled)?.threshold
    }

    pub fn succeeded_in(&self, period_index: i64) -> Succeeded {
        if self.succeeded.period_index == period_index {
            self.succeeded
        } else {
            Succeeded { period_index, ..Succeeded::default() }
        }
    }

    pub(crate) fn has_refused(&self, period_index: i64, brake: Brake) -> bool {
        let current = (self.refused.period_index, self.refused.version) == (period_index, self.version);
        current && self.refused.by(brake)
    }

    /// Applies saved settings as a new version, and forgets earlier failures.
    pub(crate) fn save(&mut self, body: &SetAutoTopUp) {
        self.settings = Some(AutoTopUp::from(body));
        self.version += 1;
        self.start_afresh();
    }

    /// Resets failures and their wait, after a purchase or a change of settings.
    pub(crate) fn start_afresh(&mut self) {
        self.failures = 0;
        self.retry_at = None;
    }

    /// Returns whether an attempt is the open one.
    pub fn has_open(&self, attempt: &AttemptId) -> bool {
        self.is_open && self.last.as_ref().is_some_and(|last| last.attempt_id == *attempt)
    }

    /// Records that an attempt was paid.
    pub(crate) fn succeed(&mut self, attempt: &AttemptId, amount: Credits, period_index: i64) {
        if self.has_open(attempt) {
            self.is_open = false;
        }
        self.start_afresh();
        let before = self.succeeded_in(period_index);
        let (count, amount) = (before.count + 1, add(before.amount, amount));
        self.succeeded = Succeeded { period_index, count, amount };
    }

    pub(crate) fn fail(&mut self, now: Time) {
        self.is_open = false;
        self.retry_at =
            RETRY_AFTER_SECONDS.get(self.failures as usize).map(|seconds| now.plus_seconds(*seconds));
        self.failures += 1;
    }

    /// Records that a brake has refused in this period under the current settings.
    pub(crate) fn refuse(&mut self, period_index: i64, brake: Brake) {
        let current = Refused { period_index, version: self.version, ..Refused::default() };
        if (self.refused.period_index, self.refused.version) != (period_index, self.version) {
            self.refused = current;
        }
        match brake {
            Brake::MaxPerPeriod => self.refused.by_count = true,
            Brake::MaxAmountPerPeriod => self.refused.by_amount = true,
        }
    }
}
