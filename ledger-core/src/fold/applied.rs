//! The input and the result of folding one event.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Outcome;
use crate::account::lot::Draws;
use crate::account::overdraft::Stretch;
use crate::account::withdrawal::Withdrawal;
use crate::account::{Core, Figures};
use crate::event::key::{ContentHash, DedupeKey, content_hash, dedupe_key};
use crate::event::{Data, Event, LotSource};
use crate::value::credits::{Credits, wide};
use crate::value::id::{EventId, GrantId, Source};
use crate::value::time::Time;

#[derive(Debug, Clone)]
pub struct Fact {
    pub event: Arc<Event>,
    pub key: DedupeKey,
    pub content: ContentHash,
    /// The broker's append time.
    pub appended_at: Time,
    pub offset: i64,
}

impl Fact {
    /// Hashes an event read from the log at `offset`.
    pub fn new(event: Event, appended_at: Time, offset: i64) -> Self {
        let key = dedupe_key(&event.account, &event.source, &event.id);
        let content = content_hash(&event);
        Self { event: Arc::new(event), key, content, appended_at, offset }
    }
}

/// Type of an entry; additions are positive, withdrawals negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "named as in the contract")]
pub enum EntryType {
    Granted,
    Purchased,
    ToppedUp,
    Consumed,
    Reversed,
    Expired,
    RolledOut,
    RolledIn,
    Refunded,
    Voided,
    Adjusted,
}

impl EntryType {
    pub fn as_str(&self) -> &'static str {
        match self {
            EntryType::Granted => "granted",
            EntryType::Purchased => "purchased",
            EntryType::ToppedUp => "topped_up",
            EntryType::Consumed => "consumed",
            EntryType::Reversed => "reversed",
            EntryType::Expired => "expired",
            EntryType::RolledOut => "rolled_out",
            EntryType::RolledIn => "rolled_in",
            EntryType::Refunded => "refunded",
            EntryType::Voided => "voided",
            EntryType::Adjusted => "adjusted",
        }
    }
}

/// Signed change of one lot by an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LotChange {
    pub grant_id: GrantId,
    pub source: LotSource,
    /// Positive if added to the lot.
    #[serde(deserialize_with = "wide")]
    pub amount: Credits,
}

/// Lots that an entry touched; most touch one.
pub type LotChanges = SmallVec<[LotChange; 1]>;

/// One line of an account's ledger. `amount` = sum of `lots` − `overdraft`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Order among the entries of one event.
    pub seq: i32,
    pub entry_type: EntryType,
    pub amount: Credits,
    pub balance_after: Credits,
    /// Remaining paid credits after it.
    pub credit_balance_after: Credits,
    /// The event, or the derived id of a crossing.
    pub event_id: EventId,
    /// Ledger time of the event, or the instant of a crossing.
    pub recorded_at: Time,
    pub occurred_at: Time,
    pub lots: LotChanges,
    pub overdraft: Credits,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedPeriod {
    pub period: crate::value::period::Period,
    /// Figures at its end, including expiry at that instant.
    pub figures: Figures,
    /// Credits carried over to the next period.
    pub rolled_over: Credits,
}

/// Usage that counters add (`sign` 1) or subtract (−1).
#[derive(Debug, Clone)]
pub struct UsageChange {
    /// 1 for usage, −1 for a reversal within its period.
    pub sign: i64,
    pub withdrawal: Arc<Withdrawal>,
}

#[derive(Debug, Clone, Default)]
pub struct Applied {
    pub outcome: Outcome,
    /// The account's ledger time afterwards; `None` if the account is not open.
    pub ledger_time: Option<Time>,
    pub period_index: i64,
    /// Entries of crossings, then of the event; a usage's own is in `usage`.
    pub entries: Vec<Entry>,
    /// Usage to count; for a usage event also its entry.
    pub usage: Option<UsageChange>,
    pub balance_after: Credits,
    pub credit_balance_after: Credits,
    /// Draws of a withdrawal other than usage (adjustments, refunds).
    pub draws: Draws,
    /// The overdraft it caused.
    pub line: Option<Stretch>,
    /// Periods that ended before the event.
    pub closed: Vec<ClosedPeriod>,
    pub reversed: Option<DedupeKey>,
    /// The applied usage of the same call, where that makes this one a duplicate.
    pub duplicate_of: Option<(Source, EventId)>,
}

/// One step of an account's history, after its effect.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// Ledger time of the event; of a crossing, the instant crossed.
    pub at: Time,
    /// The event, the derived id of a crossing, or for a lot that starts the event that created it.
    pub event_id: &'a EventId,
    /// The event that applied; `None` at a crossing and for an event without effect.
    pub applied: Option<&'a Data>,
    /// Whether credits were added: an opening, a boundary, a lot that starts, a grant in effect, a purchase, a positive
    /// adjustment, a raised allowance.
    pub adds: bool,
}

/// Observes the fold of an account.
pub trait Observer {
    /// Called after an event, and after every crossing before it: each lot's end, a boundary as a whole,
    /// each lot's start.
    fn after(&mut self, core: &Core, moment: &Moment<'_>);
}

impl Observer for () {
    fn after(&mut self, _: &Core, _: &Moment<'_>) {}
}

impl Applied {
    /// Returns the order of a usage's own entry, after the entries of its crossings.
    pub fn next_seq(&self) -> i32 {
        i32::try_from(self.entries.len()).unwrap_or(i32::MAX)
    }
}
