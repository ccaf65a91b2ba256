//! What other systems read in `ledger.alerts`, and what an operator reads in the metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use alert_worker::delivery::event_of;
use anyhow::{Result, ensure};
use ledger_core::event::Channel;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::{Instant, sleep};

use crate::fixture::{Fixture, alert, soon};
use crate::server::{MailServer, Mood};

/// Reads `ledger.alerts` from its beginning until it has this many records: key and value, by partition.
async fn published(fixture: &Fixture, records: usize) -> Result<Vec<(String, String)>> {
    let (brokers, topic) = (fixture.kafka.brokers.clone(), fixture.kafka.topics().alerts);
    let partitions = fixture.kafka.partitions;
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "test").create()?;
        let mut all = TopicPartitionList::new();
        for partition in 0..partitions {
            all.add_partition_offset(&topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        let (mut found, end) = (Vec::new(), std::time::Instant::now() + Duration::from_secs(120));
        // Goes on for a moment after the last expected record, to catch one too many.
        let mut last = std::time::Instant::now();
        while found.len() < records || last.elapsed() < Duration::from_millis(700) {
            ensure!(std::time::Instant::now() < end, "{} records came, not {records}", found.len());
            let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
            let message = message?;
            let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
            found.push((message.partition(), text(message.key()), text(message.payload())));
            last = std::time::Instant::now();
        }
        found.sort_by_key(|(partition, ..)| *partition);
        Ok(found.into_iter().map(|(_, key, value)| (key, value)).collect())
    })
    .await?
}

#[tokio::test(flavor = "multi_thread")]
async fn firings_are_published_once_in_order_under_the_account() -> Result<()> {
    let fixture = Fixture::new().await?;
    let workers = [fixture.work(soon("")), fixture.work(soon(""))];
    let mut expected = Vec::new();
    for _ in 0..5 {
        let rows = [alert("acme", &[]), alert("globex", &[]), alert("acme", &[])];
        fixture.fire(&rows).await?;
        expected.extend(rows);
    }
    let found = published(&fixture, 15).await?;
    assert_eq!(found.len(), 15);
    for account in ["acme", "globex"] {
        let of_account = |key: &str| key == account;
        let found: Vec<&str> =
            found.iter().filter(|(key, _)| of_account(key)).map(|(_, value)| value.as_str()).collect();
        let expected = expected.iter().filter(|row| of_account(row.account_id.as_str()));
        assert_eq!(found, expected.map(event_of).collect::<Result<Vec<_>, _>>()?);
    }
    for worker in workers {
        worker.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_between_publishing_and_marking_publishes_again_under_the_same_id() -> Result<()> {
    let fixture = Fixture::new().await?;
    let row = alert("acme", &[]);
    fixture.fire(std::slice::from_ref(&row)).await?;
    fixture.work_until("delivery.after_publish", "")?.ended().await?;
    let worker = fixture.work(soon(""));
    let found = published(&fixture, 2).await?;
    assert_eq!(found, vec![("acme".to_owned(), event_of(&row)?); 2]);
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_what_waits_what_is_parked_and_how_attempts_end() -> Result<()> {
    let recorder = platform::telemetry::metrics().map_err(|error| anyhow::anyhow!("{error}"))?;
    let (fixture, server) = (Fixture::new().await?, MailServer::start(Mood::Take).await?);
    fixture.set_admins("acme", &[("carl", "carl@example.test")]).await?;
    let worker = fixture.work(soon(&server.url()));
    fixture.fire(&[alert("acme", &[Channel::Email])]).await?;
    fixture.all(1, "delivered").await?;
    let wanted = [
        "ledger_notifications_pending{channel=\"email\"}",
        "ledger_notifications_parked{channel=\"webhook\"}",
        "ledger_delivery_attempts_total{channel=\"email\",result=\"delivered\"}",
        "ledger_delivery_seconds_bucket{channel=\"email\"",
        "ledger_alerts_published_total",
    ];
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let page = recorder.render();
        let missing: BTreeSet<&str> = wanted.into_iter().filter(|name| !page.contains(name)).collect();
        if missing.is_empty() {
            break;
        }
        ensure!(Instant::now() < end, "{missing:?} are not in\n{page}");
        sleep(Duration::from_millis(50)).await;
    }
    worker.stop().await
}
