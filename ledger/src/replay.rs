//! Replay: prints the journal as stored, one line of JSON per record, straight from Kafka.
//!
//! The lines are those of `GET /v1/audit/events`, without `leaf`: Kafka alone does not say how many records come before. Partitions follow one another, so a replay of the whole journal can
//! also continue after the last position read. Memory is constant, whatever the length of the journal.

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::StreamExt;
use ledger_core::event::partition::partition_of;
use ledger_core::value::id::AccountId;
use platform::kafka::{self, Ends, KafkaOptions, LogIdentity, Position};

use crate::connection::Connection;
use crate::progress::Progress;

/// Lines written at once if available.
const CHUNK_LINES_MAX: usize = 500;
/// How often `--follow` reads the journal's end.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// What to replay.
#[derive(Debug, Clone, Args)]
pub struct Replay {
    /// The journal's Kafka.
    #[command(flatten)]
    pub kafka: KafkaOptions,
    /// The local stack, where no Kafka is named.
    #[command(flatten)]
    pub connection: Connection,
    /// Only this account's records
    #[arg(long)]
    pub account: Option<AccountId>,
    /// Only this partition
    #[arg(long, conflicts_with = "account")]
    pub partition: Option<i32>,
    /// Begins at this position, such as 3:1041; the partitions after it follow whole
    #[arg(long)]
    pub from: Option<Position>,
    /// Goes on with what is appended later, until it is interrupted; --from then needs --partition or --account
    #[arg(long)]
    pub follow: bool,
}

/// Writes the journal up to its end at the start, or indefinitely.
///
/// A reader that closes its input early (`head`) causes no error.
pub async fn run(replay: &Replay, out: &mut impl Write) -> Result<()> {
    let kafka = replay.connection.kafka(&replay.kafka)?;
    let identity = kafka::existing(&kafka).await.map_err(|error| {
        let explains_itself = matches!(error, kafka::Error::Refused(_));
        let error = anyhow::Error::from(error);
        if explains_itself {
            return error;
        }
        error.context(format!("the journal at {} can't be read", kafka.brokers))
    })?;
    let journal = Journal { ends: Ends::new(&kafka, identity)?, kafka, account: replay.account.clone() };
    let mut next = starts(replay, identity)?;
    match journal.write(&mut next, replay.follow, out).await {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        written => written,
    }
}

/// Returns the start of each partition to read, in order.
fn starts(replay: &Replay, identity: LogIdentity) -> Result<Vec<Position>> {
    let count = NonZeroU32::try_from(u32::try_from(identity.partitions)?)?;
    let account = replay.account.as_ref().map(|account| partition_of(account.as_str().as_bytes(), count));
    let only = replay.partition.or(account.map(i32::try_from).transpose()?);
    let from = replay.from.map(|from| from.partition);
    if let Some(missing) =
        only.into_iter().chain(from).find(|named| !(0..identity.partitions).contains(named))
    {
        bail!("there is no partition {missing}: the journal has partitions 0 to {}", identity.partitions - 1);
    }
    match (only, replay.from) {
        (Some(only), Some(from)) if from.partition != only => {
            bail!("--from {from} is not in partition {only}, which is to be read")
        }
        (Some(_), Some(from)) => Ok(vec![from]),
        (Some(partition), None) => Ok(vec![Position { partition, offset: 0 }]),
        (None, Some(_)) if replay.follow => {
            // Positions of several partitions are interleaved then, so one of them does not determine the others.
            bail!("--follow --from needs --partition or --account")
        }
        (None, from) => {
            let first = from.unwrap_or(Position { partition: 0, offset: 0 });
            let rest =
                (first.partition + 1..identity.partitions).map(|partition| Position { partition, offset: 0 });
            Ok(std::iter::once(first).chain(rest).collect())
        }
    }
}

struct Journal {
    kafka: KafkaOptions,
    ends: Ends,
    account: Option<AccountId>,
}

impl Journal {
    async fn write(&self, next: &mut [Position], follow: bool, out: &mut impl Write) -> Result<()> {
        loop {
            let ends = self.ends.all().await?;
            let end_of = |start: &Position| {
                let end = ends.iter().find(|end| end.partition == start.partition);
                end.with_context(|| format!("partition {} has no end", start.partition))
            };
            let mut total = 0;
            for start in next.iter() {
                total += u64::try_from(end_of(start)?.offset - start.offset).unwrap_or_default();
            }
            // In a terminal, the lines themselves show it.
            let mut progress = (!follow && !io::stdout().is_terminal())
                .then(|| Progress::start("reading the journal", total));
            let mut read = 0;
            for start in next.iter_mut() {
                let end = end_of(start)?;
                let seen = |records: u64| {
                    read += records;
                    if let Some(progress) = &mut progress {
                        progress.set(read);
                    }
                };
                self.write_partition(start, end.offset, out, seen).await?;
                start.offset = start.offset.max(end.offset);
            }
            if let Some(progress) = progress {
                progress.finish();
            }
            if !follow {
                return Ok(());
            }
            tokio::time::sleep(FOLLOW_EVERY).await;
        }
    }

    async fn write_partition(
        &self,
        start: &Position,
        end: i64,
        out: &mut impl Write,
        mut seen: impl FnMut(u64),
    ) -> Result<()> {
        let records = kafka::read_partition(&self.kafka, start.partition, start.offset, end);
        let mut chunks = std::pin::pin!(records.ready_chunks(CHUNK_LINES_MAX));
        while let Some(chunk) = chunks.next().await {
            seen(chunk.len() as u64);
            for record in chunk {
                let record = record?;
                let wanted = self.account.as_ref().map(|account| account.as_str().as_bytes());
                if wanted.is_none() || wanted == record.key.as_deref() {
                    out.write_all(&query_api::journal_line(&record, None))?;
                }
            }
            out.flush()?;
        }
        Ok(())
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        replay: Replay,
    }

    fn check(arguments: &str, expected: Result<&str, &str>) {
        let words = std::iter::once("replay").chain(arguments.split_whitespace());
        let replay = Arguments::try_parse_from(words).expect("arguments").replay;
        let identity = LogIdentity { log_id: uuid::Uuid::nil(), partitions: 4 };
        let found = starts(&replay, identity);
        let found = found
            .map(|starts| starts.iter().map(Position::to_string).collect::<Vec<_>>().join(" "))
            .map_err(|error| error.to_string());
        match expected {
            Ok(starts) => assert_eq!(found.as_deref(), Ok(starts), "{arguments}"),
            Err(why) => {
                let sentence = found.expect_err(arguments);
                assert!(sentence.contains(why), "{arguments}: {sentence}");
            }
        }
    }

    #[test]
    fn partitions_follow_one_another_from_any_position_on() {
        check("", Ok("0:0 1:0 2:0 3:0"));
        check("--from 2:17", Ok("2:17 3:0"));
        check("--partition 2", Ok("2:0"));
        check("--partition 2 --from 2:17", Ok("2:17"));
        check("--partition 2 --from 1:17", Err("not in partition 2"));
        check("--partition 4", Err("no partition 4"));
        check("--from 9:0", Err("no partition 9"));
        check("--follow", Ok("0:0 1:0 2:0 3:0"));
        check("--follow --from 2:17", Err("needs --partition"));
        check("--follow --partition 2 --from 2:17", Ok("2:17"));
    }

    #[test]
    fn an_account_is_looked_for_in_its_partition_alone() {
        let count = NonZeroU32::new(4).expect("not 0");
        let home = partition_of(b"acme", count);
        check("--account acme", Ok(&format!("{home}:0")));
        check(&format!("--account acme --from {home}:5"), Ok(&format!("{home}:5")));
        check(&format!("--account acme --from {}:5", (home + 1) % 4), Err("not in partition"));
    }

    #[test]
    fn a_reader_that_has_had_enough_is_no_error() {
        let broken = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_broken_pipe(&broken));
        assert!(!is_broken_pipe(&anyhow::Error::from(io::Error::other("disk full"))));
    }
}
