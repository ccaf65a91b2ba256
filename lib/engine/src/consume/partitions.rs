//! The partitions that this process owns, and which fetched records may be folded. Pure.

use std::collections::BTreeMap;

use tokio::time::Instant;
use uuid::Uuid;

use super::transaction::Batch;
use crate::tables::checkpoint::{Claim, Step};
use platform::kafka::{LogIdentity, Position, Record, genesis_of, leaf_hash};

/// The state of one owned partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PartitionState {
    /// Assigned; to be claimed at this time.
    Unclaimed(Instant),
    /// Claimed; its transparency log lacks records before the checkpoint.
    Filling(Claim),
    Folding(Folding),
    /// Its log is broken; an operator must act.
    Halted,
}

/// The progress of a claimed partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Folding {
    epoch: Uuid,
    next_offset: i64,
    /// Expected hash of the record before `next_offset`; `None` after it was verified.
    unproven: Option<[u8; 32]>,
    /// The offset of a record that was missing, and was sought since.
    gap_at: Option<i64>,
}

impl Folding {
    pub fn new(claim: Claim) -> Folding {
        Folding {
            epoch: claim.epoch,
            next_offset: claim.next_offset,
            unproven: claim.last_leaf,
            gap_at: None,
        }
    }

    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Moves after a batch, or back to the checkpoint.
    pub fn set_next_offset(&mut self, next_offset: i64) {
        self.next_offset = next_offset;
    }

    /// Returns the claim under which the partition is folded.
    pub fn claim(&self, partition: i32) -> Claim {
        let Folding { epoch, next_offset, unproven, .. } = *self;
        Claim { partition, epoch, next_offset, last_leaf: unproven }
    }

    /// Notes that a missing record was sought: if it is missing again, the log has a hole.
    pub fn sought(&mut self, offset: i64) {
        self.gap_at = Some(offset);
    }

    /// Returns the position to read from: a claim first reads the record before its next offset.
    pub fn read_from(&self, partition: i32) -> Position {
        let offset = if self.unproven.is_some() { self.next_offset - 1 } else { self.next_offset };
        Position { partition, offset }
    }
}

/// The result of checking fetched records.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    pub batch: Batch,
    /// Partitions whose log has changed, each with a sentence.
    pub halts: Vec<(i32, String)>,
    /// Missing records, to be sought.
    pub rereads: Vec<Position>,
    /// Offsets without a record that were passed, from each of these to the next record.
    pub holes: Vec<Position>,
}

/// Takes the next records of each claimed partition and leaves the rest.
pub(super) fn admit(
    states: &mut BTreeMap<i32, PartitionState>,
    records: Vec<Record>,
    identity: LogIdentity,
) -> Admitted {
    let mut admitted = Admitted::default();
    let mut cursors: BTreeMap<i32, Cursor> = BTreeMap::new();
    for record in records {
        let partition = record.position.partition;
        let Some(PartitionState::Folding(folding)) = states.get_mut(&partition) else { continue };
        let cursor = cursors.entry(partition).or_insert_with(|| Cursor::new(folding));
        if cursor.stopped {
            continue;
        }
        if let Some(offset) = cursor.pass_hole(folding, &record) {
            admitted.holes.push(Position { partition, offset });
        }
        match cursor.take(folding, &record, identity, admitted.batch.records.len()) {
            Take::Fold => admitted.batch.records.push(record),
            Take::Log => admitted.batch.genesis.push(record),
            Take::Leave => {}
            Take::ReadAgain(offset) => admitted.rereads.push(Position { partition, offset }),
            Take::Halt(why) => admitted.halts.push((partition, why)),
        }
    }
    for (partition, cursor) in cursors {
        let (Some(PartitionState::Folding(folding)), Some(last)) = (states.get(&partition), cursor.last)
        else {
            continue;
        };
        admitted.batch.steps.push(Step {
            partition,
            epoch: folding.epoch,
            old_offset: folding.next_offset,
            new_offset: cursor.expected,
            last_leaf: last.leaf(&admitted.batch.records),
        });
    }
    admitted
}

/// The decision on one record.
enum Take {
    Fold,
    /// The genesis record.
    Log,
    Leave,
    /// The record at this offset is missing.
    ReadAgain(i64),
    Halt(String),
}

/// The last record taken; its hash is computed once, not for every record.
#[derive(Clone, Copy)]
enum Last {
    InBatch(usize),
    Genesis([u8; 32]),
}

impl Last {
    fn leaf(self, records: &[Record]) -> [u8; 32] {
        match self {
            Last::InBatch(index) => leaf_hash(&records[index]),
            Last::Genesis(leaf) => leaf,
        }
    }
}

/// The progress of one partition within a fetch.
struct Cursor {
    expected: i64,
    last: Option<Last>,
    stopped: bool,
}

impl Cursor {
    fn new(folding: &Folding) -> Cursor {
        Cursor { expected: folding.next_offset, last: None, stopped: false }
    }

    fn take(&mut self, folding: &mut Folding, record: &Record, identity: LogIdentity, index: usize) -> Take {
        let offset = record.position.offset;
        if let Some(leaf) = folding.unproven {
            return self.prove(folding, record, leaf);
        }
        if offset < self.expected {
            return Take::Leave;
        }
        if offset > self.expected {
            return self.miss(folding, self.expected);
        }
        let genesis = genesis_of(record.key.as_deref(), record.value_bytes());
        if offset == 0 && genesis != Some(identity) {
            return self.halt("it does not begin with the genesis record of our log".to_owned());
        }
        folding.gap_at = None;
        self.expected += 1;
        if genesis == Some(identity) {
            self.last = Some(Last::Genesis(leaf_hash(record)));
            return Take::Log;
        }
        self.last = Some(Last::InBatch(index));
        Take::Fold
    }

    /// Passes offsets that have no record even after they were sought, as the end of a transaction leaves one: nobody was
    /// ever given a record from there. The first time, it may be a late record of an earlier seek.
    fn pass_hole(&mut self, folding: &Folding, record: &Record) -> Option<i64> {
        let missing = self.expected;
        let is_hole = folding.unproven.is_none()
            && record.position.offset > missing
            && missing > 0
            && folding.gap_at == Some(missing);
        if is_hole {
            self.expected = record.position.offset;
        }
        is_hole.then_some(missing)
    }

    /// Compares the record before the next offset with the hash that the checkpoint keeps.
    fn prove(&mut self, folding: &mut Folding, record: &Record, leaf: [u8; 32]) -> Take {
        let stood_on = folding.next_offset - 1;
        if record.position.offset < stood_on {
            return Take::Leave;
        }
        if record.position.offset > stood_on {
            return self.miss(folding, stood_on);
        }
        if leaf_hash(record) != leaf {
            return self.halt(format!("the record at offset {stood_on} is not the one that was folded"));
        }
        folding.unproven = None;
        folding.gap_at = None;
        Take::Leave
    }

    /// The first time, it may be a late record of an earlier seek; after it was sought, the log has lost it.
    fn miss(&mut self, folding: &Folding, offset: i64) -> Take {
        self.stopped = true;
        if folding.gap_at == Some(offset) {
            return Take::Halt(format!("there is no record at offset {offset}"));
        }
        Take::ReadAgain(offset)
    }

    fn halt(&mut self, why: String) -> Take {
        self.stopped = true;
        Take::Halt(why)
    }
}

#[cfg(test)]
mod tests {
    use ledger_core::value::time::Time;

    use super::*;

    const IDENTITY: LogIdentity = LogIdentity { log_id: Uuid::from_u128(1), partitions: 1 };

    fn record(offset: i64) -> Record {
        Record {
            position: Position { partition: 0, offset },
            key: Some(b"acme".to_vec()),
            value: Some(offset.to_string().into_bytes()),
            appended_at: Time::from_millis(offset),
        }
    }

    fn genesis(log: u128) -> Record {
        let log_id = Uuid::from_u128(log);
        let value = format!(
            r#"{{"type":"ledger.genesis.v1","log_id":"{log_id}","partitions":1,"created_at":"2026-02-03T10:00:00Z"}}"#
        );
        Record { key: None, value: Some(value.into_bytes()), ..record(0) }
    }

    fn claimed(next_offset: i64, last_leaf: Option<[u8; 32]>) -> BTreeMap<i32, PartitionState> {
        let claim = Claim { partition: 0, epoch: Uuid::from_u128(9), next_offset, last_leaf };
        BTreeMap::from([(0, PartitionState::Folding(Folding::new(claim)))])
    }

    fn offsets(admitted: &Admitted) -> Vec<i64> {
        admitted.batch.records.iter().map(|record| record.position.offset).collect()
    }

    #[test]
    fn a_claim_goes_on_only_after_the_record_it_stands_on() {
        let mut states = claimed(5, Some(leaf_hash(&record(4))));
        let admitted = admit(&mut states, (3..8).map(record).collect(), IDENTITY);
        assert_eq!(offsets(&admitted), [5, 6, 7]);
        let step = admitted.batch.steps[0];
        assert_eq!((step.old_offset, step.new_offset), (5, 8));
        assert_eq!(step.last_leaf, leaf_hash(&record(7)));
    }

    #[test]
    fn an_overwritten_tail_halts_the_partition() {
        let mut states = claimed(5, Some(leaf_hash(&Record { value: Some(b"other".to_vec()), ..record(4) })));
        let admitted = admit(&mut states, (4..8).map(record).collect(), IDENTITY);
        assert_eq!(offsets(&admitted), [0; 0]);
        assert_eq!(admitted.batch.steps, []);
        assert!(admitted.halts[0].1.contains("offset 4"), "{:?}", admitted.halts);
    }

    #[test]
    fn the_genesis_record_moves_the_checkpoint_and_is_not_folded() {
        let mut states = claimed(0, None);
        let admitted = admit(&mut states, vec![genesis(1), record(1)], IDENTITY);
        assert_eq!((offsets(&admitted), &admitted.batch.genesis), (vec![1], &vec![genesis(1)]));
        assert_eq!(admitted.batch.steps[0].new_offset, 2);
        let admitted = admit(&mut claimed(0, None), vec![genesis(1)], IDENTITY);
        assert_eq!(offsets(&admitted), [0; 0]);
        assert_eq!(admitted.batch.steps[0].last_leaf, leaf_hash(&genesis(1)));
    }

    #[test]
    fn another_logs_beginning_halts_the_partition() {
        for first in [genesis(2), record(0)] {
            let admitted = admit(&mut claimed(0, None), vec![first, record(1)], IDENTITY);
            assert_eq!((offsets(&admitted), admitted.halts.len()), (vec![], 1));
        }
    }

    #[test]
    fn records_seen_before_are_left() {
        let admitted = admit(&mut claimed(5, None), (3..7).map(record).collect(), IDENTITY);
        assert_eq!(offsets(&admitted), [5, 6]);
    }

    #[test]
    fn offsets_without_a_record_after_they_were_sought_are_passed() {
        let mut states = claimed(5, None);
        let fetched = || vec![record(5), record(7), record(8)];
        let gap = Position { partition: 0, offset: 6 };
        // However often it is missing: nobody has sought it, so the log may have it.
        for next_offset in [5, 6, 6] {
            if let Some(PartitionState::Folding(folding)) = states.get_mut(&0) {
                folding.set_next_offset(next_offset);
            }
            let admitted = admit(&mut states, fetched(), IDENTITY);
            assert_eq!((&admitted.rereads, admitted.halts.len()), (&vec![gap], 0));
        }
        if let Some(PartitionState::Folding(folding)) = states.get_mut(&0) {
            folding.sought(6);
        }
        let admitted = admit(&mut states, fetched(), IDENTITY);
        assert_eq!((offsets(&admitted), admitted.rereads.len(), admitted.halts.len()), (vec![7, 8], 0, 0));
        assert_eq!(admitted.holes, [gap]);
        let step = admitted.batch.steps[0];
        assert_eq!((step.old_offset, step.new_offset), (6, 9));
        // The next hole is sought again.
        let admitted = admit(&mut claimed(7, None), vec![record(9)], IDENTITY);
        assert_eq!((offsets(&admitted), admitted.rereads.len()), (vec![], 1));
    }

    #[test]
    fn the_record_that_a_claim_stands_on_may_not_be_missing() {
        let mut states = claimed(5, Some(leaf_hash(&record(4))));
        let fetched = || vec![record(5), record(6)];
        assert_eq!(admit(&mut states, fetched(), IDENTITY).rereads, [Position { partition: 0, offset: 4 }]);
        if let Some(PartitionState::Folding(folding)) = states.get_mut(&0) {
            folding.sought(4);
        }
        let admitted = admit(&mut states, fetched(), IDENTITY);
        assert_eq!(offsets(&admitted), [0; 0]);
        assert!(admitted.halts[0].1.contains("no record at offset 4"), "{:?}", admitted.halts);
    }

    #[test]
    fn a_journal_that_lost_its_beginning_is_not_passed() {
        let mut states = claimed(0, None);
        if let Some(PartitionState::Folding(folding)) = states.get_mut(&0) {
            folding.sought(0);
        }
        let admitted = admit(&mut states, vec![record(3)], IDENTITY);
        assert_eq!((offsets(&admitted), admitted.holes.len()), (vec![], 0));
        assert!(admitted.halts[0].1.contains("no record at offset 0"), "{:?}", admitted.halts);
    }

    #[test]
    fn partitions_that_are_not_claimed_are_left() {
        let mut states = BTreeMap::from([(0, PartitionState::Halted)]);
        assert_eq!(offsets(&admit(&mut states, vec![record(0)], IDENTITY)), [0; 0]);
        let other = Record { position: Position { partition: 1, offset: 0 }, ..record(0) };
        assert_eq!(offsets(&admit(&mut claimed(0, None), vec![other], IDENTITY)), [0; 0]);
    }
}
