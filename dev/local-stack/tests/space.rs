//! The stack that tests share: the first test starts it, and each has a space of its own.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use local_stack::TestSpace;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};

local_stack::shared_test_stack!();

const WAIT_MAX: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn each_test_has_a_database_and_topics_of_its_own_that_go_with_it() -> Result<()> {
    let one = TestSpace::new().await?;
    let other = TestSpace::new().await?;
    assert_ne!(one.database_url, other.database_url);
    assert_ne!(one.topic_prefix, other.topic_prefix);
    let url = one.database_url.clone();
    PgConnection::connect(&url).await?.execute("create table mine ()").await?;
    let mut elsewhere = PgConnection::connect(&other.database_url).await?;
    let seen: bool =
        sqlx::query_scalar("select to_regclass('mine') is not null").fetch_one(&mut elsewhere).await?;
    assert!(!seen, "tests do not see each other's tables");
    let (brokers, topic) = (one.kafka_brokers.clone(), format!("{}events", one.topic_prefix));
    create_topic(&brokers, &topic).await?;
    wait_until("the topic is there", || Ok(topics(&brokers)?.contains(&topic)))?;

    drop(one);
    assert!(PgConnection::connect(&url).await.is_err(), "dropped with its space");
    wait_until("topics are deleted", || Ok(!topics(&brokers)?.contains(&topic)))
}

fn wait_until(what: &str, done: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + WAIT_MAX;
    while !done()? {
        ensure!(Instant::now() < deadline, "{what}: not within {WAIT_MAX:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

async fn create_topic(brokers: &str, name: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    for created in admin.create_topics(&[topic], &AdminOptions::new()).await? {
        created.map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))?;
    }
    Ok(())
}

fn topics(brokers: &str) -> Result<Vec<String>> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let metadata = consumer.fetch_metadata(None, WAIT_MAX)?;
    Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
}
