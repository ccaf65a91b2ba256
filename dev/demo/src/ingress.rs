//! Ingress: writes usage to Kafka as a producer in any language would.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::workload::Item;

/// Longest wait for Kafka's acknowledgement of a record.
const SEND_WAIT: Duration = Duration::from_secs(30);

pub struct Producer {
    topic: String,
    producer: FutureProducer,
}

impl Producer {
    /// Connects to these brokers by these settings of librdkafka.
    pub fn new(brokers: &str, client: &[(String, String)], topic: &str) -> Result<Producer> {
        let mut config = ClientConfig::new();
        config.set("ssl.ca.location", "probe").extend(client.iter().cloned());
        let producer = config
            .set("bootstrap.servers", brokers)
            // The Java client's partitioner, which the journal uses too: an account has the same partition everywhere.
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
