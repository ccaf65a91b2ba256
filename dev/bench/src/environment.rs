//! Environment: a stack of its own for a benchmark, or the named one, with its own database and topics in it.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use local_stack::{Stack, StackOptions, TestSpace};
use platform::kafka::{self, KafkaOptions, LogIdentity};
use platform::pg::{self, PgPool};
use tempfile::TempDir;
use transparency_log::key_file::LogKey;

use crate::progress::say;

pub const CONNECTIONS: u32 = 16;
/// The operator's key of the services that a benchmark starts.
pub const KEY: &str = "the-operator-key-of-a-benchmark-only";
pub const PARTITIONS: i32 = 32;

/// Kafka and Postgres for one benchmark, which leaves nothing behind.
pub struct Environment {
    pub database_url: String,
    pub kafka: KafkaOptions,
    space: TestSpace,
    stack: Stack,
    folder: TempDir,
}

impl Environment {
    /// Uses `KAFKA_BROKERS` and `DATABASE_URL` where they are set; else starts its own services.
    pub async fn new() -> Result<Environment> {
        let folder = tempfile::tempdir()?;
        let stack = Stack::start(StackOptions::from_env(folder.path().join("data")), say).await?;
        let space = TestSpace::within(stack.kafka_brokers.clone(), stack.database_url.clone()).await?;
        let kafka = KafkaOptions::new(&space.kafka_brokers, &space.topic_prefix, PARTITIONS);
        Ok(Environment { database_url: space.database_url.clone(), kafka, space, stack, folder })
    }

    /// Migrates the database and creates the topics; returns a pool and the log's identity.
    pub async fn prepare(&self) -> Result<(PgPool, LogIdentity)> {
        let pool = pg::connect(&self.database_url, "bench", CONNECTIONS).await?;
        pg::migrate(&pool).await?;
        let identity = kafka::prepare(&self.kafka, &pool).await?;
        Ok((pool, identity))
    }

    /// Makes a private key of the audit log, for a projector in a process of its own.
    pub fn log_key(&self) -> Result<PathBuf> {
        let path = self.folder.path().join("log.key");
        fs::write(&path, LogKey::from_seed([7; 32]).to_pem().as_bytes())?;
        Ok(path)
    }

    /// Removes the database and the topics, then stops what was started.
    pub async fn leave(self) -> Result<()> {
        drop(self.space);
        self.stack.stop().await?;
        Ok(self.folder.close()?)
    }
}
