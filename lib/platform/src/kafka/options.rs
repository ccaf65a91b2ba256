//! Where Kafka is, the names of the topics, and the settings that every client shares.

use clap::Args;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use uuid::Uuid;

/// Records fetched ahead of their use.
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

/// The full names of the topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// The journal.
    pub events: String,
    /// Ingress of producers that write to Kafka themselves.
    pub usage: String,
    /// Firings and notices.
    pub alerts: String,
    /// Records that could not be read.
    pub dead_letters: String,
}

/// Which log this is; written into every journal partition's first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogIdentity {
    /// Random, made once.
    pub log_id: Uuid,
    /// Pinned for good: the fold checks each record's partition by it.
    pub partitions: i32,
}

impl KafkaOptions {
    /// Returns the topics' names under the prefix.
    pub fn topics(&self) -> Topics {
        let name = |topic: &str| format!("{}{topic}", self.topic_prefix);
        Topics {
            events: name("events"),
            usage: name("usage"),
            alerts: name("alerts"),
            dead_letters: name("dead-letters"),
        }
    }

    /// The settings that every client shares.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "ledger")
            // Never make a topic by asking for it: its settings would be the broker's.
            .set("allow.auto.create.topics", "false")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "2000")
            .set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    /// The settings that every consumer shares.
    pub fn reader(&self) -> ClientConfig {
        let mut config = self.client();
        config
            // Needed even where partitions are taken by hand; no group is joined by it.
            .set("group.id", "ledger-reader")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // An offset that the log does not have must be noticed, not papered over.
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("queued.max.messages.kbytes", PREFETCH_KBYTES_MAX.to_string())
            // Else a full prefetch queue stops fetching for a second.
            .set("fetch.queue.backoff.ms", "10");
        config
    }
}
