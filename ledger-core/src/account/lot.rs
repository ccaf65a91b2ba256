//! Lots: credits added at once, and the order in which they are used.
//!
//! `Lots` holds the open lots with credits left. An empty lot moves to the lot table; a reversal, a refund or a plan change
//! that names it brings it back.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::event::{LotSource, Price};
use crate::value::credits::{Credits, add, sub, wide};
use crate::value::id::{EventId, GrantId, PaymentId, Text};
use crate::value::time::Time;

/// Most open lots with credits left that grants and adjustments may create; plan, rollover and paid lots always fit.
pub const OPEN_LOTS_MAX: usize = 10_000;

/// Credits added at once, with what remains of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lot {
    /// Unique per account, shared with payments.
    pub grant_id: GrantId,
    pub source: LotSource,
    #[serde(deserialize_with = "wide")]
    pub amount: Credits,
    #[serde(deserialize_with = "wide")]
    pub remaining: Credits,
    /// Credits that expired or were voided, minus those that refunds have counted.
    #[serde(deserialize_with = "wide")]
    pub lapsed: Credits,
    /// Credits refunded from its payment.
    #[serde(deserialize_with = "wide")]
    pub refunded: Credits,
    /// Lower burns first.
    pub priority: i32,
    /// Start of validity.
    pub effective_at: Time,
    /// End of validity, exclusive; `None` means it never expires.
    pub expires_at: Option<Time>,
    /// Ledger time of the event that created it.
    pub granted_at: Time,
    pub voided_at: Option<Time>,
    pub event_id: EventId,
    /// The payment that refunds name; paid lots only.
    pub payment_id: Option<PaymentId>,
    /// The money paid for it, where that is known; paid lots only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    pub reason: Option<Text>,
    /// Journal offset of the event that created it.
    pub offset: i64,
    /// Order among the lots of that event.
    pub seq: i32,
}

/// Whether a lot was paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LotCategory {
    /// Bought, or topped up.
    Paid,
    Promotional,
}

impl Lot {
    /// Returns whether the credits were paid for.
    pub fn is_paid(&self) -> bool {
        matches!(self.source, LotSource::Purchase | LotSource::TopUp)
    }

    pub fn category(&self) -> LotCategory {
        if self.is_paid() { LotCategory::Paid } else { LotCategory::Promotional }
    }

    /// Returns whether the lot is the allowance or its rollover.
    pub fn is_of_plan(&self) -> bool {
        matches!(self.source, LotSource::Plan | LotSource::Rollover)
    }

    /// Returns whether the lot has ended by `now`. A used-up lot stays open until it expires or is voided.
    pub fn is_closed(&self, now: Time) -> bool {
        self.voided_at.is_some() || self.expires_at.is_some_and(|expires| expires <= now)
    }

    fn burn_key(&self) -> BurnKey {
        BurnKey {
            priority: self.priority,
            expires_at: self.expires_at.unwrap_or(Time::MAX),
            never_expires: self.expires_at.is_none(),
            paid: self.is_paid(),
            effective_at: self.effective_at,
            grant_id: self.grant_id.clone(),
        }
    }
}

/// Returns the default priority of a source.
pub fn default_priority(source: LotSource) -> i32 {
    match source {
        LotSource::Rollover => 10,
        LotSource::Plan => 20,
        LotSource::Welcome | LotSource::Promo | LotSource::Referral | LotSource::Adjustment => 30,
        LotSource::Purchase | LotSource::TopUp => 40,
    }
}

/// Burn order: lowest priority, earliest expiry (never last), promotional before paid, earliest start, smallest id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct BurnKey {
    priority: i32,
    expires_at: Time,
    never_expires: bool,
    paid: bool,
    effective_at: Time,
    grant_id: GrantId,
}

/// Credits taken from one lot, as a positive amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    pub grant_id: GrantId,
    pub source: LotSource,
    pub amount: Credits,
}

impl Draw {
    /// Returns whether the credits had been paid for.
    pub fn is_paid(&self) -> bool {
        matches!(self.source, LotSource::Purchase | LotSource::TopUp)
    }
}

/// Draws of one withdrawal; most touch one or two lots.
pub type Draws = SmallVec<[Draw; 1]>;

/// The open lots of an account with credits left, in effect or yet to start.
#[derive(Debug, Clone, Default)]
pub struct Lots {
    in_effect: BTreeMap<BurnKey, Lot>,
    waiting: BTreeMap<(Time, GrantId), Lot>,
    /// End of every lot that has one, waiting or not.
    ends: BTreeSet<(Time, GrantId)>,
    by_id: FxHashMap<GrantId, IndexKey>,
    drawable: Credits,
    paid: Credits,
    rolled_over: Credits,
}

#[derive(Debug, Clone)]
enum IndexKey {
    InEffect(BurnKey),
    Waiting(Time),
}

impl PartialEq for Lots {
    fn eq(&self, other: &Self) -> bool {
        self.in_effect == other.in_effect && self.waiting == other.waiting
    }
}

impl Lots {
    /// Returns the drawable credits: the sum that remains in the lots in effect.
    pub fn drawable(&self) -> Credits {
        self.drawable
    }

    /// Returns what remains of paid lots in effect.
    pub fn paid(&self) -> Credits {
        self.paid
    }

    /// Returns what remains of rolled-over credits.
    pub fn rolled_over(&self) -> Credits {
        self.rolled_over
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Returns the lots in effect in burn order, then those yet to start.
    pub fn iter(&self) -> impl Iterator<Item = &Lot> {
        self.in_effect.values().chain(self.waiting.values())
    }

    pub fn get(&self, grant_id: &GrantId) -> Option<&Lot> {
        match self.by_id.get(grant_id)? {
            IndexKey::InEffect(key) => self.in_effect.get(key),
            IndexKey::Waiting(from) => self.waiting.get(&(*from, grant_id.clone())),
        }
    }

    /// Returns whether the lot has not started yet.
    pub fn is_waiting(&self, grant_id: &GrantId) -> bool {
        matches!(self.by_id.get(grant_id), Some(IndexKey::Waiting(_)))
    }

    /// Inserts a lot with credits left; it counts from its start, which may be after `now`.
    pub fn insert(&mut self, lot: Lot, now: Time) {
        debug_assert!(lot.remaining.is_positive(), "a lot at 0 stays out");
        if let Some(expires) = lot.expires_at {
            self.ends.insert((expires, lot.grant_id.clone()));
        }
        if lot.effective_at > now {
            self.by_id.insert(lot.grant_id.clone(), IndexKey::Waiting(lot.effective_at));
            self.waiting.insert((lot.effective_at, lot.grant_id.clone()), lot);
        } else {
            let key = lot.burn_key();
            self.count(&lot, lot.remaining);
            self.by_id.insert(lot.grant_id.clone(), IndexKey::InEffect(key.clone()));
            self.in_effect.insert(key, lot);
        }
    }

    pub fn remove(&mut self, grant_id: &GrantId) -> Option<Lot> {
        let lot = match self.by_id.remove(grant_id)? {
            IndexKey::InEffect(key) => {
                let lot = self.in_effect.remove(&key)?;
                self.count(&lot, lot.remaining.negated());
                lot
            }
            IndexKey::Waiting(from) => self.waiting.remove(&(from, grant_id.clone()))?,
        };
        if let Some(expires) = lot.expires_at {
            self.ends.remove(&(expires, grant_id.clone()));
        }
        Some(lot)
    }

    /// Draws up to `amount` in burn order; passes lots that reach 0 to `emptied`.
    pub fn draw(&mut self, amount: Credits, mut emptied: impl FnMut(Lot)) -> Draws {
        let mut draws = Draws::new();
        let mut wanted = amount.min(self.drawable);
        while wanted.is_positive() {
            let Some(mut first) = self.in_effect.first_entry() else { break };
            let lot = first.get_mut();
            let taken = wanted.min(lot.remaining);
            lot.remaining = sub(lot.remaining, taken);
            wanted = sub(wanted, taken);
            draws.push(Draw { grant_id: lot.grant_id.clone(), source: lot.source, amount: taken });
            let (is_paid, is_rolled) = (lot.is_paid(), lot.source == LotSource::Rollover);
            let empty = lot.remaining.is_zero();
            let gone = empty.then(|| first.remove());
            self.drawable = sub(self.drawable, taken);
            if is_paid {
                self.paid = sub(self.paid, taken);
            }
            if is_rolled {
                self.rolled_over = sub(self.rolled_over, taken);
            }
            if let Some(lot) = gone {
                self.by_id.remove(&lot.grant_id);
                if let Some(expires) = lot.expires_at {
                    self.ends.remove(&(expires, lot.grant_id.clone()));
                }
                emptied(lot);
            }
        }
        draws
    }

    /// Returns the next instant at which a lot starts or ends.
    pub fn next_crossing(&self) -> Option<Time> {
        let start = self.waiting.first_key_value().map(|((from, _), _)| *from);
        let end = self.ends.first().map(|(until, _)| *until);
        match (start, end) {
            (Some(start), Some(end)) => Some(start.min(end)),
            (start, end) => start.or(end),
        }
    }

    /// Returns how many starts and ends lie at or before `until`.
    pub fn crossings_until(&self, until: Time) -> usize {
        let starts = self.waiting.keys().take_while(|(from, _)| *from <= until).count();
        starts + self.ends.iter().take_while(|(end, _)| *end <= until).count()
    }

    /// Returns the lots that end at or before `now`, in burn order (those yet to start last).
    pub fn ending(&self, now: Time) -> Vec<GrantId> {
        let mut ids: Vec<GrantId> =
            self.ends.iter().take_while(|(end, _)| *end <= now).map(|(_, id)| id.clone()).collect();
        ids.sort_by_cached_key(|id| self.get(id).map(Lot::burn_key));
        ids
    }

    /// Returns the lots that start at or before `now`: earliest first, those of one instant in burn order.
    pub fn starting(&self, now: Time) -> Vec<GrantId> {
        let mut starting: Vec<&Lot> =
            self.waiting.iter().take_while(|((from, _), _)| *from <= now).map(|(_, lot)| lot).collect();
        starting.sort_by_cached_key(|lot| (lot.effective_at, lot.burn_key()));
        starting.into_iter().map(|lot| lot.grant_id.clone()).collect()
    }

    fn count(&mut self, lot: &Lot, change: Credits) {
        self.drawable = add(self.drawable, change);
        if lot.is_paid() {
            self.paid = add(self.paid, change);
        }
        if lot.source == LotSource::Rollover {
            self.rolled_over = add(self.rolled_over, change);
        }
    }
}
