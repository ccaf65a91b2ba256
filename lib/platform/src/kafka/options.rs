//! Kafka's address, the names of the topics, and the settings that all clients share.

use clap::Args;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use uuid::Uuid;

use super::client::ClientSettings;
use super::error::Error;

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
    /// This process's name in its consumer groups, unique and the same after a restart: it takes its partitions over at
    /// once then, also after a crash. Without one, the group waits 10 s for a process that crashed
    #[arg(long, env = "LEDGER_INSTANCE_ID")]
    pub instance_id: Option<String>,
    #[command(flatten)]
    pub client: ClientSettings,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    pub events: String,
    /// Ingress of producers that write to Kafka directly.
    pub usage: String,
    pub alerts: String,
    /// Unreadable records.
    pub dead_letters: String,
    /// Signed heads of the audit log.
    pub checkpoints: String,
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
    /// Makes the options of a Kafka that everybody may connect to.
    pub fn new(brokers: &str, topic_prefix: &str, partitions: i32) -> KafkaOptions {
        KafkaOptions {
            brokers: brokers.to_owned(),
            topic_prefix: topic_prefix.to_owned(),
            partitions,
            replication: None,
            instance_id: None,
            client: ClientSettings::default(),
        }
    }

    /// Returns the options for the local stack's Kafka, to which everybody on this machine may connect.
    pub fn of_local_stack(&self, brokers: String) -> KafkaOptions {
        KafkaOptions { brokers, client: ClientSettings::default(), ..self.clone() }
    }

    pub fn topics(&self) -> Topics {
        let name = |topic: &str| format!("{}{topic}", self.topic_prefix);
        Topics {
            events: name("events"),
            usage: name("usage"),
            alerts: name("alerts"),
            dead_letters: name("dead-letters"),
            checkpoints: name("checkpoints"),
        }
    }

    /// Returns the configuration of a client: `defaults` hold unless an operator sets them otherwise.
    pub(super) fn client(&self, defaults: &[(&str, &str)]) -> Result<ClientConfig, Error> {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "ledger")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "2000")
            // Our OpenSSL knows no certificates by itself: looks where systems keep theirs.
            .set("ssl.ca.location", "probe");
        for (key, value) in defaults {
            config.set(*key, *value);
        }
        self.client.apply(&mut config)?;
        config
            .set("bootstrap.servers", &self.brokers)
            // Auto-created topics would have the broker's settings.
            .set("allow.auto.create.topics", "false")
            .set_log_level(RDKafkaLogLevel::Warning);
        Ok(config)
    }

    /// Returns the configuration of a reader without a group.
    pub fn reader(&self, defaults: &[(&str, &str)]) -> Result<ClientConfig, Error> {
        let prefetch = PREFETCH_KBYTES_MAX.to_string();
        let mut all = vec![
            ("queued.max.messages.kbytes", prefetch.as_str()),
            // Otherwise a full prefetch queue stops fetching for a second.
            ("fetch.queue.backoff.ms", "10"),
        ];
        all.extend(defaults);
        let mut config = self.client(&all)?;
        config
            // Required even without a group; no group is joined.
            .set("group.id", "ledger-reader")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // An offset that the log does not have must cause an error.
            .set("auto.offset.reset", "error")
            // What a transaction takes back was never said.
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true");
        Ok(config)
    }

    /// Returns the configuration of a member of a group, whose name begins with the topics' prefix.
    pub fn member(&self, group: &str) -> Result<ClientConfig, Error> {
        let mut config =
            self.reader(&[("session.timeout.ms", "10000"), ("heartbeat.interval.ms", "2000")])?;
        config
            .set("group.id", format!("{}{group}", self.topic_prefix))
            .set("partition.assignment.strategy", "cooperative-sticky");
        if let Some(instance) = self.instance_id.as_ref().filter(|instance| !instance.is_empty()) {
            config.set("group.instance.id", instance);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_built_with_every_codec_and_with_tls_and_sasl() {
        let built = ClientConfig::new().create_native_config().expect("a configuration");
        let built = built.get("builtin.features").expect("a list");
        let built: Vec<&str> = built.split(',').collect();
        for feature in ["gzip", "snappy", "lz4", "zstd", "ssl", "sasl_plain", "sasl_scram"] {
            assert!(built.contains(&feature), "{feature} is not in {built:?}");
        }
    }
}
