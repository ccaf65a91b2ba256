//! Verify: the live generation equals the journal folded anew, and has every acknowledged event once.

use std::collections::BTreeMap;
use std::time::Duration;

use alert_worker::alerting::{Alerting, Evaluation, NotifyFrom};
use anyhow::{Context, Result, ensure};
use engine::consume::{self, ConsumeOptions, Source, Status, Worker};
use futures::TryStreamExt;
use ledger_core::account::Core;
use ledger_core::event::{Event, wire};
use ledger_core::fold::memory::Memory;
use ledger_core::fold::{FOLD_VERSION, Fact};
use ledger_core::value::credits::Credits;
use platform::kafka::{self, Ends, Position, Record};
use platform::pg::{self, Model, Schema, credits_of};
use platform::shutdown::CancellationToken;

use crate::client;
use crate::fleet::{Fleet, LOG_SEED, PARTITIONS, home_of, partitions};
use crate::fuzz;
use crate::signing;

const PROJECTED_MAX: Duration = Duration::from_secs(90);
/// The live read model.
pub const LIVE: Schema = Schema { model: Model::ReadModel, generation: 1 };
/// The live alerts.
pub const ALERTS: Schema = Schema { model: Model::Alerting, generation: 1 };

impl Fleet {
    /// Waits for the projection, then checks that `sent` events count once each and that a replay changes nothing.
    pub async fn verify(&self, sent: usize) -> Result<()> {
        self.replays_equal().await?;
        let mut tx = pg::begin_read(&self.pool, LIVE).await?;
        let (used, events): (String, i64) = sqlx::query_as(
            "select coalesce(sum(used), 0)::text, coalesce(sum(events), 0)::bigint from user_usage
              where account_id <> $1",
        )
        .bind(fuzz::ACCOUNT)
        .fetch_one(&mut *tx)
        .await?;
        let credits: Credits = client::CREDITS.parse()?;
        let expected = Credits::from_units(credits.units() * i128::try_from(sent)?);
        ensure!(usize::try_from(events)? == sent, "{events} events count, {sent} were acknowledged");
        ensure!(credits_of(&used)? == expected, "{used} credits were used, {expected} were sent");
        Ok(())
    }

    /// Checks that the live generations equal the journal folded in memory and into generations of its own, and that
    /// each firing is in the outbox once, regardless of kills and refolds.
    pub async fn replays_equal(&self) -> Result<()> {
        let ends = self.settled().await?;
        self.equals_memory(&ends).await?;
        let partitions = partitions()?;
        let live = self.live().await?;
        self.replay(live, projector::Projector::new(projector::ReadModel, partitions), &ends).await?;
        let notified = self.notified().await?;
        let nobody = Alerting::new(NotifyFrom::default());
        self.replay(ALERTS, Evaluation::new(nobody, partitions), &ends).await?;
        ensure!(self.notified().await? == notified, "a replay notified again");
        self.charged_once().await?;
        signing::one_history(self, &[LOG_SEED]).await.map(drop)
    }

    /// Returns the journal's ends once no more records come, of top-ups either.
    async fn settled(&self) -> Result<Vec<Position>> {
        loop {
            self.charged_once().await?;
            // The last fold may have started one more attempt, which may have ended since.
            let ends = self.at_rest().await?;
            if self.under_way().await? == 0 && Ends::new(&self.kafka, self.identity)?.all().await? == ends {
                return Ok(ends);
            }
        }
    }

    /// Folds the journal anew next to a live generation, and compares.
    async fn replay<W: Worker>(&self, live: Schema, worker: W, ends: &[Position]) -> Result<()> {
        let anew = Schema { generation: live.generation + 1, ..live };
        pg::create_generation(&self.pool, anew).await?;
        let source = Source { kafka: self.kafka.clone(), identity: self.identity, pool: self.pool.clone() };
        let options = ConsumeOptions::new("replay", anew, FOLD_VERSION);
        let token = CancellationToken::new();
        consume::run_until(vec![worker], source, options, Status::default(), ends, token).await?;
        let mut tx = pg::begin_read(&self.pool, anew).await?;
        let differences = engine::compare::compare(&mut tx, live, anew).await?;
        ensure!(differences.is_empty(), "a replay differs: {differences:#?}");
        Ok(())
    }

    /// Returns how many firings the outbox received, which is each firing once.
    pub async fn notified(&self) -> Result<i64> {
        let mut tx = pg::begin_read(&self.pool, ALERTS).await?;
        let (firings, outbox, both): (i64, i64, i64) = sqlx::query_as(
            "select (select count(*) from firing), (select count(*) from delivery.outbox),
                    (select count(*) from firing join delivery.outbox using (firing_id))",
        )
        .fetch_one(&mut *tx)
        .await?;
        ensure!(
            firings == outbox && firings == both,
            "{firings} firings, {outbox} to be published, {both} in both"
        );
        Ok(outbox)
    }

    /// Returns the journal's ends when everything up to there is projected and no more records come.
    pub async fn at_rest(&self) -> Result<Vec<Position>> {
        let journal = Ends::new(&self.kafka, self.identity)?;
        let waiting = async {
            loop {
                let ends = journal.all().await?;
                let folded = [self.folded(self.live().await?).await?, self.folded(ALERTS).await?];
                let is_folded = |end: &Position| {
                    folded.iter().all(|folded| folded.get(&end.partition) == Some(&end.offset))
                };
                let reached = |end: &Position| end.offset <= 1 || is_folded(end);
                if ends.iter().all(reached) && journal.all().await? == ends && self.ingress_is_empty().await?
                {
                    return anyhow::Ok(ends);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PROJECTED_MAX, waiting).await.context("the projection does not catch up")?
    }

    async fn folded(&self, schema: Schema) -> Result<BTreeMap<i32, i64>> {
        let mut tx = pg::begin_read(&self.pool, schema).await?;
        let rows: Vec<(i32, i64)> =
            sqlx::query_as("select partition, next_offset from checkpoint").fetch_all(&mut *tx).await?;
        Ok(rows.into_iter().collect())
    }

    async fn ingress_is_empty(&self) -> Result<bool> {
        let (kafka, group) = (self.kafka.clone(), format!("{}ingress", self.kafka.topic_prefix));
        tokio::task::spawn_blocking(move || committed_to_the_end(&kafka, &group)).await?
    }

    /// Reads the events of a partition of the journal up to an offset, exclusive.
    async fn facts(&self, end: Position) -> Result<Vec<Fact>> {
        let stream = kafka::read_partition(&self.kafka, end.partition, 1, end.offset);
        let records: Vec<Record> = stream.try_collect().await?;
        let mut facts = Vec::with_capacity(records.len());
        for record in records {
            match event_of(&record) {
                Ok(event) => facts.push(Fact::new(event, record.appended_at, record.position.offset)),
                Err(error) if !self.fuzzed => return Err(error),
                Err(_) => {}
            }
        }
        Ok(facts)
    }

    /// Returns an account's state in the journal at a position of its partition.
    pub async fn folded_to(&self, account: &str, last: Position) -> Result<Option<Core>> {
        let mut memory = Memory::default();
        memory.fold(&self.facts(Position { offset: last.offset + 1, ..last }).await?);
        let found = memory.accounts.into_iter().find(|(id, _)| id.as_str() == account);
        Ok(found.and_then(|(_, account)| account.core))
    }

    async fn equals_memory(&self, ends: &[Position]) -> Result<()> {
        let mut memory = Memory::default();
        for end in ends {
            memory.fold(&self.facts(*end).await?);
        }
        let mut tx = pg::begin_read(&self.pool, self.live().await?).await?;
        let stored: Vec<(String, serde_json::Value)> =
            sqlx::query_as("select account_id, core from account").fetch_all(&mut *tx).await?;
        let opened = memory.accounts.values().filter(|account| account.core.is_some()).count();
        ensure!(stored.len() == opened, "{} accounts stand, {opened} were opened", stored.len());
        for (account, stored) in stored {
            let folded = memory.accounts.iter().find(|(id, _)| id.as_str() == account);
            let core = folded.and_then(|(_, account)| account.core.as_ref()).context("an account")?;
            let mut folded = serde_json::to_value(core)?;
            folded.as_object_mut().context("an object")?.remove("lots");
            ensure!(stored == folded, "{account} stands as {stored}, the journal says {folded}");
        }
        Ok(())
    }
}

/// Returns the event of a record. Errors: it is none, or not of its key in its partition.
fn event_of(record: &Record) -> Result<Event> {
    let Position { partition, .. } = record.position;
    let event = wire::decode(record.value_bytes()).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let account = event.account.as_str();
    ensure!(
        record.key.as_deref() == Some(account.as_bytes()),
        "{}: not the key of {account}",
        record.position
    );
    ensure!(home_of(account)? == partition, "{}: not the partition of {account}", record.position);
    Ok(event)
}

/// Returns whether a group has committed everything in its topic.
fn committed_to_the_end(kafka: &kafka::KafkaOptions, group: &str) -> Result<bool> {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let topic = kafka.topics().usage;
    let consumer: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("group.id", group)
        .create()?;
    let patience = Duration::from_secs(10);
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_range(&topic, 0, PARTITIONS - 1);
    let committed = consumer.committed_offsets(list, patience)?;
    for partition in committed.elements() {
        let (_, end) = consumer.fetch_watermarks(&topic, partition.partition(), patience)?;
        let next = partition.offset().to_raw().unwrap_or(0).max(0);
        if next < end {
            return Ok(false);
        }
    }
    Ok(true)
}
