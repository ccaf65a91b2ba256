//! What an ingress takes from a partition: a record of any producer, or offsets that can't be read.

use ledger_core::value::time::Time;

use super::unreadable::Unreadable;
use crate::position::Position;

/// A record as any producer may have written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressRecord {
    pub position: Position,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    /// The broker's append time, to the millisecond.
    pub appended_at: Time,
}

/// What a partition has next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    Record(IngressRecord),
    Unreadable(Unreadable),
}

impl Taken {
    /// Returns its position; of several offsets the first.
    pub fn first(&self) -> Position {
        match self {
            Taken::Record(record) => record.position,
            Taken::Unreadable(it) => Position { partition: it.partition, offset: it.first },
        }
    }

    /// Returns its position; of several offsets the last.
    pub fn last(&self) -> Position {
        match self {
            Taken::Record(record) => record.position,
            Taken::Unreadable(it) => Position { partition: it.partition, offset: it.last },
        }
    }
}
