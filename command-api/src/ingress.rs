//! Ingress: admits and prices usage that producers write to Kafka, as over HTTP.
//!
//! Order is kept per partition. A batch is committed after the journal has it, so a crash repeats records and loses
//! none; the fold recognises the repeats. A refused record goes to the dead letters whole: key and value as sent, with
//! headers `code`, `detail`, `source-topic`, `source-partition`, `source-offset`.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger_core::event::wire::RECORD_BYTES_MAX;
use ledger_core::request::read_offer;
use ledger_core::value::id::{AccountId, Label};
use metrics::counter;
use platform::kafka::{AppendError, Appender, DeadLetter, Error, IngressConsumer, KafkaOptions, Record};
use platform::position::Position;
use platform::{clock, failpoint};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::admission::refusal::{self, BEHIND};
use crate::admission::{self, Admitted, Form, Offered, Refusal, Stamp, Verdict};
use crate::app::App;

const BATCH_RECORDS_MAX: usize = 5_000;
/// Consumer group of every instance, under the topics' prefix.
const GROUP: &str = "ingress";
/// Pause before a retry after a failure of Kafka or Postgres.
const RETRY: Duration = Duration::from_millis(500);
/// Actor of usage from this topic.
const ACTOR: &str = "ingress";
/// Bytes that are kept of a record that the dead letters can't take whole.
const CUT_BYTES: usize = 512 * 1024;

/// Header of a dead letter that is cut.
const CUT: &str = "cut";

/// The record's key is not the event's subject.
const KEY_MISMATCH: &str = "key_mismatch";
/// The record is in another partition than its key's.
const WRONG_PARTITION: &str = "wrong_partition";

/// Takes usage from the ingress topic until `shutdown`.
///
/// Fails only if no consumer can be made; it waits out later failures of Kafka or Postgres.
pub async fn run(app: App, kafka: KafkaOptions, shutdown: CancellationToken) -> Result<(), Error> {
    let topics = kafka.topics();
    let consumer = IngressConsumer::new(&kafka, GROUP, &topics.usage).await?;
    let dead_letters = Appender::new(&kafka, &topics.dead_letters, app.journal.partitions())?;
    let ingress = Ingress { app, topic: topics.usage, consumer, dead_letters, shutdown };
    ingress.run().await;
    ingress.consumer.close().await;
    Ok(())
}

struct Ingress {
    app: App,
    topic: String,
    consumer: IngressConsumer,
    dead_letters: Appender,
    shutdown: CancellationToken,
}

impl Ingress {
    async fn run(&self) {
        while !self.shutdown.is_cancelled() {
            match self.consumer.next_batch(BATCH_RECORDS_MAX).await {
                Ok(batch) if batch.is_empty() => {}
                Ok(batch) => self.handle(batch).await,
                Err(error) => {
                    warn!(%error, "ingress can't read");
                    self.pause().await;
                }
            }
        }
    }

    /// Handles a whole batch; a shutdown abandons it, and the next start reads it again.
    async fn handle(&self, batch: Vec<Record>) {
        let Some(verdicts) = self.admit(&batch).await else { return };
        let behind = cut(&batch, &verdicts);
        let handled = before(&batch, &behind);
        let (admitted, letters) = self.sort(batch, verdicts, &behind);
        let (appended, refused) = (admitted.len(), letters.len());
        failpoint::hit("ingress.before_append");
        if !self.append(&admitted).await || !self.send_dead_letters(letters).await {
            return;
        }
        failpoint::hit("ingress.after_append");
        counter!("ledger_ingress_records_total", "result" => "appended").increment(appended as u64);
        counter!("ledger_ingress_records_total", "result" => "dead_letter").increment(refused as u64);
        debug!(appended, refused, "ingress batch handled");
        self.finish(&handled, &behind).await;
    }

    /// Admits a batch, with retries while the database is away; none on shutdown.
    async fn admit(&self, batch: &[Record]) -> Option<Vec<Verdict>> {
        while !self.shutdown.is_cancelled() {
            let offers = batch.iter().map(|record| self.read(record)).collect();
            let deadline = self.app.waiter.deadline();
            match admission::admit(&self.app, offers, stamp(), deadline).await {
                Ok(verdicts) => return Some(verdicts),
                Err(problem) => warn!(code = problem.code, problem.detail, "ingress can't judge"),
            }
            self.pause().await;
        }
        None
    }

    fn read(&self, record: &Record) -> Offered {
        if record.value.len() > RECORD_BYTES_MAX {
            return Err(refusal::too_large(record.value.len()));
        }
        let offer = read_offer(&record.value).map_err(Refusal::invalid)?;
        let key = record.key.as_deref().unwrap_or_default();
        if key != offer.account.as_str().as_bytes() {
            return Err(Refusal::new(KEY_MISMATCH, "the record's key must be the event's subject"));
        }
        let partition = self.app.journal.partition_of(offer.account.as_str());
        if record.position.partition != partition {
            let detail = format!("this key's partition by murmur2 is {partition}");
            return Err(Refusal::new(WRONG_PARTITION, detail));
        }
        Ok(offer)
    }

    /// Separates records for the journal from dead letters, and omits those that must wait.
    fn sort(
        &self,
        batch: Vec<Record>,
        verdicts: Vec<Verdict>,
        behind: &Places,
    ) -> (Vec<Admitted>, Vec<DeadLetter>) {
        let (mut admitted, mut letters) = (Vec::new(), Vec::new());
        for (record, verdict) in batch.into_iter().zip(verdicts) {
            if waits(&record, behind) {
                continue;
            }
            match verdict {
                Ok(one) => admitted.push(one),
                Err(refusal) => letters.push(dead_letter(&self.topic, record, &refusal)),
            }
        }
        (admitted, letters)
    }

    /// Appends to the journal until every record is acknowledged; false on shutdown.
    async fn append(&self, admitted: &[Admitted]) -> bool {
        let records: Vec<(&AccountId, &Vec<u8>)> =
            admitted.iter().map(|one| (&one.account, &one.bytes)).collect();
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let outcomes = self.app.journal.append_all(rest).await;
            for (one, outcome) in admitted[records.len() - rest.len()..].iter().zip(&outcomes) {
                if let Ok(position) = outcome {
                    one.landed(&self.app, *position).await;
                }
            }
            let Some(failed) = first_failure(&outcomes) else { return true };
            // After the first failure, later successes are repeated too: that keeps the order, and repeats are
            // harmless.
            rest = &rest[failed..];
            if !self.retry().await {
                return false;
            }
        }
        true
    }

    /// Appends to the dead letters until every letter is acknowledged; false on shutdown.
    async fn send_dead_letters(&self, mut letters: Vec<DeadLetter>) -> bool {
        while !letters.is_empty() {
            let outcomes = self.dead_letters.append_dead_letters(&letters).await;
            for (letter, outcome) in letters.iter_mut().zip(&outcomes) {
                if let Err(AppendError::Refused(reason)) = outcome {
                    error!(reason, "a dead letter is cut to what its topic takes");
                    shorten(letter);
                }
            }
            let Some(failed) = first_failure(&outcomes) else { return true };
            letters.drain(..failed);
            if !self.retry().await {
                return false;
            }
        }
        true
    }

    async fn finish(&self, handled: &Places, behind: &Places) {
        let position =
            |(partition, offset): (&i32, &i64)| Position { partition: *partition, offset: *offset };
        let handled: Vec<Position> = handled.iter().map(position).collect();
        if let Err(error) = self.consumer.commit(&handled).await {
            info!(%error, "ingress could not commit: some records come again");
        }
        let behind: Vec<Position> = behind.iter().map(position).collect();
        if !behind.is_empty() {
            info!(partitions = behind.len(), "ingress waits for the projection");
            if let Err(error) = self.consumer.rewind(&behind).await {
                warn!(%error, "ingress could not go back");
            }
        }
    }

    /// Pauses before a retry; false on shutdown.
    async fn retry(&self) -> bool {
        warn!("the log does not take what came in, trying again");
        self.pause().await;
        !self.shutdown.is_cancelled()
    }

    async fn pause(&self) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = sleep(RETRY) => {}
        }
    }
}

/// An offset per partition.
type Places = BTreeMap<i32, i64>;

fn stamp() -> Stamp {
    let actor = Label::new(ACTOR).expect("a well-formed label");
    Stamp { actor, now: clock::now(), ledger_time: None, form: Form::CloudEvent }
}

/// Returns the first record of each partition that can't be judged yet.
fn cut(batch: &[Record], verdicts: &[Verdict]) -> Places {
    let mut places = Places::new();
    for (record, verdict) in batch.iter().zip(verdicts) {
        if verdict.as_ref().is_err_and(|refusal| refusal.code == BEHIND) {
            places.entry(record.position.partition).or_insert(record.position.offset);
        }
    }
    places
}

fn waits(record: &Record, behind: &Places) -> bool {
    let Position { partition, offset } = record.position;
    behind.get(&partition).is_some_and(|from| offset >= *from)
}

/// Returns the last record of each partition that need not wait.
fn before(batch: &[Record], behind: &Places) -> Places {
    let handled = batch.iter().filter(|record| !waits(record, behind));
    handled.map(|record| (record.position.partition, record.position.offset)).collect()
}

fn first_failure(outcomes: &[Result<Position, AppendError>]) -> Option<usize> {
    outcomes.iter().position(Result::is_err)
}

/// Cuts a letter that the topic does not take whole, and drops what it does not take cut.
fn shorten(letter: &mut DeadLetter) {
    if letter.headers.iter().any(|(name, _)| *name == CUT) {
        return letter.value.clear();
    }
    letter.value.truncate(CUT_BYTES);
    letter.headers.push((CUT, "true".to_owned()));
}

fn dead_letter(topic: &str, record: Record, refusal: &Refusal) -> DeadLetter {
    let Position { partition, offset } = record.position;
    let headers = vec![
        ("code", refusal.code.to_owned()),
        ("detail", refusal.detail.clone()),
        ("source-topic", topic.to_owned()),
        ("source-partition", partition.to_string()),
        ("source-offset", offset.to_string()),
    ];
    DeadLetter { key: record.key, value: record.value, headers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger_core::value::time::Time;

    fn record(partition: i32, offset: i64) -> Record {
        let position = Position { partition, offset };
        Record { position, key: None, value: b"{".to_vec(), appended_at: Time::MIN }
    }

    fn good() -> Verdict {
        let id = |text: &str| ledger_core::value::id::EventId::new(text).expect("an id");
        let (account, id) = (AccountId::new("a").expect("an id"), id("e"));
        Ok(Admitted { account, id, bytes: Vec::new(), hold: admission::NamedHold::None })
    }

    #[test]
    fn a_partition_waits_from_the_first_record_that_can_not_be_judged_and_others_go_on() {
        let batch = [record(1, 10), record(1, 11), record(1, 12), record(2, 5)];
        let behind = || Err(Refusal::new(BEHIND, "later"));
        let places = cut(&batch, &[good(), behind(), good(), good()]);
        assert_eq!(places, Places::from([(1, 11)]));
        assert_eq!(before(&batch, &places), Places::from([(1, 10), (2, 5)]));
        let all_behind = cut(&batch, &[behind(), behind(), good(), good()]);
        assert_eq!(before(&batch, &all_behind), Places::from([(2, 5)]));
    }

    #[test]
    fn a_dead_letter_is_whole_and_says_why_and_where_from() {
        let letter = dead_letter("ledger.usage", record(3, 1041), &Refusal::new(KEY_MISMATCH, "no"));
        assert_eq!(letter.value, b"{");
        let said: Vec<String> =
            letter.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected =
            "code=key_mismatch detail=no source-topic=ledger.usage source-partition=3 source-offset=1041";
        assert_eq!(said.join(" "), expected);
    }
}
