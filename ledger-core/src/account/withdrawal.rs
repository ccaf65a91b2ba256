//! Credits that usage or a dispute took from an account, kept because a later event may undo it.

use std::sync::Arc;

use crate::account::lot::Draws;
use crate::account::overdraft::Stretch;
use crate::event::Event;
use crate::event::key::ContentHash;
use crate::value::credits::Credits;
use crate::value::id::GrantId;

/// The first event of an id.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Hash of the caller's content.
    pub content: ContentHash,
    /// What the event took; only for usage or a dispute that applied.
    pub withdrawal: Option<Arc<Withdrawal>>,
    /// Whether the usage was reversed, or the dispute won.
    pub reversed: bool,
}

/// The credits that usage or a dispute took, and their sources.
#[derive(Debug, Clone)]
pub struct Withdrawal {
    pub event: Arc<Event>,
    pub period_index: i64,
    /// The cost of the usage, or the amount of the dispute.
    pub credits: Credits,
    pub draws: Draws,
    /// The part that the lots could not cover.
    pub line: Option<Stretch>,
}

/// A stretch of the overdraft line and the lot that repaid it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repayment {
    pub stretch: Stretch,
    pub grant_id: GrantId,
}
