//! World: a journal with its database, and generations of a read model for a test.

use std::num::NonZeroU32;

use anyhow::{Context, Result, ensure};
use engine::consume::{self, ConsumeOptions, Source, Status};
use engine::fold::Decode;
use futures::TryStreamExt;
use ledger_core::event::wire;
use ledger_core::fold::FOLD_VERSION;
use ledger_core::value::id::AccountId;
use local_stack::TestSpace;
use platform::kafka::{self, Appender, Journal, KafkaOptions, Position, Record};
use platform::pg::{self, Model, Schema};
use platform::shutdown::CancellationToken;
use projector::{Projector, ReadModel};
use sqlx::AssertSqlSafe;

use crate::history;

pub const PARTITIONS: i32 = 3;

pub struct World {
    pub source: Source,
    pub journal: Journal,
    pub space: TestSpace,
}

impl World {
    pub async fn new() -> Result<World> {
        let space = TestSpace::new().await?;
        let kafka = KafkaOptions::new(&space.kafka_brokers, &space.topic_prefix, PARTITIONS);
        let pool = pg::connect(&space.database_url, "test", 8).await?;
        pg::migrate(&pool).await?;
        let identity = kafka::prepare(&kafka, &pool).await?;
        let journal = Journal::new(&kafka, identity)?;
        Ok(World { source: Source { kafka, identity, pool }, journal, space })
    }

    pub fn database_url(&self) -> &str {
        &self.space.database_url
    }

    pub async fn write(&self, events: &[history::Written]) -> Result<()> {
        let records: Vec<(AccountId, Vec<u8>)> =
            events.iter().map(|(account, event)| (account.clone(), wire::encode(event))).collect();
        for outcome in self.journal.append_all(&records).await {
            outcome?;
        }
        Ok(())
    }

    /// Writes bytes under a key, to the partition that the key belongs to or to another one.
    pub async fn write_raw(&self, key: &str, value: &str) -> Result<Position> {
        let topic = self.source.kafka.topics().events;
        let appender = Appender::new(&self.source.kafka, &topic, PARTITIONS)?;
        Ok(appender.append(key.as_bytes(), value.as_bytes()).await?)
    }

    pub async fn generation(&self, generation: i32) -> Result<Schema> {
        let schema = Schema { model: Model::ReadModel, generation };
        pg::create_generation(&self.source.pool, schema).await?;
        Ok(schema)
    }

    /// Projects up to these ends in batches of at most so many records, then ends as a process does.
    pub async fn project_to(
        &self,
        schema: Schema,
        batch: usize,
        ends: &[Position],
        decode: Decode,
    ) -> Result<()> {
        let partitions = NonZeroU32::new(u32::try_from(PARTITIONS)?).context("partitions")?;
        let worker = Projector::with_decoder(ReadModel, partitions, decode);
        let options =
            ConsumeOptions { batch_records_max: batch, ..ConsumeOptions::new("test", schema, FOLD_VERSION) };
        let shutdown = CancellationToken::new();
        consume::run_until(vec![worker], self.source.clone(), options, Status::default(), ends, shutdown)
            .await?;
        Ok(())
    }

    pub async fn project(&self, schema: Schema, batch: usize) -> Result<()> {
        let ends = self.journal.ends().await?;
        self.project_to(schema, batch, &ends, wire::decode).await
    }

    /// Every record of the journal, as stored, without the genesis.
    pub async fn records(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for end in self.journal.ends().await? {
            let stream = kafka::read_partition(&self.source.kafka, end.partition, 1, end.offset);
            records.extend(stream.try_collect::<Vec<_>>().await?);
        }
        Ok(records)
    }

    pub async fn ensure_equal(&self, first: Schema, second: Schema) -> Result<()> {
        let mut tx = pg::begin_read(&self.source.pool, first).await?;
        let differences = engine::compare::compare(&mut tx, first, second).await?;
        ensure!(differences.is_empty(), "{first} and {second} differ: {differences:#?}");
        Ok(())
    }

    pub async fn count(&self, schema: Schema, what: &str) -> Result<i64> {
        let mut tx = pg::begin_read(&self.source.pool, schema).await?;
        let query = format!("select count(*) from {what}");
        Ok(sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut *tx).await?)
    }

    pub async fn texts(&self, schema: Schema, query: &str) -> Result<Vec<String>> {
        let mut tx = pg::begin_read(&self.source.pool, schema).await?;
        Ok(sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_all(&mut *tx).await?)
    }
}

pub const EVENT: &str = r#"{"specversion":"1.0","id":"ID","source":"/app","type":"TYPE","subject":"SUBJECT",
    "time":"2026-02-03T10:00:00Z","recordedat":"2026-02-03T10:00:00Z","actor":"k","data":DATA}"#;

pub fn raw(id: &str, event_type: &str, subject: &str, data: &str) -> String {
    EVENT.replace("ID", id).replace("TYPE", event_type).replace("SUBJECT", subject).replace("DATA", data)
}

pub fn opening(account: &str) -> String {
    raw("open", "ledger.account.opened.v1", account, r#"{"plan":{"cycle":"monthly","allowance":"100"}}"#)
}

pub fn using(account: &str, id: &str) -> String {
    raw(id, "ledger.usage.recorded.v1", account, r#"{"user_id":"ana","credits":"1"}"#)
}
