//! Progress of an ingress: how far it has read and handled each partition, how much waits, and for how long.

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ledger_core::value::time::Time;
use metrics::gauge;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::taken::IngressRecord;
use crate::clock;
use crate::position::Position;
use crate::unready::Unready;

/// A partition that has records and does not move for so long is not ready.
const STILL_MAX: Duration = Duration::from_secs(30);
/// After so long without a record, a partition that has some is looked at.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// How long a refusal by the brokers counts, unless it comes again or a record comes.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// Shared between the loop that reads and its observers; clones share one state.
#[derive(Debug, Clone)]
pub struct Progress {
    topic: Arc<str>,
    shared: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    partitions: BTreeMap<i32, Partition>,
    /// The last refusal by the brokers.
    refused: Option<(Instant, String)>,
}

#[derive(Debug)]
struct Partition {
    /// The offset after what was read.
    read: i64,
    /// The offset after what was handled.
    handled: i64,
    end: Option<i64>,
    /// Records after a rewind have not come again yet.
    rewound: bool,
    /// When a record came last, or nothing was left to read.
    read_at: Instant,
    /// When something was handled last, or nothing was left to handle.
    moved_at: Instant,
    /// Append time of the first record that was read and is not handled.
    oldest: Option<Time>,
    /// Since when something is known to wait.
    waits_since: Option<Instant>,
}

impl Partition {
    fn new(start: i64) -> Partition {
        let now = Instant::now();
        Partition {
            read: start,
            handled: start,
            end: None,
            rewound: false,
            read_at: now,
            moved_at: now,
            oldest: None,
            waits_since: None,
        }
    }

    fn lag(&self) -> i64 {
        self.end.map_or(0, |end| (end - self.handled).max(0))
    }

    fn handle(&mut self, next: i64) {
        if next > self.handled {
            (self.handled, self.moved_at, self.oldest) = (next, Instant::now(), None);
        }
        self.settle();
    }

    /// Takes note where nothing is left to read or to handle.
    fn settle(&mut self) {
        let now = Instant::now();
        if self.end.is_none_or(|end| self.read >= end) {
            self.read_at = now;
        }
        if self.lag() == 0 {
            (self.moved_at, self.waits_since) = (now, None);
        } else {
            self.waits_since.get_or_insert(now);
        }
    }

    /// How long the first unhandled record waits.
    fn oldest_age(&self, now: Time) -> Duration {
        if self.lag() == 0 {
            return Duration::ZERO;
        }
        match self.oldest {
            Some(appended) => Duration::from_micros(now.minus(appended).max(0).unsigned_abs()),
            None => self.waits_since.map(|since| since.elapsed()).unwrap_or_default(),
        }
    }
}

impl Progress {
    pub(super) fn new(topic: &str) -> Progress {
        Progress { topic: topic.into(), shared: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes partitions, each from where its reading starts.
    pub(super) fn take(&self, starts: &[Position]) {
        let mut state = self.lock();
        for start in starts {
            state.partitions.insert(start.partition, Partition::new(start.offset));
        }
    }

    pub(super) fn lose(&self, partitions: &[i32]) {
        let mut state = self.lock();
        for partition in partitions {
            state.partitions.remove(partition);
            self.gauge(*partition, 0);
        }
    }

    /// Takes note of records, and of how far the consumer is where none came: past what is no record.
    pub(super) fn read(&self, records: &[IngressRecord], up_to: &[Position]) {
        let mut state = self.lock();
        if !records.is_empty() {
            state.refused = None;
        }
        let mut came = Vec::new();
        for record in records {
            let Position { partition, offset } = record.position;
            let Some(it) = state.partitions.get_mut(&partition) else { continue };
            (it.read, it.read_at, it.rewound) = (offset + 1, Instant::now(), false);
            it.oldest.get_or_insert(record.appended_at);
            came.push(partition);
        }
        for at in up_to {
            let Some(it) = state.partitions.get_mut(&at.partition) else { continue };
            if it.rewound || it.read != it.handled || came.contains(&at.partition) || at.offset <= it.read {
                continue;
            }
            (it.read, it.read_at) = (at.offset, Instant::now());
            it.handle(at.offset);
        }
    }

    pub(super) fn handled(&self, next: &[Position]) {
        let mut state = self.lock();
        for next in next {
            if let Some(it) = state.partitions.get_mut(&next.partition) {
                it.handle(next.offset);
            }
        }
    }

    pub(super) fn passed_over(&self, next: &[Position]) {
        let mut state = self.lock();
        for next in next {
            if let Some(it) = state.partitions.get_mut(&next.partition) {
                (it.read, it.read_at) = (next.offset, Instant::now());
            }
        }
    }

    pub(super) fn rewound(&self, to: &[Position]) {
        let mut state = self.lock();
        for to in to {
            if let Some(it) = state.partitions.get_mut(&to.partition) {
                (it.read, it.read_at, it.rewound) = (to.offset, Instant::now(), true);
            }
        }
    }

    pub(super) fn set_ends(&self, ends: &[Position]) {
        let mut state = self.lock();
        let now = clock::now();
        for end in ends {
            let Some(it) = state.partitions.get_mut(&end.partition) else { continue };
            it.end = Some(end.offset);
            it.settle();
            self.gauge(end.partition, it.lag());
        }
        let oldest = state.partitions.values().map(|it| it.oldest_age(now)).max().unwrap_or_default();
        gauge!("ledger_ingress_oldest_unread_seconds").set(oldest.as_secs_f64());
    }

    #[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn gauge(&self, partition: i32, lag: i64) {
        gauge!("ledger_ingress_lag_records", "partition" => partition.to_string()).set(lag as f64);
    }

    pub(super) fn set_error(&self, error: &KafkaError) {
        let refusals = [
            RDKafkaErrorCode::TopicAuthorizationFailed,
            RDKafkaErrorCode::GroupAuthorizationFailed,
            RDKafkaErrorCode::ClusterAuthorizationFailed,
            RDKafkaErrorCode::Authentication,
            RDKafkaErrorCode::SaslAuthenticationFailed,
        ];
        if error.rdkafka_error_code().is_some_and(|code| refusals.contains(&code)) {
            self.lock().refused = Some((Instant::now(), error.to_string()));
        }
    }

    /// Returns the offset after what was read of each partition.
    pub(super) fn reading(&self) -> Vec<Position> {
        let state = self.lock();
        let at = |(partition, it): (&i32, &Partition)| Position { partition: *partition, offset: it.read };
        state.partitions.iter().map(at).collect()
    }

    /// Returns the partitions of which nothing comes although they have records; each once in a while.
    pub(super) fn silent(&self) -> Vec<Position> {
        let mut state = self.lock();
        let mut silent = Vec::new();
        for (partition, it) in &mut state.partitions {
            if it.end.is_some_and(|end| it.read < end) && it.read_at.elapsed() >= SILENT_MAX {
                it.read_at = Instant::now();
                silent.push(Position { partition: *partition, offset: it.read });
            }
        }
        silent
    }

    /// Returns what keeps this member from its work; sentences.
    pub fn problems(&self) -> Vec<String> {
        let state = self.lock();
        let refused = state.refused().map(|why| format!("{}: {why}", self.topic));
        refused.into_iter().chain(state.standing(&self.topic)).collect()
    }

    /// Returns the check for readiness.
    pub fn readiness(&self) -> impl Fn() -> Ready<Result<(), Unready>> + Send + Sync + 'static {
        let progress = self.clone();
        move || ready(progress.judge())
    }

    /// Partitions that stand are named; what the brokers say is not.
    fn judge(&self) -> Result<(), Unready> {
        let state = self.lock();
        let standing = state.standing(&self.topic).join("; ");
        match state.refused() {
            Some(why) => Err(Unready { word: "refused", detail: standing, cause: why.to_owned() }),
            None if standing.is_empty() => Ok(()),
            None => Err(Unready::new("stalled", standing)),
        }
    }
}

impl State {
    fn refused(&self) -> Option<&str> {
        let refused = self.refused.as_ref().filter(|(at, _)| at.elapsed() < REFUSED_FOR);
        refused.map(|(_, why)| why.as_str())
    }

    /// Returns a sentence for each partition that has records and does not move.
    fn standing(&self, topic: &str) -> Vec<String> {
        let is_still = |it: &Partition| it.lag() > 0 && it.moved_at.elapsed() >= STILL_MAX;
        let still = self.partitions.iter().filter(|(_, it)| is_still(it));
        let sentence = |(partition, it): (&i32, &Partition)| {
            let (seconds, offset, lag) = (it.moved_at.elapsed().as_secs(), it.handled, it.lag());
            format!(
                "{topic} partition {partition} stands at offset {offset} for {seconds} s, {lag} records wait"
            )
        };
        still.map(sentence).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32, offset: i64) -> Position {
        Position { partition, offset }
    }

    fn record(partition: i32, offset: i64) -> IngressRecord {
        let position = at(partition, offset);
        IngressRecord { position, key: None, value: None, headers: Vec::new(), appended_at: Time::MIN }
    }

    fn standing() -> Progress {
        let progress = Progress::new("usage");
        progress.take(&[at(0, 0), at(1, 7)]);
        progress.set_ends(&[at(0, 3), at(1, 7)]);
        progress
    }

    fn age(progress: &Progress, by: Duration) {
        for it in progress.lock().partitions.values_mut() {
            let earlier = |at: Instant| at.checked_sub(by).expect("this machine runs longer");
            (it.read_at, it.moved_at) = (earlier(it.read_at), earlier(it.moved_at));
        }
    }

    #[test]
    fn a_partition_that_has_records_and_stands_still_is_named() {
        let progress = standing();
        assert_eq!(progress.problems(), [""; 0]);
        age(&progress, STILL_MAX);
        progress.set_ends(&[at(0, 3), at(1, 7)]);
        let problems = progress.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with("usage partition 0 stands at offset 0 for 30 s, 3 records wait"),
            "{problems:?}"
        );
        progress.read(&[record(0, 0)], &[]);
        progress.handled(&[at(0, 1)]);
        assert_eq!(progress.problems(), [""; 0]);
    }

    #[test]
    fn what_is_read_and_must_wait_stands_still_too() {
        let progress = standing();
        progress.read(&[record(0, 0), record(0, 1), record(0, 2)], &[]);
        progress.rewound(&[at(0, 0)]);
        age(&progress, STILL_MAX);
        progress.set_ends(&[at(0, 3), at(1, 7)]);
        assert_eq!(progress.problems().len(), 1);
    }

    #[test]
    fn what_is_no_record_is_nothing_that_waits() {
        let progress = standing();
        // The end of a transaction that was taken back stands at 2.
        progress.read(&[], &[at(0, 3)]);
        age(&progress, STILL_MAX);
        progress.set_ends(&[at(0, 3), at(1, 7)]);
        assert_eq!(progress.problems(), [""; 0]);
        assert_eq!(progress.silent(), []);
    }

    #[test]
    fn a_partition_that_is_silent_is_looked_at_once_in_a_while() {
        let progress = standing();
        age(&progress, SILENT_MAX);
        assert_eq!(progress.silent(), [at(0, 0)]);
        assert_eq!(progress.silent(), []);
        progress.passed_over(&[at(0, 3)]);
        age(&progress, SILENT_MAX);
        assert_eq!(progress.silent(), []);
    }

    #[test]
    fn a_refusal_by_the_brokers_is_told_until_records_come() {
        let progress = standing();
        progress.set_error(&KafkaError::MessageConsumption(RDKafkaErrorCode::BrokerTransportFailure));
        assert_eq!(progress.problems(), [""; 0]);
        progress.set_error(&KafkaError::MessageConsumption(RDKafkaErrorCode::GroupAuthorizationFailed));
        assert_eq!(progress.problems().len(), 1);
        progress.read(&[record(0, 0)], &[]);
        assert_eq!(progress.problems(), [""; 0]);
    }
}
