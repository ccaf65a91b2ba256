//! Connection: the addresses of Kafka and Postgres, for commands on a running ledger.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use local_stack::Addresses;
use platform::kafka::KafkaOptions;

/// Where the services are.
#[derive(Debug, Clone, Args)]
pub struct Connection {
    /// The local stack's data directory, read where a service is not named
    #[arg(long, env = "LEDGER_DATA_DIR", default_value = ".data")]
    pub data_dir: PathBuf,
}

impl Connection {
    /// Returns the given Kafka, otherwise that of the local stack.
    pub fn kafka(&self, named: &KafkaOptions) -> Result<KafkaOptions> {
        if !named.brokers.is_empty() {
            return Ok(named.clone());
        }
        let brokers = self.find("", "KAFKA_BROKERS", |addresses| addresses.kafka_brokers)?;
        Ok(named.of_local_stack(brokers))
    }

    /// Returns the given URL, otherwise that of the local stack's database.
    pub fn database_url(&self, named: Option<&str>) -> Result<String> {
        self.find(named.unwrap_or_default(), "DATABASE_URL", |addresses| addresses.database_url)
    }

    fn find(&self, named: &str, variable: &str, of: impl Fn(Addresses) -> String) -> Result<String> {
        if !named.is_empty() {
            return Ok(named.to_owned());
        }
        match local_stack::running(&self.data_dir) {
            Some(addresses) => Ok(of(addresses)),
            None => bail!(
                "no stack runs in {}: set {variable}, or name the --data-dir of a running `ledger up`",
                self.data_dir.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_used_and_what_is_missing_is_one_sentence() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let connection = Connection { data_dir: folder.path().to_owned() };
        let kafka = connection.kafka(&KafkaOptions::new("kafka:9092", "ledger.", 1)).expect("named");
        assert_eq!(kafka.brokers, "kafka:9092");
        assert_eq!(connection.database_url(Some("postgres://x/y")).expect("named"), "postgres://x/y");
        let sentence = connection.database_url(Some("")).expect_err("nothing runs").to_string();
        assert!(sentence.contains("DATABASE_URL"), "{sentence}");
    }
}
