//! Preflight: whether the topics, as they are now, keep what is acknowledged.
//!
//! Asked again and again while a service runs: an operator's change is noticed when it is made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::Mutex;

use super::blocking::blocking;
use super::error::Error;
use super::options::KafkaOptions;
use super::reasons::{Asker, Reasons, explained};
use super::topic_plan::{
    CLEANUP_POLICY, MIN_INSYNC_REPLICAS, RETENTION_BYTES, RETENTION_MS, TIMESTAMP_TYPE, TopicPlan,
    UNCLEAN_ELECTION, all, min_insync, replication,
};

/// Timeout of a request; readiness waits no longer than 2 s for its checks.
const QUESTION_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long safe settings are taken to stay safe. Unsafe ones are read again at once.
const SAFE_FOR: Duration = Duration::from_secs(5);

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

/// Examines the topics over a connection of its own, which it keeps.
pub struct Preflight {
    options: KafkaOptions,
    asker: Arc<Asker>,
    safe_at: Mutex<Option<Instant>>,
}

/// What the brokers say about a topic.
#[derive(Debug, Clone, Default)]
struct Found {
    /// Copies of the partition that has the fewest.
    replicas: i32,
    settings: BTreeMap<String, String>,
}

impl Preflight {
    /// Connects in the background.
    pub fn new(options: &KafkaOptions) -> Result<Preflight, Error> {
        let asker: Asker = options.reader(&[])?.create_with_context(Reasons::default())?;
        Ok(Preflight { options: options.clone(), asker: Arc::new(asker), safe_at: Mutex::default() })
    }

    /// Returns what could lose acknowledged records. Errors say why the brokers can't be asked.
    pub async fn check(&self) -> Result<Vec<Unsafe>, Error> {
        let plans = all(&self.options.topics());
        let mut safe_at = self.safe_at.lock().await;
        if safe_at.is_some_and(|at| at.elapsed() < SAFE_FOR) {
            // Whether the brokers answer is asked every time.
            self.replicas(vec![plans[0].name.clone()]).await?;
            return Ok(Vec::new());
        }
        *safe_at = None;
        let names: Vec<String> = plans.iter().map(|plan| plan.name.clone()).collect();
        let (brokers, replicas) = self.replicas(names).await?;
        let mut settings = self.settings(&plans).await?;
        let mut found = Vec::new();
        for (plan, replicas) in plans.iter().zip(replicas) {
            let settings = settings.remove(&plan.name).unwrap_or_default();
            found.extend(self.judge(plan, brokers, &Found { replicas, settings }));
        }
        if found.is_empty() {
            *safe_at = Some(Instant::now());
        }
        Ok(found)
    }

    /// Returns the number of brokers, and of each topic the copies of the partition that has the fewest.
    async fn replicas(&self, topics: Vec<String>) -> Result<(i32, Vec<i32>), Error> {
        let asker = Arc::clone(&self.asker);
        blocking(move || {
            let answer = replicas(&asker, &topics);
            explained(&asker, answer)
        })
        .await
    }

    async fn settings(
        &self,
        plans: &[TopicPlan],
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, Error> {
        let admin: AdminClient<DefaultClientContext> = self.options.client(&[])?.create()?;
        let topics: Vec<ResourceSpecifier<'_>> =
            plans.iter().map(|plan| ResourceSpecifier::Topic(&plan.name)).collect();
        let timeout = AdminOptions::new().request_timeout(Some(QUESTION_TIMEOUT));
        let mut all = BTreeMap::new();
        for (plan, described) in plans.iter().zip(admin.describe_configs(&topics, &timeout).await?) {
            let resource = described.map_err(|code| unreadable(&plan.name, code))?;
            let ConfigResource { specifier: OwnedResourceSpecifier::Topic(name), entries } = resource else {
                continue;
            };
            let values = entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
            all.insert(name, values.collect());
        }
        Ok(all)
    }

    fn judge(&self, plan: &TopicPlan, brokers: i32, found: &Found) -> Vec<Unsafe> {
        // A broker that is down for a while has its copies still.
        let copies = replication(&self.options, brokers.max(found.replicas));
        unsafe_topic(plan, copies, found)
    }
}

fn replicas(asker: &Asker, topics: &[String]) -> Result<(i32, Vec<i32>), Error> {
    let mut brokers = 0;
    let mut all = Vec::with_capacity(topics.len());
    for name in topics {
        let metadata = asker.fetch_metadata(Some(name), QUESTION_TIMEOUT)?;
        brokers = count(metadata.brokers().len());
        let topic = metadata.topics().first();
        if let Some(code) = topic.and_then(|topic| topic.error()) {
            return Err(unreadable(name, code.into()));
        }
        let partitions = topic.map(|topic| topic.partitions()).unwrap_or_default();
        all.push(partitions.iter().map(|partition| count(partition.replicas().len())).min().unwrap_or(0));
    }
    Ok((brokers, all))
}

fn count(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

fn unreadable(topic: &str, code: RDKafkaErrorCode) -> Error {
    Error::Unreachable(format!("topic {topic}: {}", KafkaError::AdminOp(code)))
}

fn unsafe_topic(plan: &TopicPlan, copies: i32, found: &Found) -> Vec<Unsafe> {
    let kept = |least: i64| move |value: &str| is_at_least(value, least);
    let is = |wanted: &'static str| move |value: &str| value == wanted;
    let insync = i64::from(min_insync(copies));
    let held = [
        held(plan, found, RETENTION_MS, "records would be deleted too early", kept(plan.retention_ms)),
        held(plan, found, RETENTION_BYTES, "records would be deleted too early", kept(-1)),
        held(plan, found, CLEANUP_POLICY, "records would be compacted away", is("delete")),
        held(plan, found, UNCLEAN_ELECTION, "acknowledged records could be lost", is("false")),
        held(plan, found, TIMESTAMP_TYPE, "producers could set the time", is("LogAppendTime")),
        held(
            plan,
            found,
            MIN_INSYNC_REPLICAS,
            "a record could be acknowledged by too few brokers",
            |value| value.parse::<i64>().is_ok_and(|value| value >= insync),
        ),
    ];
    let mut found_unsafe: Vec<Unsafe> = held.into_iter().flatten().collect();
    if found.replicas < copies {
        found_unsafe.push(Unsafe {
            setting: format!("topic {} replication factor", plan.name),
            value: found.replicas.to_string(),
            reason: "there are brokers for more copies, and one could lose acknowledged records",
        });
    }
    found_unsafe
}

/// Returns a setting that is not as it has to be; one that the brokers don't tell is none that is safe.
fn held(
    plan: &TopicPlan,
    found: &Found,
    name: &str,
    reason: &'static str,
    safe: impl Fn(&str) -> bool,
) -> Option<Unsafe> {
    let value = found.settings.get(name);
    if value.is_some_and(|value| safe(value)) {
        return None;
    }
    let value = value.map_or("not reported", String::as_str).to_owned();
    Some(Unsafe { setting: format!("topic {} {name}", plan.name), value, reason })
}

/// Whether a bound is as wide as wanted; a negative one is none.
fn is_at_least(value: &str, wanted: i64) -> bool {
    let Ok(value) = value.parse::<i64>() else { return false };
    value < 0 || (wanted >= 0 && value >= wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::topic_plan;

    fn options() -> KafkaOptions {
        KafkaOptions::new("", "t.", 1)
    }

    fn found(plan: &TopicPlan, replicas: i32) -> Found {
        let settings = plan.settings(replicas).into_iter();
        Found { replicas, settings: settings.map(|(name, value)| (name.to_owned(), value)).collect() }
    }

    fn named(plan: &TopicPlan, copies: i32, found: &Found) -> Vec<String> {
        unsafe_topic(plan, copies, found).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_topic_is_safe_as_it_is_made() {
        for plan in all(&options().topics()) {
            for copies in 1..=4 {
                assert_eq!(named(&plan, copies, &found(&plan, copies)), [""; 0]);
            }
        }
    }

    #[test]
    fn every_setting_counts_and_one_that_is_not_told_too() {
        for plan in all(&options().topics()) {
            for (name, worse) in [
                (RETENTION_MS, "3600000"),
                (RETENTION_BYTES, "1"),
                (CLEANUP_POLICY, "compact"),
                (CLEANUP_POLICY, "compact,delete"),
                (UNCLEAN_ELECTION, "true"),
                (TIMESTAMP_TYPE, "CreateTime"),
                (MIN_INSYNC_REPLICAS, "1"),
            ] {
                let mut other = found(&plan, 3);
                other.settings.insert(name.to_owned(), worse.to_owned());
                let said = named(&plan, 3, &other);
                assert!(
                    said.len() == 1 && said[0].starts_with(&format!("topic {} {name} is {worse}", plan.name)),
                    "{said:?}"
                );
                other.settings.remove(name);
                let said = named(&plan, 3, &other);
                assert!(said.len() == 1 && said[0].contains(&format!("{name} is not reported")), "{said:?}");
            }
        }
    }

    #[test]
    fn more_than_is_asked_for_is_safe() {
        let usage = &topic_plan::others(&options().topics())[0];
        for (name, better) in [(RETENTION_MS, "-1"), (RETENTION_MS, "864000000"), (MIN_INSYNC_REPLICAS, "3")]
        {
            let mut other = found(usage, 3);
            other.settings.insert(name.to_owned(), better.to_owned());
            assert_eq!(named(usage, 3, &other), [""; 0]);
        }
    }

    #[test]
    fn copies_are_as_many_as_there_are_brokers_for() {
        let plan = topic_plan::journal(&options().topics());
        let said = |brokers, replicas| {
            let wanted = replication(&options(), brokers);
            unsafe_topic(&plan, wanted, &found(&plan, replicas)).len()
        };
        assert_eq!((said(1, 1), said(2, 2), said(3, 3), said(5, 3)), (0, 0, 0, 0));
        // Fewer copies, and with one copy one acknowledgement.
        assert_eq!((said(3, 2), said(3, 1), said(2, 1)), (1, 2, 2));
        assert_eq!((min_insync(1), min_insync(2), min_insync(3)), (1, 2, 2));
        let one_on_purpose = KafkaOptions { replication: Some(1), ..options() };
        assert_eq!(replication(&one_on_purpose, 3), 1);
    }
}
