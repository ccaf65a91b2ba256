//! Space: one test's own part of the shared stack.

use std::time::Duration;

use anyhow::Result;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::shared_stack;

/// How long it may take to list topics and to request the deletion of some.
const TOPICS_MAX: Duration = Duration::from_secs(10);

/// A database of its own and a topic prefix of its own for one test, in the shared stack.
///
/// Dropping it deletes both.
#[derive(Debug)]
pub struct TestSpace {
    /// What Kafka clients connect to.
    pub kafka_brokers: String,
    /// The test's own, empty database.
    pub database_url: String,
    /// The prefix of every topic and group of the test.
    pub topic_prefix: String,
    database: String,
    admin_url: String,
}

impl TestSpace {
    /// Makes a space in the shared stack, which is started if it does not run.
    pub async fn new() -> Result<TestSpace> {
        let stack = shared_stack().await?;
        TestSpace::within(stack.kafka_brokers, stack.database_url).await
    }

    /// Makes a space in a stack that runs already.
    pub async fn within(kafka_brokers: String, admin_url: String) -> Result<TestSpace> {
        let id = Uuid::new_v4().simple().to_string();
        let database = format!("t_{id}");
        let mut admin = PgConnection::connect(&admin_url).await?;
        // The name is a letter and hexadecimal digits.
        let create = sqlx::AssertSqlSafe(format!("create database {database}"));
        sqlx::query(create).execute(&mut admin).await?;
        admin.close().await?;
        Ok(TestSpace {
            kafka_brokers,
            database_url: with_database(&admin_url, &database),
            topic_prefix: format!("t{}.", &id[..12]),
            database,
            admin_url,
        })
    }
}

impl Drop for TestSpace {
    /// On a thread of its own, because a test's runtime may be closing. What remains is deleted with the stack.
    fn drop(&mut self) {
        let topics = (self.kafka_brokers.clone(), self.topic_prefix.clone());
        let database = (self.admin_url.clone(), self.database.clone());
        let dropping = std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(drop_database(&database.0, &database.1))?;
            runtime.block_on(delete_topics(&topics.0, &topics.1))
        });
        let _ = dropping.join();
    }
}

async fn drop_database(url: &str, database: &str) -> Result<()> {
    let mut admin = PgConnection::connect(url).await?;
    let drop = sqlx::AssertSqlSafe(format!("drop database if exists {database} with (force)"));
    sqlx::query(drop).execute(&mut admin).await?;
    Ok(admin.close().await?)
}

/// Keeps the broker small through hundreds of tests.
async fn delete_topics(brokers: &str, prefix: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).set("log_level", "0").create()?;
    let metadata = admin.inner().fetch_metadata(None, TOPICS_MAX)?;
    let ours: Vec<&str> =
        metadata.topics().iter().map(|topic| topic.name()).filter(|name| name.starts_with(prefix)).collect();
    if !ours.is_empty() {
        admin.delete_topics(&ours, &AdminOptions::new().operation_timeout(Some(TOPICS_MAX))).await?;
    }
    Ok(())
}

/// Returns the URL with another database, its parameters kept.
fn with_database(url: &str, database: &str) -> String {
    let (address, parameters) = match url.split_once('?') {
        Some((address, parameters)) => (address, format!("?{parameters}")),
        None => (url, String::new()),
    };
    let server = match address.rsplit_once('/') {
        Some((server, _)) if !server.ends_with('/') => server,
        _ => address,
    };
    format!("{server}/{database}{parameters}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_url_changes_its_database_only() {
        let check = |url: &str, expected: &str| assert_eq!(with_database(url, "t"), expected);
        check("postgres://u:p@h:1/ledger", "postgres://u:p@h:1/t");
        check("postgres://u:p@h:1/ledger?sslmode=disable", "postgres://u:p@h:1/t?sslmode=disable");
        check("postgres://u@h", "postgres://u@h/t");
    }
}
