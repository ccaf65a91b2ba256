//! Holds: credits reserved for work in progress, until its usage is known.
//!
//! Pure. A [`Gate`] decides the requests on one account, one after the other. Whoever creates one must keep others from
//! deciding on that account meanwhile, and must store its changes before answering anybody.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::account::Core;
use crate::event::key::ContentHash;
use crate::fold;
use crate::policy::decide::{self, Commitments, Decision, Work};
use crate::value::credits::{Credits, add, sub};
use crate::value::id::{EventId, Label, ReservationId, Source, UserId};
use crate::value::time::Time;

/// How long a hold lives that is made without a word on it.
pub const TTL_SECONDS: u32 = 900;

/// Body of `reserve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// The caller's name for the hold.
    pub reservation_id: ReservationId,
    /// Who will do the work; none is nobody's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// For what; limits do not hold in excluded features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature: Option<Label>,
    pub amount: Credits,
    /// How long, unless it ends before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u32>,
}

/// Body of extending: an absent field stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extend {
    /// The new amount in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Credits>,
    /// How long from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u32>,
}

impl Reserve {
    /// Returns the hash that distinguishes a repeat from another request under the same id.
    pub fn content(&self) -> ContentHash {
        let ttl_seconds = Some(self.ttl_seconds.unwrap_or(TTL_SECONDS));
        let whole = Reserve { ttl_seconds, ..self.clone() };
        ContentHash(Sha256::digest(crate::event::wire::to_json(&whole)).into())
    }

    fn work(&self) -> Work {
        Work { user_id: self.user_id.clone(), feature: self.feature.clone(), amount: Some(self.amount) }
    }
}

/// The state of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Held,
    /// Its usage is on its way through the journal: open, whatever the time, until that is projected.
    Settling,
    /// Ended by its usage.
    Settled,
    /// Given back.
    Released,
    /// Ended by time.
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
    /// Its producer.
    pub source: Source,
    /// What its producer sent.
    pub content: ContentHash,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The caller's name for it, unique in the account.
    pub reservation_id: ReservationId,
    /// Hash of the request that made it.
    pub content: ContentHash,
    pub user_id: Option<UserId>,
    pub feature: Option<Label>,
    /// What it holds, or held.
    pub amount: Credits,
    /// What it takes of balance and limit while it is open: its amount, and what its usage charges where that is more.
    pub counts: Credits,
    /// A hold past its expiry may still be stored as held.
    pub state: State,
    pub expires_at: Time,
    /// When it was last granted something; its usage is recorded no earlier.
    pub decided_at: Time,
    pub settlement: Option<Settlement>,
}

impl Hold {
    /// Returns its state at an instant.
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

/// Sums by feature; none is no feature.
pub type ByFeature = BTreeMap<Option<Label>, Credits>;

/// What a user has used in the open period, and holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserFigures {
    /// Usage of the period less its reversals.
    pub used: ByFeature,
    pub held: ByFeature,
}

impl UserFigures {
    /// Returns what all open holds hold, whatever for.
    pub fn all_held(&self) -> Credits {
        self.held.values().copied().fold(Credits::ZERO, add)
    }
}

/// Why a request on a hold changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// By limit or balance.
    Decision(Box<Decision>),
    /// The id belongs to another request.
    OtherRequest,
    Ended,
    /// There never was such a hold.
    Unknown,
}

/// A hold that its usage settles from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settling {
    pub held: Credits,
    /// What the usage charges beyond that; of a repeat what it charged the first time, whatever its price is now.
    pub over_hold: Credits,
    /// The usage is recorded no earlier.
    pub not_before: Time,
    /// Whether this usage settled it before.
    pub repeat: bool,
}

impl Settling {
    /// `hold` counts what its usage charges already.
    fn of(hold: &Hold, repeat: bool) -> Settling {
        let over_hold = over_hold(hold.counts, hold.amount);
        Settling { held: hold.amount, over_hold, not_before: hold.decided_at, repeat }
    }
}

/// What the requests on one account are decided on.
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

/// What requests changed, to be stored before they are answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Holds that are new or other than before.
    pub holds: BTreeSet<ReservationId>,
    /// By how much all open holds together grew.
    pub held: Credits,
    /// By how much those of each user grew, by feature.
    pub users: BTreeMap<(UserId, Option<Label>), Credits>,
}

impl<'a> Gate<'a> {
    /// Begins at an instant: the core is rolled forward to it. `held`: all open holds of the account at that instant.
    pub fn new(core: &'a Core, now: Time, held: Credits) -> Self {
        let mut core = Cow::Borrowed(core);
        if core.crosses(now) {
            fold::roll_to(core.to_mut(), now);
        }
        let (users, holds, ended) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { core, now, held, users, holds, ended, changes: Changes::default() }
    }

    /// Adds a user; their usage is that of the period `period_index`, which may have closed since.
    pub fn with_user(&mut self, user: UserId, figures: UserFigures, period_index: i64) {
        let used = if period_index == self.core.period.index { figures.used } else { ByFeature::new() };
        self.users.insert(user, UserFigures { used, ..figures });
    }

    /// Adds a hold that requests name.
    pub fn with_hold(&mut self, hold: Hold) {
        self.holds.insert(hold.reservation_id.clone(), hold);
    }

    /// Notes that usage has ended a hold of this id.
    pub fn with_ended(&mut self, reservation: ReservationId) {
        self.ended.insert(reservation);
    }

    /// Returns the account, rolled to now.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Returns the instant that it is decided at.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Returns what the account may still spend.
    pub fn available(&self) -> Credits {
        sub(self.core.settled(), self.held)
    }

    /// Returns a hold that was loaded.
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
        // What is held for an excluded feature will not count either.
        let user_held = counted(figures.map(|figures| &figures.held));
        Commitments { held: self.held, counted: used, user_held }
    }

    fn counted(&self, sums: &ByFeature) -> Credits {
        let all = sums.values().copied().fold(Credits::ZERO, add);
        let named = sums.iter().filter_map(|(feature, sum)| Some((feature.as_ref()?, sum)));
        self.core.counted(all, named)
    }

    /// Makes a hold; the decision is none for a repeat of one that exists.
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

    /// Gives an open hold another amount or more time; the decision is none where it needs no more than it has.
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

    /// Gives back what a hold holds; one that was given back, or has expired, stays as it is.
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

    /// Settles a hold by a usage: it stays open, at what it held or what the usage charges, until that is projected.
    ///
    /// A hold that was given back or has expired is charged all the same.
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
                // Should the usage come to nothing, it has ended as before.
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

/// Returns what a usage charges beyond what its hold held.
pub fn over_hold(credits: Credits, held: Credits) -> Credits {
    sub(credits, held).max(Credits::ZERO)
}
