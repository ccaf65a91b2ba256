//! Raw: the bare Kafka producer that ours is measured against.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

const FLUSH_MAX: Duration = Duration::from_secs(60);
const QUEUE_FULL_PAUSE: Duration = Duration::from_micros(200);

#[derive(Clone, Default)]
struct Counting(Arc<Counts>);

#[derive(Default)]
struct Counts {
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let count = if result.is_ok() { &self.0.acknowledged } else { &self.0.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A producer as set up to lose nothing: idempotent, acknowledged by all replicas.
pub struct RawProducer {
    producer: ThreadedProducer<Counting>,
    counts: Arc<Counts>,
    topic: String,
}

impl RawProducer {
    pub fn new(brokers: &str, topic: &str) -> Result<RawProducer> {
        let context = Counting::default();
        let counts = Arc::clone(&context.0);
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "500000")
            .create_with_context(context)?;
        Ok(RawProducer { producer, counts, topic: topic.to_owned() })
    }

    /// Sends records and returns when all are acknowledged.
    pub fn send_all<'a>(&self, records: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<()> {
        let before = self.counts.acknowledged.load(Ordering::Relaxed);
        let mut sent = 0;
        for (key, value) in records {
            let mut record = BaseRecord::to(&self.topic).key(key).payload(value);
            while let Err((error, back)) = self.producer.send(record) {
                let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
                ensure!(error == full, "the raw producer: {error}");
                record = back;
                std::thread::sleep(QUEUE_FULL_PAUSE);
            }
            sent += 1;
        }
        self.producer.flush(FLUSH_MAX).context("the raw producer")?;
        let acknowledged = self.counts.acknowledged.load(Ordering::Relaxed) - before;
        ensure!(acknowledged == sent, "the raw producer: {acknowledged} of {sent} acknowledged");
        Ok(())
    }
}
