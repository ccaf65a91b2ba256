//! The naive model: every open hold by itself, and every sum made anew.

use std::collections::BTreeMap;
use std::rc::Rc;

use ledger_core::account::Core;
use ledger_core::event::{Event, Limit, OnExhausted};
use ledger_core::policy::decide::Work;
use ledger_core::policy::hold::{ByFeature, Hold, State};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{EventId, Label, ReservationId, UserId};
use ledger_core::value::time::Time;

use crate::store::add;

/// A usage that a caller was told is charged.
pub struct Charge {
    pub event: Event,
    pub credits: Credits,
    /// The hold had ended before: it holds nothing but the charge.
    pub late: bool,
}

pub type Charges = BTreeMap<(EventId, ReservationId), Charge>;

/// A naive reader's view of an account at a position: every open hold by itself.
#[derive(Debug)]
pub struct Seen {
    pub core: Rc<Core>,
    pub now: Time,
    pub open: BTreeMap<ReservationId, (Option<UserId>, Option<Label>, Credits)>,
    pub used: BTreeMap<UserId, ByFeature>,
    pub own: BTreeMap<UserId, Limit>,
}

impl Seen {
    pub fn note(&mut self, hold: &Hold, charges: &Charges) {
        let id = &hold.reservation_id;
        let amount = match (hold.state, &hold.settlement) {
            (State::Held, _) if hold.expires_at > self.now => hold.amount,
            (State::Settling, Some(by)) => {
                let charge = &charges[&(by.event_id.clone(), id.clone())];
                if charge.late { charge.credits } else { charge.credits.max(hold.amount) }
            }
            _ => {
                self.open.remove(id);
                return;
            }
        };
        self.open.insert(id.clone(), (hold.user_id.clone(), hold.feature.clone(), amount));
    }

    pub fn allows(&self, work: &Work) -> bool {
        let requested = work.amount.unwrap_or_default();
        self.limit_allows(work, requested) && self.balance_allows(requested)
    }

    fn limit_allows(&self, work: &Work, requested: Credits) -> bool {
        let (Some(user), Some(limits)) = (&work.user_id, &self.core.limits) else { return true };
        let excluded = |feature: &Option<Label>| {
            feature.as_ref().is_some_and(|feature| limits.excluded_features.contains(feature))
        };
        let limit = self.own.get(user).map_or(limits.default_limit, |own| own.amount());
        let Some(limit) = limit.filter(|_| limits.enabled && !excluded(&work.feature)) else { return true };
        let mine = self
            .open
            .values()
            .filter(|(holder, feature, _)| holder.as_ref() == Some(user) && !excluded(feature));
        let used = self.used.get(user).into_iter().flatten().filter(|(feature, _)| !excluded(feature));
        let taken = used.map(|(_, sum)| *sum).chain(mine.map(|(_, _, amount)| *amount)).fold(requested, add);
        taken <= limit
    }

    fn balance_allows(&self, requested: Credits) -> bool {
        let floor = match self.core.plan.on_exhausted {
            OnExhausted::Block => Some(Credits::ZERO),
            OnExhausted::Allow => self.core.plan.overage_limit.map(Credits::negated),
        };
        let taken = self.open.values().map(|(_, _, amount)| *amount).fold(requested, add);
        floor.is_none_or(|floor| add(self.core.settled(), taken.negated()) >= floor)
    }
}

pub fn counted(core: &Core, used: ByFeature) -> Credits {
    let limits = core.limits.as_ref().expect("set at the opening");
    used.iter()
        .filter(|(feature, _)| limits.counts(feature.as_ref()))
        .map(|(_, sum)| *sum)
        .fold(Credits::ZERO, add)
}
