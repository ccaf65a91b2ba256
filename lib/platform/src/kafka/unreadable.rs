//! Finds where a partition can't be read, and where it can be read again.
//!
//! A batch that can't be decompressed or parsed makes the client library ask for it again and again; it names neither
//! the partition nor the end of the batch. So a consumer of its own reads the partition from one offset after another.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::error::Error;
use super::options::KafkaOptions;
use super::reasons::{Asker, Reasons};

/// A broker that answers at all has answered by then, also on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(2);
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Offsets behind the start of a batch that does not name itself which are probed one by one.
const NEAR: i64 = 32;

/// Offsets of a partition that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    pub partition: i32,
    pub first: i64,
    /// The last offset of the batch, inclusive.
    pub last: i64,
    pub reason: String,
}

/// Returns whether this error of a consumer says that a batch can't be read, rather than that a broker is away.
pub fn is_unreadable(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::BadCompression
                | RDKafkaErrorCode::NotImplemented
                | RDKafkaErrorCode::Underflow
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::CriticalSystemResource
        )
    )
}

/// What reading from an offset brings first.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Probe {
    Record,
    /// Nothing is there to be read up to the end.
    End,
    /// A batch that can't be read, and its first offset where the library names it.
    Unreadable(Option<i64>, String),
    /// Neither a record nor an error: a batch that can't be parsed, or a broker that is away.
    Nothing,
}

/// Reads single partitions of a topic from any offset.
pub struct Prober {
    consumer: Asker,
    topic: String,
}

impl Prober {
    pub fn new(options: &KafkaOptions, topic: &str) -> Result<Prober, Error> {
        let mut config = options.reader(&[("fetch.error.backoff.ms", "10"), ("fetch.wait.max.ms", "50")])?;
        config.set("enable.partition.eof", "true");
        Ok(Prober { consumer: config.create_with_context(Reasons::default())?, topic: topic.to_owned() })
    }

    /// Returns the offsets from `from` on that can't be read; none if a record or the partition's end comes next.
    ///
    /// `end` is the partition's end. None, too, if nothing shows that the partition can be read at all. Blocks.
    pub fn unreadable(&self, partition: i32, from: i64, end: i64) -> Result<Option<Unreadable>, Error> {
        // Connects to the partition's leader, so that no probe has to wait for that.
        self.consumer.fetch_watermarks(&self.topic, partition, CONNECT_MAX)?;
        find(from, end, |offset| self.probe(partition, offset))
            .map(|found| found.map(|(first, last, reason)| Unreadable { partition, first, last, reason }))
    }

    fn probe(&self, partition: i32, offset: i64) -> Result<Probe, Error> {
        let mut start = TopicPartitionList::with_capacity(1);
        start.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        self.consumer.assign(&start)?;
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            match self.consumer.poll(deadline.saturating_duration_since(Instant::now())) {
                Some(Ok(message)) if message.offset() >= offset => return Ok(Probe::Record),
                Some(Err(KafkaError::PartitionEOF(ended))) if ended == partition => return Ok(Probe::End),
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) if is_unreadable(&error) => {
                    let reason = self.consumer.context().last().unwrap_or_else(|| error.to_string());
                    return Ok(Probe::Unreadable(offset_in(&reason), reason));
                }
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(_)) => {}
                None if Instant::now() >= deadline => return Ok(Probe::Nothing),
                None => {}
            }
        }
    }
}

/// Finds the first and last offset that can't be read, and why, by probing single offsets.
fn find(
    from: i64,
    end: i64,
    probe: impl Fn(i64) -> Result<Probe, Error>,
) -> Result<Option<(i64, i64, String)>, Error> {
    let (base, reason) = match probe(from)? {
        Probe::Record | Probe::End => return Ok(None),
        Probe::Unreadable(base, reason) => (base, reason),
        // Asked again: it may have been slow.
        Probe::Nothing => match probe(from)? {
            Probe::Record | Probe::End => return Ok(None),
            Probe::Unreadable(base, reason) => (base, reason),
            Probe::Nothing => (None, "the batch can't be parsed".to_owned()),
        },
    };
    // A batch that names itself is told from any other. One that does not may be followed by another such, with good
    // records between them, so near it no offset is left out.
    let is_named = base.is_some();
    let is_beyond = |offset: i64| {
        Ok::<bool, Error>(match probe(offset)? {
            Probe::Record | Probe::End => true,
            Probe::Unreadable(other, _) => other != base && (is_named || other.is_some()),
            Probe::Nothing => is_named,
        })
    };
    let (mut inside, mut step) = (from, 1);
    let mut beyond = loop {
        let offset = inside.saturating_add(step).min(end);
        if is_beyond(offset)? {
            break offset;
        }
        if offset >= end {
            return Ok(None);
        }
        inside = offset;
        if is_named || inside - from >= NEAR {
            step *= 2;
        }
    };
    while beyond - inside > 1 {
        let middle = inside + (beyond - inside) / 2;
        if is_beyond(middle)? { beyond = middle } else { inside = middle }
    }
    // A batch that only says nothing must say nothing again, now that another offset has shown that the broker answers.
    if base.is_none() && matches!(probe(from)?, Probe::Record | Probe::End) {
        return Ok(None);
    }
    let first = base.map_or(from, |base| base.clamp(from, beyond - 1));
    Ok(Some((first, beyond - 1, reason)))
}

/// Returns the offset in librdkafka's words, such as `message at 5 of 33 bytes` or `MessageSet at offset 5 (44 bytes)`.
fn offset_in(reason: &str) -> Option<i64> {
    let mut words = reason.split_whitespace();
    words.find(|word| *word == "at")?;
    match words.next()? {
        "offset" => words.next()?.parse().ok(),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A partition as batches of first offset, last offset and how they read: `good`, `bad` or `silent`.
    struct Log(&'static [(i64, i64, &'static str)]);

    impl Log {
        fn probe(&self, offset: i64) -> Result<Probe, Error> {
            let Some((first, _, how)) = self.0.iter().find(|(_, last, _)| offset <= *last) else {
                return Ok(Probe::End);
            };
            Ok(match *how {
                "good" => Probe::Record,
                "bad" => Probe::Unreadable(Some(*first), format!("message at {first}")),
                "unnamed" => Probe::Unreadable(None, "corrupt".to_owned()),
                _ => Probe::Nothing,
            })
        }

        fn check(&self, from: i64, expected: Option<(i64, i64)>) {
            let end = self.0.last().map_or(0, |(_, last, _)| last + 1);
            let found = find(from, end, |offset| self.probe(offset)).expect("probed");
            assert_eq!(found.map(|(first, last, _)| (first, last)), expected, "{:?} from {from}", self.0);
        }
    }

    #[test]
    fn exactly_the_batch_that_can_not_be_read_is_found() {
        Log(&[(0, 9, "good")]).check(3, None);
        Log(&[]).check(0, None);
        Log(&[(0, 4, "good"), (5, 5, "bad"), (6, 9, "good")]).check(5, Some((5, 5)));
        Log(&[(0, 4, "good"), (5, 4_000, "bad")]).check(5, Some((5, 4_000)));
        Log(&[(0, 4, "good"), (5, 20, "bad")]).check(8, Some((8, 20)));
        // What lies between is no record: the end of a transaction.
        Log(&[(0, 4, "good"), (7, 20, "bad")]).check(5, Some((7, 20)));
    }

    #[test]
    fn a_good_batch_between_two_that_are_not_is_never_passed_over() {
        let log =
            Log(&[(0, 0, "bad"), (1, 1, "good"), (2, 100, "bad"), (101, 101, "bad"), (102, 110, "good")]);
        log.check(0, Some((0, 0)));
        log.check(1, None);
        log.check(2, Some((2, 100)));
        log.check(101, Some((101, 101)));
        let silent = Log(&[
            (0, 2, "bad"),
            (3, 3, "good"),
            (4, 4, "silent"),
            (5, 5, "good"),
            (6, 7, "silent"),
            (8, 8, "good"),
        ]);
        silent.check(0, Some((0, 2)));
        silent.check(4, Some((4, 4)));
        silent.check(6, Some((6, 7)));
    }

    #[test]
    fn a_batch_that_says_nothing_is_passed_over_only_if_something_after_it_can_be_read() {
        Log(&[(0, 7, "silent"), (8, 9, "good")]).check(0, Some((0, 7)));
        Log(&[(0, 7, "unnamed")]).check(0, Some((0, 7)));
        let away = find(0, 10, |_| Ok(Probe::Nothing)).expect("probed");
        assert_eq!(away, None);
        // A broker that was slow at first.
        let asked = std::cell::Cell::new(0);
        let slow = |_| {
            asked.set(asked.get() + 1);
            Ok(if asked.get() <= 2 { Probe::Nothing } else { Probe::Record })
        };
        assert_eq!(find(0, 10, slow).expect("probed"), None);
    }

    #[test]
    fn the_offset_is_read_from_the_librarys_words() {
        let check = |reason: &str, expected| assert_eq!(offset_in(reason), expected, "{reason}");
        check("Decompression (codec 0x1) of message at 5 of 33 bytes failed: Local: Bad", Some(5));
        check(
            "MessageSet at offset 77 (44 bytes) failed CRC32C check (original 0x1 != calculated 0x2)",
            Some(77),
        );
        check("Unsupported Message(Set) MagicByte 7 at offset 12", Some(12));
        check("no such words", None);
    }
}
