//! Holds: credits reserved for work in progress, until its usage is known.
//!
//! Pure. A [`Gate`] decides the requests on one account one after the other. Its creator must lock the account
//! against other decisions, and must store the gate's changes before answering any request.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::account::Core;
use crate::account::limit::OwnLimit;
use crate::event::key::ContentHash;
use crate::fold;
use crate::policy::decide::{self, Commitments, Decision, Work};
use crate::value::credits::{Credits, add, sub};
use crate::value::id::{EventId, Label, ReservationId, Source, UserId};
use crate::value::time::Time;

/// Default lifetime of a hold, in seconds.
pub const TTL_SECONDS: u32 = 900;

/// Body of `reserve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "NewReservation")]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// The caller's name for the hold.
    pub reservation_id: ReservationId,
    /// The user who will do the work; without one, no user's limit applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Limits do not apply in excluded features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature: Option<Label>,
    pub amount: Credits,
    /// Lifetime, unless the hold ends earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u32>,
}

/// Body of extending: absent fields stay unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ReservationChange")]
#[serde(deny_unknown_fields)]
pub struct Extend {
    /// The new total amount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Credits>,
    /// Lifetime from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u32>,
}

impl Reserve {
    /// Returns the hash that distinguishes a repeat from a different request with the same id.
    pub fn content(&self) -> ContentHash {
        let ttl_seconds = Some(self.ttl_seconds.unwrap_or(TTL_SECONDS));
        let whole = Reserve { ttl_seconds, ..self.clone() };
        ContentHash(Sha256::digest(crate::event::wire::to_json(&whole)).into())
    }

    fn work(&self) -> Work {
        Work { user_id: self.user_id.clone(), feature: self.feature.clone(), amount: Some(self.amount) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ReservationState")]
#[serde(rename_all = "snake_case")]
pub enum State {
    Held,
    /// Its usage is in the journal but not yet projected: open until then, even past its expiry.
    Settling,
    /// Ended by usage.
    Settled,
    Released,
    /// Ended by its expiry.
    Expired,
}

impl State {
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Held => "held",
            State::Settling => "settling",
            State::Settled => "settled",
            State::Released => "released",
            State::Expired => "expired",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    pub event_id: EventId,
    pub source: Source,
    /// Hash of the producer's content.
    pub content: ContentHash,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The caller's name for it, unique in the account.
    pub reservation_id: ReservationId,
    pub content: ContentHash,
    pub user_id: Option<UserId>,
    pub feature: Option<Label>,
    /// The reserved amount.
    pub amount: Credits,
    /// What it takes of balance and limit while open: the larger of its amount and its usage's charge.
    pub counts: Credits,
    /// May still say held past the expiry.
    pub state: State,
    pub expires_at: Time,
    /// Time of the last grant; its usage is recorded no earlier.
    pub decided_at: Time,
    pub settlement: Option<Settlement>,
}

impl Hold {
    pub fn state_at(&self, now: Time) -> State {
        let has_expired = self.state == State::Held && self.expires_at <= now;
        if has_expired { State::Expired } else { self.state }
    }

    /// Returns what it takes of balance and limit at an instant.
    pub fn counts_at(&self, now: Time) -> Credits {
        match self.state_at(now) {
            State::Held | State::Settling => self.counts,
            State::Settled | State::Released | State::Expired => Credits::ZERO,
        }
    }
}

/// Sums by feature; `None` is no feature.
pub type ByFeature = BTreeMap<Option<Label>, Credits>;

/// A user's usage of the open period, their holds, and their own limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserFigures {
    /// Usage of the period, net of reversals.
    pub used: ByFeature,
    pub held: ByFeature,
    /// As stored.
    pub own_limit: Option<OwnLimit>,
}

impl UserFigures {
    /// Returns the sum of all open holds.
    pub fn all_held(&self) -> Credits {
        self.held.values().copied().fold(Credits::ZERO, add)
    }
}

/// Why a request changed no hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Refused by limit or balance.
    Decision(Box<Decision>),
    /// The id belongs to a different request.
    OtherRequest,
    Ended,
    Unknown,
}

/// A hold that its usage is settling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settling {
    pub held: Credits,
    /// What the usage charges beyond the hold; for a repeat the charge of the first time, at its price.
    pub over_hold: Credits,
    /// Earliest time at which the usage is recorded.
    pub not_before: Time,
    /// Whether this usage had already settled it.
    pub repeat: bool,
}

impl Settling {
    /// `hold.counts` must already include the usage's charge.
    fn of(hold: &Hold, repeat: bool) -> Settling {
        let over_hold = over_hold(hold.counts, hold.amount);
        Settling { held: hold.amount, over_hold, not_before: hold.decided_at, repeat }
    }
}

/// The figures for decisions on one account, updated with each decision.
#[derive(Debug)]
pub struct Gate<'a> {
    core: Cow<'a, Core>,
    now: Time,
    held: Credits,
    users: BTreeMap<UserId, UserFigures>,
    holds: BTreeMap<ReservationId, Hold>,
    ended: BTreeSet<ReservationId>,
    changes: Changes,
}

/// Changes to store before the requests are answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// New or changed holds.
    pub holds: BTreeSet<ReservationId>,
    /// Growth of the sum of all open holds.
    pub held: Credits,
    /// Growth of each user's open holds, by feature.
    pub users: BTreeMap<(UserId, Option<Label>), Credits>,
}

impl<'a> Gate<'a> {
    /// Starts at an instant and rolls the core forward to it. `held`: all open holds of the account at that instant.
    pub fn new(core: &'a Core, now: Time, held: Credits) -> Self {
        let mut core = Cow::Borrowed(core);
        if core.crosses(now) {
            fold::roll_to(core.to_mut(), now);
        }
        let (users, holds, ended) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { core, now, held, users, holds, ended, changes: Changes::default() }
    }

    /// Adds a user; their usage is of the period `period_index`, which may have closed since.
    pub fn with_user(&mut self, user: UserId, figures: UserFigures, period_index: i64) {
        let used = if period_index == self.core.period.index { figures.used } else { ByFeature::new() };
        self.users.insert(user, UserFigures { used, ..figures });
    }

    /// Adds a hold that requests refer to.
    pub fn with_hold(&mut self, hold: Hold) {
        self.holds.insert(hold.reservation_id.clone(), hold);
    }

    /// Records that usage has ended a hold of this id.
    pub fn with_ended(&mut self, reservation: ReservationId) {
        self.ended.insert(reservation);
    }

    /// Returns the core, rolled to now.
    pub fn core(&self) -> &Core {
        &self.core
    }

    pub fn now(&self) -> Time {
        self.now
    }

    /// Returns what the account can still spend.
    pub fn available(&self) -> Credits {
        sub(self.core.settled(), self.held)
    }

    /// Returns a loaded hold.
    pub fn hold(&self, reservation: &ReservationId) -> Option<&Hold> {
        self.holds.get(reservation)
    }

    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Decides whether work may begin, and changes nothing.
    pub fn check(&self, work: &Work) -> Decision {
        decide::decide(&self.core, work, &self.commitments(work.user_id.as_ref()))
    }

    fn commitments(&self, user: Option<&UserId>) -> Commitments {
        let figures = user.and_then(|user| self.users.get(user));
        let counted = |sums: Option<&ByFeature>| sums.map_or(Credits::ZERO, |sums| self.counted(sums));
        let used = counted(figures.map(|figures| &figures.used));
        // Holds for an excluded feature do not count either.
        let user_held = counted(figures.map(|figures| &figures.held));
        let own_limit = figures.and_then(|figures| figures.own_limit);
        Commitments { held: self.held, counted: used, user_held, own_limit }
    }

    fn counted(&self, sums: &ByFeature) -> Credits {
        let all = sums.values().copied().fold(Credits::ZERO, add);
        let named = sums.iter().filter_map(|(feature, sum)| Some((feature.as_ref()?, sum)));
        self.core.counted(all, named)
    }

    /// Creates a hold; the decision is `None` for a repeat of an existing one.
    pub fn reserve(&mut self, request: &Reserve) -> Result<Option<Decision>, Refused> {
        let id = &request.reservation_id;
        if let Some(hold) = self.holds.get(id) {
            return if hold.content == request.content() { Ok(None) } else { Err(Refused::OtherRequest) };
        }
        if self.ended.contains(id) {
            return Err(Refused::Ended);
        }
        let decision = self.granted(&request.work())?;
        let ttl_seconds = request.ttl_seconds.unwrap_or(TTL_SECONDS);
        let hold = Hold {
            reservation_id: id.clone(),
            content: request.content(),
            user_id: request.user_id.clone(),
            feature: request.feature.clone(),
            amount: request.amount,
            counts: request.amount,
            state: State::Held,
            expires_at: self.now.plus_seconds(i64::from(ttl_seconds)),
            decided_at: self.now,
            settlement: None,
        };
        self.put(hold);
        Ok(Some(decision))
    }

    /// Changes an open hold's amount or lifetime; the decision is `None` if it needs no more credits.
    pub fn extend(&mut self, id: &ReservationId, request: &Extend) -> Result<Option<Decision>, Refused> {
        let mut hold = self.known(id)?;
        if hold.state_at(self.now) != State::Held {
            return Err(Refused::Ended);
        }
        let amount = request.amount.unwrap_or(hold.amount);
        let growth = sub(amount, hold.amount);
        let mut decision = None;
        if growth.is_positive() {
            let (user_id, feature) = (hold.user_id.clone(), hold.feature.clone());
            decision = Some(self.granted(&Work { user_id, feature, amount: Some(growth) })?);
        }
        (hold.amount, hold.counts, hold.decided_at) = (amount, amount, self.now);
        if let Some(ttl_seconds) = request.ttl_seconds {
            hold.expires_at = self.now.plus_seconds(i64::from(ttl_seconds));
        }
        self.put(hold);
        Ok(decision)
    }

    /// Releases a hold; a released or expired one stays as it is.
    pub fn release(&mut self, id: &ReservationId) -> Result<(), Refused> {
        let mut hold = self.known(id)?;
        match hold.state_at(self.now) {
            State::Held => {
                hold.state = State::Released;
                self.put(hold);
                Ok(())
            }
            State::Released | State::Expired => Ok(()),
            State::Settling | State::Settled => Err(Refused::Ended),
        }
    }

    /// Settles a hold by a usage: it stays open, at its amount or the usage's charge, until the usage is projected.
    ///
    /// Usage of a released or expired hold is charged as well.
    pub fn settle(
        &mut self,
        id: &ReservationId,
        by: Settlement,
        credits: Credits,
    ) -> Result<Settling, Refused> {
        let mut hold = self.known(id)?;
        if let Some(first) = &hold.settlement {
            if (&first.event_id, &first.source) != (&by.event_id, &by.source) {
                return Err(Refused::Ended);
            }
            if first.content != by.content {
                return Err(Refused::OtherRequest);
            }
            return Ok(Settling::of(&hold, true));
        }
        match hold.state_at(self.now) {
            State::Held => hold.counts = hold.amount.max(credits),
            State::Released | State::Expired => {
                hold.counts = credits;
                // If the usage has no effect, the hold keeps its earlier end.
                hold.expires_at = hold.expires_at.min(self.now);
            }
            State::Settling | State::Settled => return Err(Refused::Ended),
        }
        let settling = Settling::of(&hold, false);
        (hold.state, hold.settlement) = (State::Settling, Some(by));
        self.put(hold);
        Ok(settling)
    }

    fn known(&self, id: &ReservationId) -> Result<Hold, Refused> {
        match self.holds.get(id) {
            Some(hold) => Ok(hold.clone()),
            None if self.ended.contains(id) => Err(Refused::Ended),
            None => Err(Refused::Unknown),
        }
    }

    fn granted(&self, work: &Work) -> Result<Decision, Refused> {
        let decision = self.check(work);
        match decision.refusal {
            None => Ok(decision),
            Some(_) => Err(Refused::Decision(Box::new(decision))),
        }
    }

    /// Replaces a hold and updates the sums.
    fn put(&mut self, hold: Hold) {
        let before =
            self.holds.get(&hold.reservation_id).map_or(Credits::ZERO, |hold| hold.counts_at(self.now));
        let growth = sub(hold.counts_at(self.now), before);
        self.held = add(self.held, growth);
        self.changes.held = add(self.changes.held, growth);
        if let Some(user) = &hold.user_id {
            let figures = self.users.entry(user.clone()).or_default();
            let held = figures.held.entry(hold.feature.clone()).or_default();
            *held = add(*held, growth);
            let change = self.changes.users.entry((user.clone(), hold.feature.clone())).or_default();
            *change = add(*change, growth);
        }
        self.changes.holds.insert(hold.reservation_id.clone());
        self.holds.insert(hold.reservation_id.clone(), hold);
    }
}

/// Returns what a usage charges beyond its hold's amount.
pub fn over_hold(credits: Credits, held: Credits) -> Credits {
    sub(credits, held).max(Credits::ZERO)
}
