//! Overdraft: what withdrawals could not cover, as stretches of one running line.
//!
//! Each withdrawal that exceeds the credits takes the next stretch of the line; added credits repay the line from its
//! oldest end. The overlap of two stretches identifies which lot repaid which withdrawal, so no queue is needed.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::value::credits::{Credits, add, sub, wide};

/// A stretch of the line, end exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    #[serde(deserialize_with = "wide")]
    pub start: Credits,
    #[serde(deserialize_with = "wide")]
    pub end: Credits,
}

impl Stretch {
    pub fn length(&self) -> Credits {
        sub(self.end, self.start)
    }

    /// Returns the overlap with another stretch.
    pub fn overlap(&self, other: &Stretch) -> Option<Stretch> {
        let both = Stretch { start: self.start.max(other.start), end: self.end.min(other.end) };
        (both.start < both.end).then_some(both)
    }
}

/// A stretch that is still owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Owed {
    #[serde(flatten)]
    stretch: Stretch,
    /// Whether usage caused it: repayments from paid lots then count as spent.
    usage: bool,
}

/// An account's open overdraft, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overdraft {
    #[serde(deserialize_with = "wide")]
    end: Credits,
    owed: VecDeque<Owed>,
    #[serde(deserialize_with = "wide")]
    total: Credits,
}

/// A repaid piece of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repaid {
    pub stretch: Stretch,
    /// Whether usage caused it.
    pub usage: bool,
}

impl Overdraft {
    /// Returns the total overdraft.
    pub fn total(&self) -> Credits {
        self.total
    }

    /// Adds the uncovered part of a withdrawal and returns its stretch.
    pub fn take(&mut self, amount: Credits, usage: bool) -> Stretch {
        let stretch = Stretch { start: self.end, end: add(self.end, amount) };
        self.end = stretch.end;
        self.total = add(self.total, amount);
        match self.owed.back_mut() {
            // Merging neighbours of a kind keeps an account that stays in debt small.
            Some(last) if last.usage == usage && last.stretch.end == stretch.start => {
                last.stretch.end = stretch.end;
            }
            _ => self.owed.push_back(Owed { stretch, usage }),
        }
        stretch
    }

    /// Repays up to `amount`, oldest first, and returns the pieces.
    pub fn repay(&mut self, amount: Credits) -> SmallVec<[Repaid; 2]> {
        let mut pieces = SmallVec::new();
        let mut left = amount.min(self.total);
        while left.is_positive() {
            let Some(first) = self.owed.front_mut() else { break };
            let paid = left.min(first.stretch.length());
            let end = add(first.stretch.start, paid);
            pieces.push(Repaid { stretch: Stretch { start: first.stretch.start, end }, usage: first.usage });
            first.stretch.start = end;
            if first.stretch.length().is_zero() {
                self.owed.pop_front();
            }
            left = sub(left, paid);
            self.total = sub(self.total, paid);
        }
        pieces
    }

    /// Cancels the open part of a withdrawal's stretch and returns its amount.
    pub fn cancel(&mut self, stretch: &Stretch) -> Credits {
        let mut cancelled = Credits::ZERO;
        let mut kept = VecDeque::with_capacity(self.owed.len() + 1);
        for owed in &self.owed {
            let Some(both) = owed.stretch.overlap(stretch) else {
                kept.push_back(*owed);
                continue;
            };
            cancelled = add(cancelled, both.length());
            for rest in [
                Stretch { start: owed.stretch.start, end: both.start },
                Stretch { start: both.end, end: owed.stretch.end },
            ] {
                if rest.start < rest.end {
                    kept.push_back(Owed { stretch: rest, usage: owed.usage });
                }
            }
        }
        self.owed = kept;
        self.total = sub(self.total, cancelled);
        cancelled
    }

    /// Writes off the whole overdraft and returns its amount.
    pub fn forgive(&mut self) -> Credits {
        self.owed.clear();
        std::mem::take(&mut self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(whole: i64) -> Credits {
        Credits::whole(whole)
    }

    fn stretch(start: i64, end: i64) -> Stretch {
        Stretch { start: amount(start), end: amount(end) }
    }

    #[test]
    fn the_oldest_withdrawal_is_repaid_first() {
        let mut line = Overdraft::default();
        assert_eq!(line.take(amount(3), true), stretch(0, 3));
        assert_eq!(line.take(amount(5), false), stretch(3, 8));
        let pieces = line.repay(amount(4));
        let expected =
            [Repaid { stretch: stretch(0, 3), usage: true }, Repaid { stretch: stretch(3, 4), usage: false }];
        assert_eq!(pieces.as_slice(), expected);
        assert_eq!(line.total(), amount(4));
    }

    #[test]
    fn a_cancelled_stretch_is_passed_over_by_later_repayments() {
        let mut line = Overdraft::default();
        for _ in 0..3 {
            line.take(amount(2), true);
        }
        line.repay(amount(1));
        assert_eq!(line.cancel(&stretch(2, 4)), amount(2));
        assert_eq!(line.total(), amount(3));
        let pieces = line.repay(amount(9));
        let stretches: Vec<_> = pieces.iter().map(|piece| piece.stretch).collect();
        assert_eq!(stretches, [stretch(1, 2), stretch(4, 6)]);
        assert_eq!(line.cancel(&stretch(4, 6)), amount(0), "what is repaid can't be cancelled");
    }

    #[test]
    fn the_line_goes_on_after_everything_is_forgiven() {
        let mut line = Overdraft::default();
        line.take(amount(2), true);
        assert_eq!(line.forgive(), amount(2));
        assert_eq!(line.take(amount(1), true), stretch(2, 3));
    }
}
