//! Finds settings of Kafka and Postgres that could lose acknowledged data.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use sqlx::PgPool;

use super::error::Error;
use super::options::KafkaOptions;

const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// An unsafe setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsafe {
    /// System and name, such as `postgres fsync`.
    pub setting: String,
    pub value: String,
    /// The possible loss.
    pub reason: &'static str,
}

impl std::fmt::Display for Unsafe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {}: {}", self.setting, self.value, self.reason)
    }
}

/// Returns the settings that could lose acknowledged writes; a service is not ready while there are any.
pub async fn safety(options: &KafkaOptions, pool: &PgPool) -> Result<Vec<Unsafe>, Error> {
    let topic = options.topics().events;
    let mut found = unsafe_topic(&topic, &topic_settings(options, &topic).await?);
    found.extend(unsafe_postgres(&postgres_settings(pool).await?));
    Ok(found)
}

type Settings = BTreeMap<String, String>;

async fn topic_settings(options: &KafkaOptions, topic: &str) -> Result<Settings, Error> {
    let admin: AdminClient<DefaultClientContext> = options.client().create()?;
    let timeout = AdminOptions::new().request_timeout(Some(QUESTION_TIMEOUT));
    let described = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &timeout).await?;
    let unanswered = RDKafkaErrorCode::UnknownTopicOrPartition;
    let resource = described.into_iter().next().unwrap_or(Err(unanswered));
    let resource: ConfigResource = resource.map_err(KafkaError::AdminOp)?;
    Ok(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
}

async fn postgres_settings(pool: &PgPool) -> Result<Settings, Error> {
    let names = ["fsync", "full_page_writes", "synchronous_commit"];
    let rows: Vec<(String, String)> =
        sqlx::query_as("select name, setting from pg_settings where name = any($1)")
            .bind(names.map(str::to_owned).to_vec())
            .fetch_all(pool)
            .await?;
    Ok(rows.into_iter().collect())
}

fn unsafe_topic(topic: &str, settings: &Settings) -> Vec<Unsafe> {
    let rules: [(&str, &[&str], &'static str); 5] = [
        ("retention.ms", &["-1"], "old events would be deleted"),
        ("retention.bytes", &["-1"], "old events would be deleted"),
        ("cleanup.policy", &["delete"], "events would be compacted away"),
        ("unclean.leader.election.enable", &["false"], "acknowledged events could be lost"),
        ("message.timestamp.type", &["LogAppendTime"], "producers could set the ledger's time"),
    ];
    check(&format!("topic {topic}"), settings, &rules)
}

fn unsafe_postgres(settings: &Settings) -> Vec<Unsafe> {
    let rules: [(&str, &[&str], &'static str); 3] = [
        ("fsync", &["on"], "a power cut could lose committed rows"),
        ("full_page_writes", &["on"], "a power cut could tear pages"),
        (
            "synchronous_commit",
            &["on", "local", "remote_write", "remote_apply"],
            "a power cut could lose committed rows",
        ),
    ];
    check("postgres", settings, &rules)
}

fn check(place: &str, settings: &Settings, rules: &[(&str, &[&str], &'static str)]) -> Vec<Unsafe> {
    let broken = |(name, safe, reason): &(&str, &[&str], &'static str)| {
        let value = settings.get(*name)?;
        let unsafe_setting = Unsafe { setting: format!("{place} {name}"), value: value.clone(), reason };
        (!safe.contains(&value.as_str())).then_some(unsafe_setting)
    };
    rules.iter().filter_map(broken).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &[Unsafe]) -> Vec<&str> {
        found.iter().map(|it| it.setting.as_str()).collect()
    }

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_journal_that_forgets_is_not_safe() {
        let safe = [
            ("retention.ms", "-1"),
            ("cleanup.policy", "delete"),
            ("message.timestamp.type", "LogAppendTime"),
        ];
        assert_eq!(names(&unsafe_topic("t", &settings(&safe))), [""; 0]);
        for (name, value) in [
            ("retention.ms", "604800000"),
            ("retention.bytes", "1"),
            ("cleanup.policy", "compact"),
            ("cleanup.policy", "compact,delete"),
            ("unclean.leader.election.enable", "true"),
            ("message.timestamp.type", "CreateTime"),
        ] {
            let found = unsafe_topic("t", &settings(&[(name, value)]));
            assert_eq!(names(&found), [format!("topic t {name}")]);
        }
    }

    #[test]
    fn a_database_that_does_not_wait_for_the_disk_is_not_safe() {
        assert_eq!(names(&unsafe_postgres(&settings(&[("fsync", "off")]))), ["postgres fsync"]);
        assert_eq!(
            names(&unsafe_postgres(&settings(&[("synchronous_commit", "off"), ("full_page_writes", "off")]))),
            ["postgres full_page_writes", "postgres synchronous_commit"]
        );
        assert_eq!(names(&unsafe_postgres(&settings(&[("synchronous_commit", "remote_apply")]))), [""; 0]);
    }
}
