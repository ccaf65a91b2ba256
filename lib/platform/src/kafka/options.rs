//! Kafka's address, the names of the topics, and the settings that all clients share.

use clap::Args;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use uuid::Uuid;

/// Kilobytes prefetched by a consumer.
const PREFETCH_KBYTES_MAX: usize = 32 * 1024;

/// Where Kafka is, and how the topics are made.
#[derive(Debug, Clone, Args)]
pub struct KafkaOptions {
    /// Kafka's bootstrap servers, comma separated
    #[arg(long = "kafka-brokers", env = "KAFKA_BROKERS", default_value = "", hide_default_value = true)]
    pub brokers: String,
    /// What every topic's name begins with
    #[arg(long, env = "LEDGER_TOPIC_PREFIX", default_value = "ledger.")]
    pub topic_prefix: String,
    /// Partitions of the journal; counts at its creation only
    #[arg(long, env = "LEDGER_PARTITIONS", default_value_t = 32, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub partitions: i32,
    /// Copies of each partition, at creation only; 3 by default, or as many as there are brokers
    #[arg(long, env = "LEDGER_REPLICATION", value_parser = clap::value_parser!(i32).range(1..=100))]
    pub replication: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    pub events: String,
    /// Ingress of producers that write to Kafka directly.
    pub usage: String,
    pub alerts: String,
    /// Unreadable records.
    pub dead_letters: String,
}

/// Identity of a journal; written into the first record of every partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogIdentity {
    /// Random, created once.
    pub log_id: Uuid,
    /// Never changes: the fold checks each record's partition by it.
    pub partitions: i32,
}

impl KafkaOptions {
    pub fn topics(&self) -> Topics {
        let name = |topic: &str| format!("{}{topic}", self.topic_prefix);
        Topics {
            events: name("events"),
            usage: name("usage"),
            alerts: name("alerts"),
            dead_letters: name("dead-letters"),
        }
    }

    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "ledger")
            // Auto-created topics would have the broker's settings.
            .set("allow.auto.create.topics", "false")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "2000")
            .set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    pub fn reader(&self) -> ClientConfig {
        let mut config = self.client();
        config
            // Required even without a group; no group is joined.
            .set("group.id", "ledger-reader")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // An offset that the log does not have must cause an error.
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("queued.max.messages.kbytes", PREFETCH_KBYTES_MAX.to_string())
            // Otherwise a full prefetch queue stops fetching for a second.
            .set("fetch.queue.backoff.ms", "10");
        config
    }
}
