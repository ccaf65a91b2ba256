//! Worker lanes: parallel workers, each with its own partitions, each batch in a transaction of its own.

use super::lane::Lane;
use super::transaction::Batch;
use super::worker::Worker;
use crate::log::Logs;
use platform::kafka::Record;

/// Workers by lane; a partition belongs to the lane of its number modulo the number of lanes.
pub(super) struct Lanes<W> {
    name: &'static str,
    /// `None` only while a transaction's task uses the worker.
    lanes: Vec<Option<Lane<W>>>,
}

impl<W: Worker> Lanes<W> {
    /// Makes one lane per worker; `None` if there is no worker.
    pub fn new(workers: Vec<W>, keeps_log: bool) -> Option<Lanes<W>> {
        let name = workers.first()?.name();
        let lane = |worker| Some(Lane { worker, logs: keeps_log.then(Logs::default) });
        Some(Lanes { name, lanes: workers.into_iter().map(lane).collect() })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Lends a lane to a task; `None` if a task panicked with it.
    pub fn take(&mut self, lane: usize) -> Option<Lane<W>> {
        self.lanes.get_mut(lane).and_then(Option::take)
    }

    pub fn put(&mut self, lane: usize, lent: Lane<W>) {
        if let Some(slot) = self.lanes.get_mut(lane) {
            *slot = Some(lent);
        }
    }

    /// Notifies a lane's worker that its batch is committed.
    pub fn committed(&mut self, lane: usize) {
        if let Some(Some(lane)) = self.lanes.get_mut(lane) {
            lane.worker.committed();
            lane.logs.iter_mut().for_each(Logs::committed);
        }
    }

    /// Notifies a lane's worker that its batch is rolled back.
    pub fn rolled_back(&mut self, lane: usize) {
        if let Some(Some(lane)) = self.lanes.get_mut(lane) {
            lane.worker.rolled_back();
            lane.logs.iter_mut().for_each(Logs::rolled_back);
        }
    }

    /// Makes the workers of these partitions drop their cached state.
    pub fn forget(&mut self, partitions: &[i32]) {
        for (lane, partitions) in self.share(partitions.iter().copied(), |partition| *partition) {
            if let Some(Some(lane)) = self.lanes.get_mut(lane) {
                lane.worker.forget(&partitions);
                lane.logs.iter_mut().for_each(|logs| logs.forget(&partitions));
            }
        }
    }

    /// Splits items by the lane of their partition, in order; leaves out empty lanes.
    pub fn share<T>(
        &self,
        things: impl IntoIterator<Item = T>,
        partition: impl Fn(&T) -> i32,
    ) -> Vec<(usize, Vec<T>)> {
        let mut shares: Vec<Vec<T>> = self.lanes.iter().map(|_| Vec::new()).collect();
        for thing in things {
            shares[lane_of(partition(&thing), self.lanes.len())].push(thing);
        }
        shares.into_iter().enumerate().filter(|(_, share)| !share.is_empty()).collect()
    }

    /// Splits a batch by lane; every part has a checkpoint step, so that every fold moves a checkpoint.
    pub fn split(&self, batch: Batch) -> Vec<(usize, Batch)> {
        let mut parts = self.share(batch.steps, |step| step.partition);
        let of = |record: &Record| record.position.partition;
        let mut records = self.share(batch.records, of).into_iter().peekable();
        let mut genesis = self.share(batch.genesis, of).into_iter().peekable();
        parts
            .drain(..)
            .map(|(lane, steps)| {
                let [records, genesis] = [&mut records, &mut genesis]
                    .map(|shares| shares.next_if(|(of, _)| *of == lane).unwrap_or_default().1);
                (lane, Batch { records, genesis, steps })
            })
            .collect()
    }
}

fn lane_of(partition: i32, lanes: usize) -> usize {
    usize::try_from(partition).unwrap_or_default() % lanes
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use ledger_core::value::time::Time;
    use platform::kafka::Position;
    use sqlx::PgConnection;
    use uuid::Uuid;

    use super::super::worker::{Summary, WorkerError};
    use super::*;
    use crate::tables::checkpoint::Step;

    struct Idle;

    #[async_trait]
    impl Worker for Idle {
        fn name(&self) -> &'static str {
            "idle"
        }

        async fn apply(&mut self, _: &mut PgConnection, _: &[Record]) -> Result<Summary, WorkerError> {
            Ok(Summary::default())
        }

        async fn halt(&mut self, _: &mut PgConnection, _: &Record, _: &str) -> Result<Summary, WorkerError> {
            Ok(Summary::default())
        }

        fn committed(&mut self) {}
        fn rolled_back(&mut self) {}
        fn forget(&mut self, _: &[i32]) {}
    }

    fn record(partition: i32, offset: i64) -> Record {
        let position = Position { partition, offset };
        Record { position, appended_at: Time::from_micros(0), key: None, value: None }
    }

    fn step(partition: i32) -> Step {
        Step { partition, epoch: Uuid::nil(), old_offset: 0, new_offset: 9, last_leaf: [0; 32] }
    }

    #[test]
    fn a_batch_is_shared_out_by_partition_each_with_its_step_and_in_its_order() {
        let lanes = Lanes::new(vec![Idle, Idle], false).expect("lanes");
        let records = [(3, 1), (0, 5), (3, 2), (2, 7), (0, 6)].map(|(p, o)| record(p, o));
        let steps = [0, 2, 3, 5].map(step).into();
        let parts = lanes.split(Batch { records: records.into(), genesis: vec![record(5, 0)], steps });
        let shown: Vec<_> = parts
            .iter()
            .map(|(lane, batch)| {
                let positions: Vec<_> =
                    batch.records.iter().map(|r| (r.position.partition, r.position.offset)).collect();
                let steps: Vec<_> = batch.steps.iter().map(|step| step.partition).collect();
                (*lane, steps, positions)
            })
            .collect();
        // The genesis record moves partition 5 and is not folded.
        assert_eq!(parts[1].1.genesis, [record(5, 0)]);
        assert_eq!(
            shown,
            [(0, vec![0, 2], vec![(0, 5), (2, 7), (0, 6)]), (1, vec![3, 5], vec![(3, 1), (3, 2)])]
        );
    }

    #[test]
    fn a_lane_that_only_moves_its_checkpoint_gets_no_records_of_another() {
        let lanes = Lanes::new(vec![Idle, Idle], false).expect("lanes");
        let parts = lanes.split(Batch {
            records: vec![record(1, 4)],
            steps: vec![step(0), step(1)],
            ..Batch::default()
        });
        let counts: Vec<_> = parts.iter().map(|(lane, batch)| (*lane, batch.records.len())).collect();
        assert_eq!(counts, [(0, 0), (1, 1)]);
    }
}
