//! The input and the result of folding one event.

use std::sync::Arc;

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
use crate::value::id::{EventId, GrantId};
use crate::value::time::Time;

/// An event with its position in the log.
#[derive(Debug, Clone)]
pub struct Fact {
    pub event: Arc<Event>,
    /// Its identity.
    pub key: DedupeKey,
    /// What its caller sent.
    pub content: ContentHash,
    /// When the broker appended it.
    pub appended_at: Time,
    /// Its offset in the account's partition.
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

/// Type of an entry; positive amounts add, negative take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

/// What an entry did to one lot, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LotChange {
    pub grant_id: GrantId,
    pub source: LotSource,
    /// Positive: added to it.
    #[serde(deserialize_with = "wide")]
    pub amount: Credits,
}

/// Lots that an entry touched; most touch one.
pub type LotChanges = SmallVec<[LotChange; 1]>;

/// One line of an account's ledger. `amount` = sum of `lots` − `overdraft`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Order among the entries of the event being folded.
    pub seq: i32,
    pub entry_type: EntryType,
    /// Change of the settled balance.
    pub amount: Credits,
    /// Settled balance after it.
    pub balance_after: Credits,
    /// What remains of paid lots after it.
    pub credit_balance_after: Credits,
    /// The event it belongs to; a crossing's derived id where it is a crossing's.
    pub event_id: EventId,
    /// Ledger time; of a crossing, the instant crossed.
    pub recorded_at: Time,
    pub occurred_at: Time,
    pub lots: LotChanges,
    pub overdraft: Credits,
}

/// A period that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedPeriod {
    /// Its number and bounds.
    pub period: crate::value::period::Period,
    /// Its figures at its end, expiry at the end included.
    pub figures: Figures,
    /// What went on into the next.
    pub rolled_over: Credits,
}

/// Usage that counters add (`sign` 1) or take off again (−1).
#[derive(Debug, Clone)]
pub struct UsageChange {
    /// 1 for usage, −1 for a reversal within its period.
    pub sign: i64,
    /// What was used, by whom, priced how.
    pub withdrawal: Arc<Withdrawal>,
}

/// What an event did.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    pub outcome: Outcome,
    /// The account's ledger time after it; none on an account that is not open.
    pub ledger_time: Option<Time>,
    /// The open period after it.
    pub period_index: i64,
    /// Entries of crossings, then of the event; a usage's own is in `usage`.
    pub entries: Vec<Entry>,
    /// Usage to count, and for usage itself its entry.
    pub usage: Option<UsageChange>,
    /// Settled balance after it.
    pub balance_after: Credits,
    /// What remains of paid lots after it.
    pub credit_balance_after: Credits,
    /// What a withdrawal other than usage drew (adjustments, refunds).
    pub draws: Draws,
    /// What it left as overdraft.
    pub line: Option<Stretch>,
    /// Periods that ended before it.
    pub closed: Vec<ClosedPeriod>,
    /// The usage event that it reversed.
    pub reversed: Option<DedupeKey>,
}

/// One step of an account's history, after its effect.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// Ledger time of the event; of a crossing, the instant crossed.
    pub at: Time,
    /// The event; a crossing's derived id, or of a lot that starts the event that made it.
    pub event_id: &'a EventId,
    /// What applied here; none at a crossing and for an event without effect.
    pub applied: Option<&'a Data>,
    /// Whether credits came: an opening, a boundary, a lot that starts, a grant in effect, a purchase, a positive
    /// adjustment, a raised allowance.
    pub adds: bool,
}

/// Observes the fold of an account.
pub trait Observer {
    /// Sees the account after an event, and after every crossing before it: each lot's end, a boundary as a whole,
    /// each lot's start.
    fn after(&mut self, core: &Core, moment: &Moment<'_>);
}

/// Observes nothing.
impl Observer for () {
    fn after(&mut self, _: &Core, _: &Moment<'_>) {}
}

impl Applied {
    /// Returns the order of a usage's own entry: after those of the crossings before it.
    pub fn next_seq(&self) -> i32 {
        i32::try_from(self.entries.len()).unwrap_or(i32::MAX)
    }
}
