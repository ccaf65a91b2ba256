//! Creates the topics, and refuses a journal that is not the expected one.
//!
//! Every journal partition begins with a genesis record; a start fails on a different one, none, or a hole.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::appender::content_type;
use super::blocking::blocking;
use super::error::{Error, once_led};
use super::genesis::{GENESIS_TYPE, Genesis, GenesisType, Salt, read_genesis};
use super::options::{KafkaOptions, LogIdentity};
use super::reasons::{Asker, Reasons, explained};
use super::topic_plan::{self, TopicPlan};
use crate::{clock, pg};

/// Lock that serialises the creation of topics; "ledger" in ASCII.
const PREPARE_LOCK: i64 = 0x6c65_6467_6572;
/// Timeout of one request to Kafka.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout from creation until every partition has a leader.
const TOPIC_READY_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(100);

/// Creates missing topics and genesis records, and refuses a journal that does not fit.
///
/// Runs on every start, before any producer; the next run completes a run that crashed half-way.
/// The control schema must exist.
pub async fn prepare(options: &KafkaOptions, pool: &PgPool) -> Result<LogIdentity, Error> {
    if options.brokers.is_empty() {
        return Err(Error::Refused("no Kafka brokers are set: set KAFKA_BROKERS".to_owned()));
    }
    let options = options.clone();
    pg::maintain(pool, move |connection| Box::pin(async move { prepare_locked(&options, connection).await }))
        .await
}

async fn prepare_locked(options: &KafkaOptions, connection: &mut PgConnection) -> Result<LogIdentity, Error> {
    sqlx::query("select pg_advisory_xact_lock($1)").bind(PREPARE_LOCK).execute(&mut *connection).await?;
    let known = known_identity(connection).await?;
    let topics = options.topics();
    let mut found = find(options, &topics.events).await?;
    if known.is_none() && found.is_empty() {
        create_topics(options, &[topic_plan::journal(&topics)], options.partitions).await?;
        found = find(options, &topics.events).await?;
    }
    let plan = decide(known, &found).map_err(|why| Error::Refused(format!("{}: {why}", topics.events)))?;
    write_genesis(options, &topics.events, &plan).await?;
    create_topics(options, &topic_plan::others(&topics), plan.identity.partitions).await?;
    if known.is_none() {
        keep_identity(connection, plan.identity).await?;
    }
    Ok(plan.identity)
}

/// Returns the identity of the existing journal, without changes; refuses what [`prepare`] would refuse.
pub async fn existing(options: &KafkaOptions) -> Result<LogIdentity, Error> {
    let topic = options.topics().events;
    let refused = |why: String| Error::Refused(format!("{topic}: {why}"));
    let plan = decide(None, &find(options, &topic).await?).map_err(refused)?;
    if plan.identity.partitions == 0 || !plan.without_genesis.is_empty() {
        return Err(refused("there is no journal yet: the services make it at their first start".to_owned()));
    }
    Ok(plan.identity)
}

async fn known_identity(connection: &mut PgConnection) -> Result<Option<LogIdentity>, Error> {
    let row: Option<(Uuid, i32)> = sqlx::query_as("select log_id, partitions from control.log_identity")
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|(log_id, partitions)| LogIdentity { log_id, partitions }))
}

async fn keep_identity(connection: &mut PgConnection, identity: LogIdentity) -> Result<(), Error> {
    let keep =
        "insert into control.log_identity (single, log_id, partitions, created_at) values (true, $1, $2, $3)";
    sqlx::query(keep)
        .bind(identity.log_id)
        .bind(identity.partitions)
        .bind(clock::now().to_chrono())
        .execute(connection)
        .await?;
    tracing::debug!(log_id = %identity.log_id, partitions = identity.partitions, "this database belongs to the log");
    Ok(())
}

/// The state of one journal partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    start: i64,
    end: i64,
    /// Identity in the record at offset 0, if it is a genesis record.
    genesis: Option<LogIdentity>,
    salt: Option<Salt>,
}

/// The journal's identity, and the partitions that still lack their first record.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    identity: LogIdentity,
    /// That of the genesis records which are there, if they have one.
    salt: Option<Salt>,
    without_genesis: Vec<i32>,
}

/// Decides whether the journal is ours. Errors: a sentence with the reason.
fn decide(known: Option<LogIdentity>, found: &[Found]) -> Result<Plan, String> {
    if let (Some(known), true) = (known, found.is_empty()) {
        return Err(format!("the topic is gone, but this database belongs to log {}", known.log_id));
    }
    for (partition, it) in found.iter().enumerate() {
        if it.start != 0 {
            return Err(format!("partition {partition} begins at offset {}, its head was deleted", it.start));
        }
        if it.end > 0 && it.genesis.is_none() {
            return Err(format!(
                "partition {partition} does not begin with a genesis record, this is no journal"
            ));
        }
    }
    let count =
        i32::try_from(found.len()).map_err(|_| "it has more partitions than Kafka allows".to_owned())?;
    let first = found.iter().find_map(|it| it.genesis);
    let salt = match found.iter().find(|it| it.genesis.is_some()) {
        Some(begun) => begun.salt,
        None => Some(new_salt()),
    };
    let identity =
        known.or(first).unwrap_or_else(|| LogIdentity { log_id: Uuid::new_v4(), partitions: count });
    if identity.partitions != count {
        return Err(format!("it has {count} partitions but was made with {}", identity.partitions));
    }
    let mut without_genesis = Vec::new();
    for (partition, it) in (0..).zip(found) {
        match it.genesis {
            Some(genesis) if genesis == identity => {}
            Some(genesis) => {
                let (theirs, ours) = (genesis.log_id, identity.log_id);
                return Err(format!("partition {partition} is of log {theirs}, this is log {ours}"));
            }
            None if known.is_some() => {
                return Err(format!(
                    "partition {partition} is empty, but this database belongs to log {}: the topic was recreated",
                    identity.log_id
                ));
            }
            None => without_genesis.push(partition),
        }
    }
    Ok(Plan { identity, salt, without_genesis })
}

fn new_salt() -> Salt {
    let (first, second) = (*Uuid::new_v4().as_bytes(), *Uuid::new_v4().as_bytes());
    Salt(Sha256::digest([first, second].concat()).into())
}

async fn write_genesis(options: &KafkaOptions, topic: &str, plan: &Plan) -> Result<(), Error> {
    if plan.without_genesis.is_empty() {
        return Ok(());
    }
    let genesis = Genesis {
        kind: GenesisType::V1,
        log_id: plan.identity.log_id,
        partitions: plan.identity.partitions,
        created_at: clock::now(),
        salt: plan.salt,
    };
    let bytes = serde_json::to_vec(&genesis).map_err(|error| Error::Internal(error.to_string()))?;
    let mut config = options.client(&[("linger.ms", "0")])?;
    config.set("enable.idempotence", "true").set("acks", "all");
    let producer: FutureProducer = config.create()?;
    let sends = plan.without_genesis.iter().map(|partition| {
        let record: FutureRecord<'_, [u8], [u8]> =
            FutureRecord::to(topic).partition(*partition).payload(bytes.as_slice()).headers(content_type());
        producer.send(record, QUESTION_TIMEOUT)
    });
    for (partition, sent) in plan.without_genesis.iter().zip(futures::future::join_all(sends).await) {
        let delivery = sent.map_err(|(error, _)| error)?;
        if delivery.offset != 0 {
            return Err(Error::Refused(format!(
                "{topic}: somebody wrote into partition {partition} before its genesis record"
            )));
        }
    }
    tracing::info!(topic, log_id = %genesis.log_id, partitions = genesis.partitions, kind = GENESIS_TYPE, "journal begun");
    Ok(())
}

async fn create_topics(options: &KafkaOptions, plans: &[TopicPlan], partitions: i32) -> Result<(), Error> {
    let missing = missing_topics(options, plans).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let replication = topic_plan::replication(options, broker_count(options).await?);
    let settings: Vec<_> = missing.iter().map(|plan| plan.settings(replication)).collect();
    let admin: AdminClient<DefaultClientContext> = options.client(&[])?.create()?;
    let new = missing.iter().zip(&settings).map(|(plan, settings)| {
        let topic = NewTopic::new(&plan.name, partitions, TopicReplication::Fixed(replication));
        settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
    });
    let new: Vec<NewTopic<'_>> = new.collect();
    let timeouts =
        AdminOptions::new().request_timeout(Some(QUESTION_TIMEOUT)).operation_timeout(Some(QUESTION_TIMEOUT));
    for made in admin.create_topics(&new, &timeouts).await? {
        match made {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                return Err(Error::Internal(format!("topic {name} could not be made: {code}")));
            }
        }
    }
    for plan in &missing {
        await_leaders(options, &plan.name, partitions).await?;
        tracing::debug!(topic = %plan.name, partitions, replication, "topic made");
    }
    Ok(())
}

async fn missing_topics<'a>(
    options: &KafkaOptions,
    plans: &'a [TopicPlan],
) -> Result<Vec<&'a TopicPlan>, Error> {
    let mut missing = Vec::new();
    for plan in plans {
        if partition_count(options, &plan.name).await? == 0 {
            missing.push(plan);
        }
    }
    Ok(missing)
}

async fn await_leaders(options: &KafkaOptions, topic: &str, partitions: i32) -> Result<(), Error> {
    let deadline = Instant::now() + TOPIC_READY_TIMEOUT;
    while partition_count(options, topic).await? != partitions {
        if Instant::now() > deadline {
            return Err(Error::Internal(format!("topic {topic} has no leaders yet")));
        }
        sleep(RETRY).await;
    }
    Ok(())
}

async fn broker_count(options: &KafkaOptions) -> Result<i32, Error> {
    ask(options, |client| {
        let brokers = client.fetch_metadata(None, QUESTION_TIMEOUT)?.brokers().len();
        Ok(i32::try_from(brokers).unwrap_or(i32::MAX))
    })
    .await
}

/// Returns a topic's number of partitions; 0 if it does not exist or a leader is missing.
async fn partition_count(options: &KafkaOptions, topic: &str) -> Result<i32, Error> {
    let topic = topic.to_owned();
    ask(options, move |client| {
        let metadata = client.fetch_metadata(Some(&topic), QUESTION_TIMEOUT)?;
        let Some(found) = metadata.topics().first() else {
            return Ok(0);
        };
        let led = found.partitions().iter().all(|partition| partition.error().is_none());
        let count = if found.error().is_none() && led { found.partitions().len() } else { 0 };
        i32::try_from(count).map_err(|_| Error::Internal(format!("topic {topic} has {count} partitions")))
    })
    .await
}

/// Reads the state of every journal partition; empty if there is no journal.
async fn find(options: &KafkaOptions, topic: &str) -> Result<Vec<Found>, Error> {
    let count = partition_count(options, topic).await?;
    let topic = topic.to_owned();
    ask(options, move |client| {
        let mut found = Vec::new();
        for partition in 0..count {
            let (start, end) = once_led(TOPIC_READY_TIMEOUT, || {
                Ok(client.fetch_watermarks(&topic, partition, QUESTION_TIMEOUT)?)
            })?;
            found.push(Found { start, end, genesis: None, salt: None });
        }
        read_first_records(client, &topic, &mut found)?;
        Ok(found)
    })
    .await
}

fn read_first_records(client: &Asker, topic: &str, found: &mut [Found]) -> Result<(), Error> {
    let mut wanted = TopicPartitionList::new();
    for (partition, it) in (0..).zip(found.iter()) {
        if it.start == 0 && it.end > 0 {
            wanted.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
    }
    let mut missing = wanted.count();
    client.assign(&wanted)?;
    let deadline = std::time::Instant::now() + QUESTION_TIMEOUT;
    while missing > 0 {
        if std::time::Instant::now() > deadline {
            return Err(Error::Kafka(KafkaError::NoMessageReceived));
        }
        let Some(message) = client.poll(RETRY) else { continue };
        let message = message?;
        if message.offset() == 0 {
            let genesis = read_genesis(message.key(), message.payload().unwrap_or_default());
            let found = usize::try_from(message.partition()).ok().and_then(|at| found.get_mut(at));
            let found = found.expect("only these partitions are assigned");
            found.genesis = genesis.map(Genesis::identity);
            found.salt = genesis.and_then(|genesis| genesis.salt);
            missing -= 1;
        }
    }
    Ok(())
}

/// Runs requests to Kafka on a blocking thread.
async fn ask<T: Send + 'static>(
    options: &KafkaOptions,
    question: impl FnOnce(&Asker) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let config = options.reader(&[])?;
    blocking(move || {
        let asker: Asker = config.create_with_context(Reasons::default())?;
        let answer = question(&asker);
        explained(&asker, answer)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::super::genesis::{genesis_of, genesis_salt};
    use super::*;

    const OURS: LogIdentity = LogIdentity { log_id: Uuid::from_u128(1), partitions: 2 };
    const OTHER: LogIdentity = LogIdentity { log_id: Uuid::from_u128(2), partitions: 2 };

    const SALT: Salt = Salt([7; 32]);

    fn begun(identity: LogIdentity) -> Found {
        Found { start: 0, end: 7, genesis: Some(identity), salt: Some(SALT) }
    }

    fn empty() -> Found {
        Found { start: 0, end: 0, genesis: None, salt: None }
    }

    fn refused(known: Option<LogIdentity>, found: &[Found], word: &str) {
        let why = decide(known, found).expect_err(word);
        assert!(why.contains(word), "{why}");
    }

    #[test]
    fn a_known_log_is_taken_as_it_stands() {
        let plan = Plan { identity: OURS, salt: Some(SALT), without_genesis: vec![] };
        assert_eq!(decide(Some(OURS), &[begun(OURS), begun(OURS)]), Ok(plan));
    }

    #[test]
    fn a_journal_begun_half_way_is_finished_under_its_own_id() {
        let plan = Plan { identity: OURS, salt: Some(SALT), without_genesis: vec![0] };
        assert_eq!(decide(None, &[empty(), begun(OURS)]), Ok(plan));
    }

    #[test]
    fn a_fresh_database_adopts_a_whole_journal() {
        let plan = Plan { identity: OURS, salt: Some(SALT), without_genesis: vec![] };
        assert_eq!(decide(None, &[begun(OURS), begun(OURS)]), Ok(plan));
    }

    #[test]
    fn a_new_journal_gets_a_random_id() {
        let id = || decide(None, &[empty(), empty()]).expect("new").identity.log_id;
        assert_ne!(id(), id());
    }

    #[test]
    fn a_log_that_is_not_the_known_one_is_refused() {
        refused(Some(OURS), &[], "gone");
        refused(Some(OURS), &[empty(), empty()], "recreated");
        refused(Some(OURS), &[begun(OURS), empty()], "recreated");
        refused(Some(OURS), &[begun(OTHER), begun(OTHER)], "is of log");
        refused(None, &[begun(OURS), begun(OTHER)], "is of log");
        refused(None, &[begun(OURS), Found { genesis: None, ..begun(OURS) }], "no journal");
    }

    #[test]
    fn a_raised_partition_count_is_refused() {
        refused(Some(OURS), &[begun(OURS), begun(OURS), empty()], "3 partitions");
        refused(None, &[begun(OURS), begun(OURS), empty()], "3 partitions");
    }

    #[test]
    fn a_deleted_head_is_refused() {
        refused(Some(OURS), &[begun(OURS), Found { start: 5, genesis: None, ..begun(OURS) }], "head");
    }

    #[test]
    fn a_half_made_journal_keeps_its_salt_and_one_of_before_has_none() {
        let old = Found { salt: None, ..begun(OURS) };
        assert_eq!(decide(None, &[old, empty()]).map(|plan| plan.salt), Ok(None));
        assert_eq!(decide(None, &[empty(), begun(OURS)]).map(|plan| plan.salt), Ok(Some(SALT)));
        let salt = || decide(None, &[empty(), empty()]).expect("new").salt.expect("random").0;
        assert_ne!(salt(), salt());
    }

    #[test]
    fn the_log_id_is_the_salt_of_a_journal_without_one() {
        let genesis = Genesis {
            kind: GenesisType::V1,
            log_id: OURS.log_id,
            partitions: 2,
            created_at: clock::now(),
            salt: Some(SALT),
        };
        let text = |genesis: &Genesis| serde_json::to_vec(genesis).expect("JSON");
        assert_eq!(genesis_salt(None, &text(&genesis)), Some(vec![7; 32]));
        let old = text(&Genesis { salt: None, ..genesis });
        assert!(!String::from_utf8_lossy(&old).contains("salt"));
        assert_eq!(genesis_salt(None, &old), Some(OURS.log_id.as_bytes().to_vec()));
        assert_eq!(genesis_salt(Some(b"acme"), &old), None);
    }

    #[test]
    fn only_a_record_without_a_key_is_a_genesis() {
        let text = r#"{"type":"ledger.genesis.v1","log_id":"00000000-0000-0000-0000-000000000001","partitions":2,"created_at":"2026-02-03T10:00:00Z"}"#;
        assert_eq!(genesis_of(None, text.as_bytes()), Some(OURS));
        assert_eq!(genesis_of(Some(b"acme"), text.as_bytes()), None);
        assert_eq!(genesis_of(None, b"{}"), None);
    }
}
