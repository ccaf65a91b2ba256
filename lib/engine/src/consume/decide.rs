//! Decides what to do after a batch, from the checkpoint's rows. Pure.

use std::collections::BTreeMap;

use crate::tables::checkpoint::{CheckpointRow, Step};

/// Whether the transaction is known not to have committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    RolledBack,
    /// The answer to its COMMIT was lost.
    Unanswered,
}

/// How a partition continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Continue after the batch, which committed.
    GoOn,
    /// Read the batch again; the cache is still valid.
    Again,
    /// Continue from this offset; the cache is invalid.
    From(i64),
    /// Another process claimed it.
    Lost,
}

/// The result of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub committed: bool,
    pub partitions: Vec<(i32, Next)>,
}

/// Decides whether a batch committed, and how each of its partitions continues.
pub(super) fn judge(attempt: Attempt, steps: &[Step], rows: &BTreeMap<i32, CheckpointRow>) -> Verdict {
    let ours = |step: &Step| rows.get(&step.partition).filter(|row| row.epoch == Some(step.epoch));
    // One transaction moved all or none, so any row under our claim is enough to decide.
    let moved = |step: &Step| ours(step).is_some_and(|row| row.next_offset == step.new_offset);
    let committed = attempt == Attempt::Unanswered && steps.iter().any(moved);
    let next = |step: &Step| match ours(step) {
        None => Next::Lost,
        Some(row) if committed && row.next_offset == step.new_offset => Next::GoOn,
        Some(row) if !committed && row.next_offset == step.old_offset => Next::Again,
        Some(row) => Next::From(row.next_offset),
    };
    Verdict { committed, partitions: steps.iter().map(|step| (step.partition, next(step))).collect() }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const MINE: Uuid = Uuid::from_u128(1);
    const THEIRS: Uuid = Uuid::from_u128(2);

    /// A batch that moves partition 0 from 10 to 15 and partition 1 from 20 to 22.
    fn steps() -> Vec<Step> {
        let step = |partition, old_offset, new_offset| Step {
            partition,
            epoch: MINE,
            old_offset,
            new_offset,
            last_leaf: [0; 32],
        };
        vec![step(0, 10, 15), step(1, 20, 22)]
    }

    fn check(attempt: Attempt, rows: [(Uuid, i64); 2], committed: bool, next: [Next; 2]) {
        let rows =
            rows.map(|(epoch, next_offset)| CheckpointRow { partition: 0, epoch: Some(epoch), next_offset });
        let rows = BTreeMap::from([(0, rows[0]), (1, rows[1])]);
        let verdict = judge(attempt, &steps(), &rows);
        let expected = Verdict { committed, partitions: vec![(0, next[0]), (1, next[1])] };
        assert_eq!(verdict, expected, "{attempt:?} {rows:?}");
    }

    #[test]
    fn a_lost_commit_answer_is_told_by_the_checkpoint() {
        use Next::{Again, From, GoOn, Lost};
        let lost = Attempt::Unanswered;
        check(lost, [(MINE, 15), (MINE, 22)], true, [GoOn, GoOn]);
        check(lost, [(MINE, 10), (MINE, 20)], false, [Again, Again]);
        // Another process claimed one in between: the other rows still decide.
        check(lost, [(THEIRS, 15), (MINE, 22)], true, [Lost, GoOn]);
        check(lost, [(THEIRS, 10), (MINE, 20)], false, [Lost, Again]);
        check(lost, [(THEIRS, 15), (THEIRS, 22)], false, [Lost, Lost]);
        check(lost, [(MINE, 15), (MINE, 30)], true, [GoOn, From(30)]);
    }

    #[test]
    fn a_short_update_goes_on_from_what_stands_there() {
        use Next::{Again, From, Lost};
        let back = Attempt::RolledBack;
        check(back, [(THEIRS, 12), (MINE, 20)], false, [Lost, Again]);
        check(back, [(THEIRS, 10), (THEIRS, 20)], false, [Lost, Lost]);
        // An earlier transaction, thought to have failed, committed after all.
        check(back, [(MINE, 15), (MINE, 22)], false, [From(15), From(22)]);
        check(back, [(MINE, 12), (MINE, 20)], false, [From(12), Again]);
    }

    #[test]
    fn a_partition_without_a_row_is_lost() {
        let verdict = judge(Attempt::RolledBack, &steps()[..1], &BTreeMap::new());
        assert_eq!(verdict.partitions, vec![(0, Next::Lost)]);
    }
}
