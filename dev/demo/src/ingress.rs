//! Ingress: writing usage to Kafka as a producer of its own would, in any language.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::workload::Item;

/// Longest wait for Kafka's acknowledgement of a record.
const SEND_WAIT: Duration = Duration::from_secs(30);

/// A producer of usage.
pub struct Producer {
    topic: String,
    producer: FutureProducer,
}

impl Producer {
    /// Opens a producer.
    pub fn new(brokers: &str, topic: &str) -> Result<Producer> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            // The same partition for an account as with Kafka's Java client, and as in the journal.
            .set("partitioner", "murmur2_random")
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "5")
            .create()?;
        Ok(Producer { topic: topic.to_string(), producer })
    }

    /// Sends items about one account, in order, and waits until Kafka has them.
    pub async fn send(&self, account: &str, items: &[&Item]) -> Result<()> {
        let mut sent = Vec::with_capacity(items.len());
        for item in items {
            let event = serde_json::to_vec(&item.cloud_event(account))?;
            let content_type =
                Header { key: "content-type", value: Some("application/cloudevents+json; charset=UTF-8") };
            let record = FutureRecord::to(&self.topic)
                .key(account)
                .payload(&event)
                .headers(OwnedHeaders::new().insert(content_type));
            let queued = self.producer.send_result(record);
            sent.push(queued.map_err(|(error, _)| error).context("could not queue a record")?);
        }
        for delivery in sent {
            let delivery =
                tokio::time::timeout(SEND_WAIT, delivery).await.context("Kafka did not answer")??;
            delivery.map_err(|(error, _)| error).context("Kafka did not take a record")?;
        }
        Ok(())
    }
}
