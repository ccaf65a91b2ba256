//! Reads a range of the journal, for replays and audits.

use std::time::Duration;

use futures::{Stream, TryStreamExt, stream};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;

use super::error::Error;
use super::options::KafkaOptions;
use super::poller::{FetchLimits, OnAssign, Poller};
use super::record::Record;
use crate::position::Position;

/// Most records and bytes held at a time.
const CHUNK_RECORDS_MAX: usize = 1_000;
const CHUNK_BYTES_MAX: usize = 1024 * 1024;
const PREFETCH_KBYTES_MAX: usize = 4 * 1024;
/// The log has the records, so a silent broker is an error.
const FETCH_WAIT: Duration = Duration::from_secs(1);
const SILENT_FETCHES_MAX: usize = 15;

/// Reads one journal partition from an offset up to another, exclusive, in constant memory.
///
/// `to` is at most the partition's end; an offset behind the log's end is an error.
pub fn read_partition(
    options: &KafkaOptions,
    partition: i32,
    from: i64,
    to: i64,
) -> impl Stream<Item = Result<Record, Error>> + Send + 'static {
    let reader = Reader { options: options.clone(), poller: None, partition, next: from, to };
    stream::try_unfold(reader, Reader::step).try_flatten()
}

struct Reader {
    options: KafkaOptions,
    poller: Option<Poller>,
    partition: i32,
    next: i64,
    to: i64,
}

type Chunk = stream::Iter<std::vec::IntoIter<Result<Record, Error>>>;

impl Reader {
    async fn step(mut self) -> Result<Option<(Chunk, Reader)>, Error> {
        if self.next >= self.to {
            return Ok(None);
        }
        let poller = match self.poller.take() {
            Some(poller) => poller,
            None => self.open().await?,
        };
        let records = self.fetch(&poller).await?;
        self.poller = Some(poller);
        let records: Vec<Result<Record, Error>> = records.into_iter().map(Ok).collect();
        Ok(Some((stream::iter(records), self)))
    }

    async fn open(&self) -> Result<Poller, Error> {
        let prefetch = PREFETCH_KBYTES_MAX.to_string();
        let config = self.options.reader(&[("queued.max.messages.kbytes", &prefetch)])?;
        let poller = Poller::new(&config, &self.options.topics().events, OnAssign::AwaitSeek)?;
        poller.assign(vec![(self.partition, Offset::Offset(self.next))]).await?;
        Ok(poller)
    }

    async fn fetch(&mut self, poller: &Poller) -> Result<Vec<Record>, Error> {
        let limits = FetchLimits { records: CHUNK_RECORDS_MAX, bytes: CHUNK_BYTES_MAX, wait: FETCH_WAIT };
        for _ in 0..SILENT_FETCHES_MAX {
            let fetched = poller.fetch(limits).await?;
            let mut records = fetched.records;
            records.retain(|record| record.position.offset >= self.next && record.position.offset < self.to);
            if let Some(last) = records.last() {
                self.next = last.position.offset + 1;
                return Ok(records);
            }
            if let Some(error) = fetched.error {
                return Err(error.into());
            }
            // What is left is no record, such as the end of a transaction.
            let is_done = |at: &Position| at.partition == self.partition && at.offset >= self.to;
            if poller.read_up_to().await?.iter().any(is_done) {
                self.next = self.to;
                return Ok(Vec::new());
            }
        }
        Err(KafkaError::NoMessageReceived.into())
    }
}
