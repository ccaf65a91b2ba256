//! Auto top-up: when credits are bought without being asked for, and what holds that back.
//!
//! The journal decides. `want` says what the events so far ask for; whoever runs top-ups writes that down, and the fold
//! takes a `top_up.started` only where it is wanted at its own place in the log. So one attempt is open at a time and no
//! brake is passed, whatever races; and since only a start that has applied is charged, replaying charges nobody.

use serde::{Deserialize, Serialize};

use crate::account::Core;
use crate::credits::{Credits, wide};
use crate::derive::{self, TOP_UPS};
use crate::event::{Brake, Data, Event, FailTopUp, RefuseTopUp, SetAutoTopUp, StartTopUp, TopUp, TopUpBasis};
use crate::id::{EventId, Id, Label, Source, Text};
use crate::lot::more;
use crate::time::Time;

/// Top-ups of a period, unless the settings say otherwise.
pub const MAX_PER_PERIOD: u32 = 10;
/// How long the next try waits after each failure in a row: 1 h, 4 h, 24 h. After one more, auto top-up rests.
pub const RETRY_AFTER_SECONDS: [i64; 3] = [3_600, 4 * 3_600, 24 * 3_600];

/// Auto top-up as an account's admins set it, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoTopUp {
    /// Whether it buys.
    pub enabled: bool,
    /// The figure that it watches.
    pub basis: TopUpBasis,
    /// Buys when the figure is here or below; none only where it is off.
    pub threshold: Option<Credits>,
    /// What it buys at once; none only where it is off.
    pub amount: Option<Credits>,
    /// What pays; none only where it is off.
    pub payment_method: Option<Id>,
    /// Most top-ups that succeed in a period.
    pub max_per_period: u32,
    /// Most that is topped up in a period; none = no bound.
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

/// One attempt to top up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Derived from account and number; the provider's idempotency key.
    pub attempt_id: Id,
    /// Counted from 1 on each account.
    pub number: u32,
    /// What it buys.
    pub amount: Credits,
    /// What pays.
    pub payment_method: Id,
}

/// What the events so far say about an account's top-ups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopUps {
    /// As last saved; none where it never was.
    pub settings: Option<AutoTopUp>,
    /// How often it was saved.
    pub version: u32,
    /// Numbers used up: of starts that applied, and of those that came too late to be wanted.
    pub asked: u32,
    /// The attempt that started last.
    pub last: Option<Attempt>,
    /// Whether its outcome is not known yet.
    pub is_open: bool,
    /// Attempts that failed in a row.
    pub failures: u32,
    /// No attempt starts before.
    pub retry_at: Option<Time>,
    /// What succeeded in the period that had the last success.
    pub succeeded: Succeeded,
    /// Brakes that have said that they refuse.
    pub refused: Refused,
}

/// Successes of one period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succeeded {
    /// Which period.
    pub period_index: i64,
    /// How many.
    pub count: u32,
    /// How much together.
    #[serde(deserialize_with = "wide")]
    pub amount: Credits,
}

/// Brakes that have refused in one period under one version of the settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which period.
    pub period_index: i64,
    /// Which version.
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

/// What the events so far ask of whoever runs top-ups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Nothing: it is off, the figure is above the threshold, or a brake has refused and said so.
    Nothing,
    /// An attempt is to start.
    Start(Attempt),
    /// A brake refuses, and is to say so.
    Refuse(Brake),
    /// The next try has to wait.
    Wait(Time),
    /// The outcome of this attempt.
    Outcome(Attempt),
}

/// Returns what an account's events so far ask for.
pub fn want(core: &Core) -> Want {
    let top_ups = &core.top_ups;
    if let (true, Some(attempt)) = (top_ups.is_open, &top_ups.last) {
        return Want::Outcome(attempt.clone());
    }
    let Some(settings) = top_ups.settings.as_ref().filter(|settings| settings.enabled) else {
        return Want::Nothing;
    };
    let (Some(threshold), Some(amount), Some(payment_method)) =
        (settings.threshold, settings.amount, &settings.payment_method)
    else {
        return Want::Nothing;
    };
    if figure(core, settings.basis) > threshold || top_ups.failures as usize > RETRY_AFTER_SECONDS.len() {
        return Want::Nothing;
    }
    if let Some(until) = top_ups.retry_at.filter(|until| *until > core.ledger_time) {
        return Want::Wait(until);
    }
    match brake(core, settings, amount) {
        Some(brake) if top_ups.has_refused(core.period.index, brake) => Want::Nothing,
        Some(brake) => Want::Refuse(brake),
        None => {
            let number = top_ups.asked + 1;
            let attempt_id = derive::attempt_id(&core.account, number);
            Want::Start(Attempt { attempt_id, number, amount, payment_method: payment_method.clone() })
        }
    }
}

fn figure(core: &Core, basis: TopUpBasis) -> Credits {
    match basis {
        TopUpBasis::CreditBalance => core.lots.paid(),
        TopUpBasis::AvailableBalance => core.settled(),
    }
}

fn brake(core: &Core, settings: &AutoTopUp, amount: Credits) -> Option<Brake> {
    let succeeded = core.top_ups.succeeded_in(core.period.index);
    if succeeded.count >= settings.max_per_period {
        return Some(Brake::MaxPerPeriod);
    }
    let most = settings.max_amount_per_period?;
    (more(succeeded.amount, amount) > most).then_some(Brake::MaxAmountPerPeriod)
}

impl TopUps {
    /// Says whether nothing was ever heard of it.
    pub fn is_untouched(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the threshold while it is on.
    pub fn line(&self) -> Option<Credits> {
        self.settings.as_ref().filter(|settings| settings.enabled)?.threshold
    }

    /// Returns what succeeded in a period.
    pub fn succeeded_in(&self, period_index: i64) -> Succeeded {
        if self.succeeded.period_index == period_index {
            self.succeeded
        } else {
            Succeeded { period_index, ..Succeeded::default() }
        }
    }

    fn has_refused(&self, period_index: i64, brake: Brake) -> bool {
        let current = (self.refused.period_index, self.refused.version) == (period_index, self.version);
        current && self.refused.by(brake)
    }

    /// Takes in saved settings: whatever went wrong before is forgotten.
    pub(crate) fn save(&mut self, body: &SetAutoTopUp) {
        self.settings = Some(AutoTopUp::from(body));
        self.version += 1;
        self.start_afresh();
    }

    /// Forgets failures and their wait: credits were paid for, or settings saved.
    pub(crate) fn start_afresh(&mut self) {
        self.failures = 0;
        self.retry_at = None;
    }

    /// Says whether an attempt is the one that is open.
    pub fn has_open(&self, attempt: &Id) -> bool {
        self.is_open && self.last.as_ref().is_some_and(|last| last.attempt_id == *attempt)
    }

    /// Notes that an attempt was paid.
    pub(crate) fn succeed(&mut self, attempt: &Id, amount: Credits, period_index: i64) {
        if self.has_open(attempt) {
            self.is_open = false;
        }
        self.start_afresh();
        let before = self.succeeded_in(period_index);
        let (count, amount) = (before.count + 1, more(before.amount, amount));
        self.succeeded = Succeeded { period_index, count, amount };
    }

    /// Notes that the open attempt failed.
    pub(crate) fn fail(&mut self, now: Time) {
        self.is_open = false;
        self.retry_at =
            RETRY_AFTER_SECONDS.get(self.failures as usize).map(|seconds| now.plus_seconds(*seconds));
        self.failures += 1;
    }

    /// Notes that a brake has said that it refuses, in this period under the settings as they stand.
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

/// Makes the event by which an attempt starts.
pub fn started(account: &Id, attempt: &Attempt, at: Time) -> Event {
    let Attempt { attempt_id, amount, payment_method, .. } = attempt.clone();
    let id = EventId::from(&attempt_id);
    event(account, id, at, Data::TopUpStarted(StartTopUp { attempt_id, amount, payment_method }))
}

/// Makes the event by which a brake says that it refuses, in the open period under the settings as they stand.
pub fn refused(core: &Core, brake: Brake, at: Time) -> Event {
    let id = refused_id(core, brake);
    event(&core.account, id, at, Data::TopUpRefused(RefuseTopUp { reason: brake }))
}

/// Returns the id of a brake's refusal in the open period under the settings as they stand.
pub(crate) fn refused_id(core: &Core, brake: Brake) -> EventId {
    derive::top_up_refused_id(&core.account, brake, core.top_ups.version, core.period.index)
}

/// Makes the event by which an attempt that was paid is credited.
pub fn succeeded(account: &Id, attempt_id: Id, payment_id: Id, amount: Credits, at: Time) -> Event {
    let id = derive::topped_up_id(account, &attempt_id);
    event(account, id, at, Data::CreditsToppedUp(TopUp { attempt_id, payment_id, amount }))
}

/// Makes the event by which an attempt ends that was not paid.
pub fn failed(account: &Id, attempt_id: Id, reason: Text, at: Time) -> Event {
    let id = derive::top_up_failed_id(account, &attempt_id);
    event(account, id, at, Data::TopUpFailed(FailTopUp { attempt_id, reason }))
}

fn event(account: &Id, id: EventId, at: Time, data: Data) -> Event {
    Event {
        id,
        source: Source::new(TOP_UPS).expect("a well-formed source"),
        account: account.clone(),
        occurred_at: at,
        recorded_at: at,
        actor: Label::new("auto-top-up").expect("a well-formed label"),
        data,
    }
}
