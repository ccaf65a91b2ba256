//! Ingress: admits and prices usage that producers write to Kafka, as over HTTP.
//!
//! Order is kept per partition. A batch is committed after the journal has it, so a crash repeats records and loses
//! none; the fold recognises the repeats. A refused record goes to the dead letters whole: key, value and headers as sent,
//! the headers as `source-header-…`, with `code`, `detail`, `source-topic`, `source-partition`, `source-offset`. What can't
//! be read, or is too large to be kept, leaves its position there: nothing stops the records behind it.

mod letter;
mod read;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger_core::value::id::Label;
use metrics::counter;
use platform::kafka::{
    AppendError, Appender, DeadLetter, Error, IngressConsumer, KafkaOptions, Progress, Taken,
    count_dead_letters, log_dead_letters,
};
use platform::position::Position;
use platform::{clock, failpoint};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::letter::Letter;
use crate::admission::refusal::BEHIND;
use crate::admission::{self, Admitted, Form, Refusal, Stamp, Verdict};
use crate::app::App;
use crate::write::usage::append_new;

const BATCH_RECORDS_MAX: usize = 5_000;
/// Consumer group of every instance, under the topics' prefix.
const GROUP: &str = "ingress";
/// Pause before a retry after a failure of Kafka or Postgres.
const RETRY: Duration = Duration::from_millis(500);
/// How often the ends of the topic are read, for the lag.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Actor of usage from this topic.
const ACTOR: &str = "ingress";
/// The source of these dead letters in the metrics.
const SOURCE: &str = "ingress";

/// The journal does not take the record, whatever it is.
const NOT_APPENDED: &str = "not_appended";

/// Takes usage from the ingress topic.
pub struct Ingress {
    app: App,
    topic: String,
    consumer: Arc<IngressConsumer>,
    dead_letters: Appender,
    shutdown: CancellationToken,
}

impl Ingress {
    /// Joins the group. Fails only if no consumer or producer can be made.
    pub async fn new(app: App, kafka: &KafkaOptions, shutdown: CancellationToken) -> Result<Ingress, Error> {
        let topics = kafka.topics();
        let consumer = Arc::new(IngressConsumer::new(kafka, GROUP, &topics.usage).await?);
        let dead_letters = Appender::new(kafka, &topics.dead_letters, app.journal.partitions())?;
        Ok(Ingress { app, topic: topics.usage, consumer, dead_letters, shutdown })
    }

    /// Returns how far it is, for readiness.
    pub fn progress(&self) -> &Progress {
        self.consumer.progress()
    }

    /// Takes usage until `shutdown`; waits out failures of Kafka or Postgres.
    pub async fn run(self) {
        tokio::join!(self.take(), self.watch());
        if let Some(consumer) = Arc::into_inner(self.consumer) {
            consumer.close().await;
        }
    }

    async fn take(&self) {
        while !self.shutdown.is_cancelled() {
            match self.consumer.next_batch(BATCH_RECORDS_MAX).await {
                Ok(batch) if batch.is_empty() => log_dead_letters(),
                Ok(batch) => self.handle(batch).await,
                Err(error) => {
                    warn!(%error, "ingress can't read");
                    self.pause().await;
                }
            }
        }
    }

    /// Keeps the lag known, also while the loop that takes is waiting.
    async fn watch(&self) {
        while !self.shutdown.is_cancelled() {
            if let Err(error) = self.consumer.watch_ends().await {
                warn!(%error, "the ends of the ingress can't be read");
            }
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = sleep(WATCH_EVERY) => {}
            }
        }
    }

    /// Handles a whole batch; a shutdown abandons it, and the next start reads it again.
    async fn handle(&self, batch: Vec<Taken>) {
        let Some(verdicts) = self.admit(&batch).await else { return };
        let behind = cut(&batch, &verdicts);
        let handled = before(&batch, &behind);
        let (admitted, mut letters) = self.sort(batch, verdicts, &behind);
        let taken = admitted.len();
        failpoint::hit("ingress.before_append");
        let Some(refused) = self.append(admitted).await else { return };
        let appended = taken - refused.len();
        letters.extend(refused);
        let buried = letters.len();
        if !self.bury(letters).await {
            return;
        }
        failpoint::hit("ingress.after_append");
        counter!("ledger_ingress_records_total", "result" => "appended").increment(appended as u64);
        counter!("ledger_ingress_records_total", "result" => "dead_letter").increment(buried as u64);
        debug!(appended, buried, "ingress batch handled");
        self.finish(&handled, &behind).await;
    }

    /// Admits a batch, with retries while the database is away; none on shutdown.
    async fn admit(&self, batch: &[Taken]) -> Option<Vec<Verdict>> {
        while !self.shutdown.is_cancelled() {
            let offers = batch.iter().map(read::read).collect();
            let deadline = self.app.waiter.deadline();
            match admission::admit(&self.app, offers, stamp(), deadline).await {
                Ok(verdicts) => return Some(verdicts),
                Err(problem) => warn!(code = problem.code, problem.detail, "ingress can't judge"),
            }
            self.pause().await;
        }
        None
    }

    /// Separates records for the journal from dead letters, and omits those that must wait.
    fn sort(
        &self,
        batch: Vec<Taken>,
        verdicts: Vec<Verdict>,
        behind: &Places,
    ) -> (Vec<(Taken, Admitted)>, Vec<Letter>) {
        let (mut admitted, mut letters) = (Vec::new(), Vec::new());
        for (taken, verdict) in batch.into_iter().zip(verdicts) {
            if waits(&taken, behind) {
                continue;
            }
            match verdict {
                Ok(one) => admitted.push((taken, one)),
                Err(refusal) => letters.push(Letter::new(&self.topic, taken, &refusal)),
            }
        }
        (admitted, letters)
    }

    /// Appends to the journal until every record is acknowledged, or refused for what it is; none on shutdown.
    async fn append(&self, mut rest: Vec<(Taken, Admitted)>) -> Option<Vec<Letter>> {
        let mut letters = Vec::new();
        let mut alone = false;
        while !rest.is_empty() {
            let tried = if alone { 1 } else { rest.len() };
            let records: Vec<&Admitted> = rest[..tried].iter().map(|(_, one)| one).collect();
            let outcomes = append_new(&self.app, &records).await;
            let Some(failed) = outcomes.iter().position(Result::is_err) else {
                rest.drain(..tried);
                alone = false;
                continue;
            };
            // After the first failure, later successes are repeated too: that keeps the order, and repeats are
            // harmless.
            rest.drain(..failed);
            match &outcomes[failed] {
                // The broker refuses a whole request, so the record is tried once more by itself.
                Err(AppendError::Refused(_)) if !alone => alone = true,
                Err(AppendError::Refused(reason)) => {
                    error!(reason, "the journal does not take a record, it becomes a dead letter");
                    let (taken, _) = rest.remove(0);
                    letters.push(Letter::new(&self.topic, taken, &Refusal::new(NOT_APPENDED, reason)));
                    alone = false;
                }
                Ok(_) | Err(AppendError::Unknown(_) | AppendError::Busy) => {
                    if !self.retry().await {
                        return None;
                    }
                }
            }
        }
        Some(letters)
    }

    /// Appends to the dead letters until every letter is acknowledged; false on shutdown.
    async fn bury(&self, mut letters: Vec<Letter>) -> bool {
        while !letters.is_empty() {
            let contents: Vec<DeadLetter> = letters.iter().map(|letter| letter.content.clone()).collect();
            let outcomes = self.dead_letters.append_dead_letters(&contents).await;
            let mut waiting = false;
            let mut open = Vec::new();
            for (mut letter, outcome) in letters.into_iter().zip(outcomes) {
                match outcome {
                    Ok(_) => count_dead_letters(SOURCE, letter.code, 1),
                    Err(AppendError::Refused(reason)) => match letter.shorten() {
                        true => open.push(letter),
                        false => lost(&letter, &reason),
                    },
                    Err(AppendError::Unknown(_) | AppendError::Busy) => {
                        waiting = true;
                        open.push(letter);
                    }
                }
            }
            if waiting && !self.retry().await {
                return false;
            }
            letters = open;
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
fn cut(batch: &[Taken], verdicts: &[Verdict]) -> Places {
    let mut places = Places::new();
    for (taken, verdict) in batch.iter().zip(verdicts) {
        if verdict.as_ref().is_err_and(|refusal| refusal.code == BEHIND) {
            let Position { partition, offset } = taken.first();
            places.entry(partition).or_insert(offset);
        }
    }
    places
}

fn waits(taken: &Taken, behind: &Places) -> bool {
    let Position { partition, offset } = taken.first();
    behind.get(&partition).is_some_and(|from| offset >= *from)
}

/// Returns the last record of each partition that need not wait.
fn before(batch: &[Taken], behind: &Places) -> Places {
    let handled = batch.iter().filter(|taken| !waits(taken, behind)).map(Taken::last);
    handled.map(|position| (position.partition, position.offset)).collect()
}

/// Says in the log what could not be kept anywhere else: even the position alone is more than the topic takes.
fn lost(letter: &Letter, reason: &str) {
    let text = |(name, value): &(String, Vec<u8>)| format!("{name}={}", String::from_utf8_lossy(value));
    let says: Vec<String> = letter.content.headers.iter().map(text).collect();
    error!(reason, says = says.join(" "), "a dead letter is not taken by its topic and is left out");
    counter!("ledger_dead_letters_lost_total", "source" => SOURCE).increment(1);
    count_dead_letters(SOURCE, letter.code, 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger_core::value::id::{AccountId, EventId, Source};
    use ledger_core::value::time::Time;
    use platform::kafka::{IngressRecord, Unreadable};

    fn record(partition: i32, offset: i64) -> Taken {
        let position = Position { partition, offset };
        Taken::Record(IngressRecord {
            position,
            key: None,
            value: None,
            headers: Vec::new(),
            appended_at: Time::MIN,
        })
    }

    fn unreadable(partition: i32, first: i64, last: i64) -> Taken {
        Taken::Unreadable(Unreadable { partition, first, last, reason: String::new() })
    }

    fn good() -> Verdict {
        let account = AccountId::new("a").expect("an id");
        let (id, source) = (EventId::new("e").expect("an id"), Source::new("/app").expect("a source"));
        let (bytes, hold) = (Vec::new(), admission::NamedHold::None);
        Ok(Admitted { account, id, source, bytes, hold, first: None })
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
    fn what_can_not_be_read_is_handled_whole_and_waits_for_what_is_before_it() {
        let batch = [record(1, 10), unreadable(1, 11, 19), unreadable(2, 5, 5)];
        let refused = || Err(Refusal::new(read::UNREADABLE, "bad"));
        let none = cut(&batch, &[good(), refused(), refused()]);
        assert_eq!(before(&batch, &none), Places::from([(1, 19), (2, 5)]));
        let behind = cut(&batch, &[Err(Refusal::new(BEHIND, "later")), refused(), refused()]);
        assert_eq!(before(&batch, &behind), Places::from([(2, 5)]));
    }
}
