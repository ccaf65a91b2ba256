//! What a usage or a dispute took from an account, kept because a later event may undo it.

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
    /// What its caller sent.
    pub content: ContentHash,
    /// What it took, where it is usage or a dispute that applied.
    pub withdrawal: Option<Arc<Withdrawal>>,
    /// Whether it has been reversed; a dispute: won.
    pub reversed: bool,
}

/// What a usage or a dispute took, and from where.
#[derive(Debug, Clone)]
pub struct Withdrawal {
    /// The usage or the dispute's opening.
    pub event: Arc<Event>,
    /// The period it counts in.
    pub period_index: i64,
    /// What it cost; a dispute: what was contested.
    pub credits: Credits,
    /// What lots gave.
    pub draws: Draws,
    /// What they could not cover.
    pub line: Option<Stretch>,
}

/// A stretch of the overdraft line and the lot that repaid it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repayment {
    pub stretch: Stretch,
    pub grant_id: GrantId,
}
