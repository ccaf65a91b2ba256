//! The consume loop with a worker that only counts: under all faults, each record counts once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use engine::consume::{ConsumeOptions, Source, Status, Summary, Worker, WorkerError, run, run_until};
use futures::TryStreamExt;
use local_stack::TestSpace;
use local_stack::testing::wire::{self, Packed, RawRecord, Wire};
use platform::kafka::{
    IngressConsumer, Journal, KafkaOptions, LogIdentity, Position, Preflight, Record, Taken, leaf_hash,
    prepare, read_partition, safety,
};
use platform::pg::{self, Model, Schema};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::Producer;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const PARTITIONS: i32 = 4;
const FOLD_VERSION: i32 = 7;
const WAIT_MAX: Duration = Duration::from_secs(120);

/// A journal and a database of the test's own.
pub struct World {
    kafka: KafkaOptions,
    identity: LogIdentity,
    pub pool: PgPool,
    pub schema: Schema,
    journal: Journal,
    appended: AtomicU64,
    space: TestSpace,
}

impl World {
    pub async fn new() -> Result<World> {
        let space = TestSpace::new().await?;
        let kafka = KafkaOptions::new(&space.kafka_brokers, &space.topic_prefix, PARTITIONS);
        let pool = pg::connect(&space.database_url, "consume-test", 10).await?;
        pg::migrate(&pool).await?;
        let identity = prepare(&kafka, &pool).await?;
        let schema = pg::ensure_generation(&pool, Model::ReadModel).await?;
        let tables = format!(
            "create table {schema}.counted (partition int, \"offset\" bigint, account text, primary key (partition, \"offset\"));
             create table {schema}.total (account text primary key, records bigint not null)"
        );
        sqlx::raw_sql(AssertSqlSafe(tables)).execute(&pool).await?;
        let journal = Journal::new(&kafka, identity)?;
        Ok(World { kafka, identity, pool, schema, journal, appended: AtomicU64::new(0), space })
    }

    fn source(&self) -> Source {
        Source { kafka: self.kafka.clone(), identity: self.identity, pool: self.pool.clone() }
    }

    fn options(&self, group: &str) -> ConsumeOptions {
        ConsumeOptions { batch_records_max: 50, ..ConsumeOptions::new(group, self.schema, FOLD_VERSION) }
    }

    /// Starts a loop as a process of its own would run it.
    pub fn start(&self, group: &str) -> Running {
        self.start_with(self.source(), self.options(group))
    }

    fn start_with(&self, source: Source, options: ConsumeOptions) -> Running {
        let (status, shutdown, counts) =
            (Status::default(), CancellationToken::new(), Arc::new(Counts::default()));
        let lanes = (0..LANES).map(|_| Counter { counts: counts.clone() }).collect();
        let task = tokio::spawn(run(lanes, source, options, status.clone(), shutdown.clone()));
        Running { task, status, shutdown, counts }
    }

    pub async fn append(&self, records: usize) -> Result<()> {
        let events: Vec<(String, Vec<u8>)> = (0..records)
            .map(|n| (format!("account-{}", n % 13), format!("{{\"n\":{n}}}").into_bytes()))
            .collect();
        for outcome in self.journal.append_all(&events).await {
            outcome?;
        }
        self.appended.fetch_add(records as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until the checkpoint is at the journal's end, and checks that each record counted once.
    pub async fn settles(&self) -> Result<()> {
        let ends: BTreeMap<i32, i64> =
            self.journal.ends().await?.iter().map(|end| (end.partition, end.offset)).collect();
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let stands = self.checkpoint().await?;
            if stands == ends {
                break;
            }
            ensure!(Instant::now() < deadline, "stands at {stands:?}, the journal ends at {ends:?}");
            sleep(Duration::from_millis(50)).await;
        }
        let sums = format!(
            "select (select count(*) from {0}.counted), (select coalesce(sum(records), 0)::bigint from {0}.total)",
            self.schema
        );
        let (counted, total): (i64, i64) = sqlx::query_as(AssertSqlSafe(sums)).fetch_one(&self.pool).await?;
        let appended = i64::try_from(self.appended.load(Ordering::Relaxed))?;
        ensure!(
            (counted, total) == (appended, appended),
            "{counted} rows, total {total}, appended {appended}"
        );
        super::log::fits(&self.pool, self.schema, &self.kafka, &ends).await
    }

    /// Folds the journal into another generation, in batches of another size.
    pub async fn fold_again(&self, schema: Schema, batch_records_max: usize) -> Result<()> {
        let tables = format!(
            "create table {schema}.counted (like {0}.counted including all);
             create table {schema}.total (like {0}.total including all)",
            self.schema
        );
        sqlx::raw_sql(AssertSqlSafe(tables)).execute(&self.pool).await?;
        let options =
            ConsumeOptions { batch_records_max, ..ConsumeOptions::new("again", schema, FOLD_VERSION) };
        let workers = vec![Counter { counts: Arc::default() }];
        let (status, shutdown) = (Status::default(), CancellationToken::new());
        let ends = self.journal.ends().await?;
        Ok(run_until(workers, self.source(), options, status, &ends, shutdown).await?)
    }

    pub async fn checkpoint(&self) -> Result<BTreeMap<i32, i64>> {
        let read = format!("select partition, next_offset from {}.checkpoint", self.schema);
        let rows: Vec<(i32, i64)> = sqlx::query_as(AssertSqlSafe(read)).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().collect())
    }

    pub async fn execute(&self, statement: &str) -> Result<()> {
        let statement = statement.replace("{schema}", &self.schema.to_string());
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&self.pool).await?;
        Ok(())
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(ClientConfig::new().set("bootstrap.servers", &self.kafka.brokers).create()?)
    }

    async fn refused_by_prepare(&self, word: &str) -> Result<()> {
        match prepare(&self.kafka, &self.pool).await {
            Err(platform::kafka::Error::Refused(why)) if why.contains(word) => Ok(()),
            other => bail!("not refused for {word:?}: {other:?}"),
        }
    }
}

/// A running loop.
pub struct Running {
    task: JoinHandle<Result<(), engine::consume::Error>>,
    status: Status,
    shutdown: CancellationToken,
    counts: Arc<Counts>,
}

impl Running {
    pub async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        let started = Instant::now();
        self.task.await??;
        ensure!(started.elapsed() < Duration::from_secs(60), "stopping took {:?}", started.elapsed());
        Ok(())
    }

    /// Drops the loop at any point.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub async fn problem(&self, word: &str) -> Result<()> {
        let deadline = Instant::now() + WAIT_MAX;
        while !self.status.problems().iter().any(|problem| problem.contains(word)) {
            ensure!(Instant::now() < deadline, "no problem with {word:?}: {:?}", self.status.problems());
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// The calls that a worker received.
#[derive(Default)]
struct Counts {
    committed: AtomicU64,
    rolled_back: AtomicU64,
    forgotten: AtomicU64,
}

/// Concurrent workers of a loop.
const LANES: usize = 2;

/// Counts records per account; a record that counted twice breaks a primary key.
struct Counter {
    counts: Arc<Counts>,
}

#[async_trait]
impl Worker for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }

    async fn apply(&mut self, tx: &mut PgConnection, batch: &[Record]) -> Result<Summary, WorkerError> {
        let account =
            |record: &Record| String::from_utf8(record.key.clone().unwrap_or_default()).unwrap_or_default();
        let accounts: Vec<String> = batch.iter().map(account).collect();
        let partitions: Vec<i32> = batch.iter().map(|record| record.position.partition).collect();
        let offsets: Vec<i64> = batch.iter().map(|record| record.position.offset).collect();
        sqlx::query("insert into counted select * from unnest($1::int[], $2::bigint[], $3::text[])")
            .bind(&partitions)
            .bind(&offsets)
            .bind(&accounts)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "insert into total select account, count(*) from unnest($1::text[]) as record (account)
             group by account order by account
             on conflict (account) do update set records = total.records + excluded.records",
        )
        .bind(&accounts)
        .execute(tx)
        .await?;
        Ok(Summary { events: batch.len() as u64, ..Summary::default() })
    }

    async fn halt(&mut self, _: &mut PgConnection, record: &Record, _: &str) -> Result<Summary, WorkerError> {
        Err(WorkerError::Internal(format!("{} was taken for what can't be counted", record.position)))
    }

    fn committed(&mut self) {
        self.counts.committed.fetch_add(1, Ordering::Relaxed);
    }

    fn rolled_back(&mut self) {
        self.counts.rolled_back.fetch_add(1, Ordering::Relaxed);
    }

    fn forget(&mut self, partitions: &[i32]) {
        self.counts.forgotten.fetch_add(partitions.len() as u64, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_counts_once_across_stops_and_starts() -> Result<()> {
    let world = World::new().await?;
    for _ in 0..2 {
        world.append(300).await?;
        let running = world.start("counter");
        world.settles().await?;
        world.append(100).await?;
        world.settles().await?;
        ensure!(running.status.problems().is_empty(), "{:?}", running.status.problems());
        running.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_dropped_anywhere_loses_and_doubles_nothing() -> Result<()> {
    let world = World::new().await?;
    for round in 0..8_u64 {
        world.append(400).await?;
        let running = world.start("counter");
        sleep(Duration::from_millis(150 + 70 * round)).await;
        running.kill().await;
    }
    let last = world.start("counter");
    world.settles().await?;
    last.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_loops_on_the_same_partitions_count_once() -> Result<()> {
    let world = World::new().await?;
    // Different groups: each believes that it owns everything, as a zombie does.
    let loops = [world.start("one"), world.start("two")];
    let lost = |running: &Running| running.counts.forgotten.load(Ordering::Relaxed) > PARTITIONS as u64;
    let end = Instant::now() + WAIT_MAX;
    while !loops.iter().all(lost) {
        ensure!(Instant::now() < end, "no claim was ever lost");
        world.append(100).await?;
        sleep(Duration::from_millis(100)).await;
    }
    world.settles().await?;
    for running in loops {
        running.stop().await?;
    }
    Ok(())
}

/// Within this time after a member has left, others own its partitions.
const OWNED_MAX: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn members_coming_and_going_count_once() -> Result<()> {
    let world = World::new().await?;
    let mut members = vec![world.start("counter")];
    for round in 0..12 {
        world.append(200).await?;
        sleep(Duration::from_millis(300)).await;
        if round % 3 == 2 {
            members.remove(0).stop().await?;
        } else {
            members.push(world.start("counter"));
        }
    }
    world.settles().await?;
    // The group may still be deciding who takes over from the one that left last.
    let held = || members.iter().map(|member| member.status.folding().len()).sum::<usize>();
    let deadline = Instant::now() + OWNED_MAX;
    while held() < PARTITIONS as usize {
        ensure!(Instant::now() < deadline, "some partition has no owner: {}", held());
        sleep(Duration::from_millis(100)).await;
    }
    for member in members {
        member.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_answer_is_found_out() -> Result<()> {
    let world = World::new().await?;
    for cut in [Cut::BeforeServer, Cut::AfterServer] {
        let proxy = Proxy::start(&world.space.database_url, cut).await?;
        let pool = pg::connect(&proxy.url, "consume-proxied", 4).await?;
        let running = world.start_with(Source { pool, ..world.source() }, world.options("counter"));
        world.append(20).await?;
        world.settles().await?;
        for _ in 0..3 {
            proxy.armed.store(true, Ordering::SeqCst);
            world.append(120).await?;
            world.settles().await?;
            ensure!(!proxy.armed.load(Ordering::SeqCst), "no commit went through the proxy");
        }
        let rolled_back = running.counts.rolled_back.load(Ordering::Relaxed);
        match cut {
            Cut::BeforeServer => {
                ensure!(rolled_back >= 3, "cut before the server: {rolled_back} rolled back")
            }
            Cut::AfterServer => ensure!(rolled_back == 0, "what the server had committed was taken for lost"),
        }
        running.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_falls_silent_is_noticed_and_waited_for() -> Result<()> {
    let world = World::new().await?;
    let proxy = Proxy::start(&world.space.database_url, Cut::AfterServer).await?;
    let pool = pg::connect(&proxy.url, "consume-silenced", 4).await?;
    let options = ConsumeOptions { silent_after: Duration::from_secs(2), ..world.options("counter") };
    let running = world.start_with(Source { pool, ..world.source() }, options);
    world.append(20).await?;
    world.settles().await?;
    // No connection is closed, and none answers: neither those in use nor new ones.
    proxy.silence().await?;
    let silenced = Instant::now();
    world.append(120).await?;
    running.problem("").await?;
    ensure!(silenced.elapsed() < Duration::from_secs(60), "noticed after {:?}", silenced.elapsed());
    sleep(Duration::from_secs(3)).await;
    ensure!(!running.status.problems().is_empty(), "it is not well before the database answers");
    proxy.silent.send_replace(false);
    world.settles().await?;
    running.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_commits_does_not_hide_that_another_fails() -> Result<()> {
    let world = World::new().await?;
    world.append(200).await?;
    // The first lane waits for these rows, and gives up; the other one commits meanwhile.
    let mut held = world.pool.begin().await?;
    let lock = format!("select from {}.checkpoint where partition % {LANES} = 0 for update", world.schema);
    let options = ConsumeOptions { silent_after: Duration::from_secs(1), ..world.options("counter") };
    let running = world.start_with(world.source(), options);
    world.settles().await?;
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *held).await?;
    world.append(200).await?;
    running.problem("silent").await?;
    // As long as the rows are locked, whatever the other lane does.
    for _ in 0..100 {
        ensure!(!running.status.problems().is_empty(), "it is well while a lane waits");
        world.append(3).await?;
        sleep(Duration::from_millis(20)).await;
    }
    held.rollback().await?;
    world.settles().await?;
    running.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_without_a_record_are_passed_beside_a_failing_lane_too() -> Result<()> {
    let world = World::new().await?;
    world.append(200).await?;
    let hole = world.journal.partition_of("account-1");
    let before = world.journal.end(hole).await?.offset;
    // The end of a transaction takes an offset, and is no record.
    let writer: rdkafka::producer::BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &world.kafka.brokers)
        .set("transactional.id", &world.kafka.topic_prefix)
        .create()?;
    let topic = world.kafka.topics().events;
    tokio::task::spawn_blocking(move || {
        let timeout = Duration::from_secs(30);
        writer.init_transactions(timeout)?;
        writer.begin_transaction()?;
        let record = rdkafka::producer::BaseRecord::to(&topic).partition(hole).key("account-1").payload("{}");
        writer.send(record).map_err(|(error, _)| error)?;
        writer.commit_transaction(timeout)
    })
    .await??;
    world.appended.fetch_add(1, Ordering::Relaxed);
    // The broker answers before it has written the end.
    let deadline = Instant::now() + WAIT_MAX;
    while world.journal.end(hole).await?.offset < before + 2 {
        ensure!(Instant::now() < deadline, "the transaction does not end");
        sleep(Duration::from_millis(20)).await;
    }
    world.append(100).await?;
    // Until the lock is gone, all lanes but the one with the hole fail at their first statement.
    let others: Vec<String> =
        (0..PARTITIONS).filter(|partition| *partition != hole).map(|it| it.to_string()).collect();
    let running = world.start("counter");
    let mut held = world.pool.begin().await?;
    let lock = format!(
        "select from {}.checkpoint where partition in ({}) for update",
        world.schema,
        others.join(",")
    );
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *held).await?;
    sleep(Duration::from_millis(500)).await;
    held.rollback().await?;
    world.settles().await?;
    running.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_can_not_be_read_halts_its_partition_and_the_others_go_on() -> Result<()> {
    let world = World::new().await?;
    world.append(100).await?;
    let running = world.start("counter");
    world.settles().await?;
    let topic = world.kafka.topics().events;
    let end = world.journal.end(2).await?.offset;
    let record = RawRecord { key: Some(b"k"), value: Some(b"{}"), headers: Vec::new() };
    let batch = wire::batch(Packed::Lz4OfWrongChecksum, &[record]);
    Wire::connect(&world.kafka.brokers).await?.produce(&topic, 2, &batch).await?;
    running.problem(&format!("partition 2 halted: the record at offset {end} can't be read")).await?;
    world.append(100).await?;
    let ends: BTreeMap<i32, i64> =
        world.journal.ends().await?.iter().map(|end| (end.partition, end.offset)).collect();
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let stands = world.checkpoint().await?;
        let done = |(partition, end): (&i32, &i64)| *partition == 2 || stands.get(partition) == Some(end);
        if ends.iter().all(done) {
            ensure!(stands.get(&2) == Some(&end), "nothing was passed over: {stands:?}");
            break;
        }
        ensure!(Instant::now() < deadline, "others stand at {stands:?} of {ends:?}");
        sleep(Duration::from_millis(50)).await;
    }
    // A reader by itself says so too, and does not wait for ever.
    let read: Result<Vec<Record>, _> = read_partition(&world.kafka, 2, end, end + 1).try_collect().await;
    ensure!(read.is_err(), "{read:?}");
    running.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_stops_exactly_at_the_given_ends() -> Result<()> {
    let world = World::new().await?;
    world.append(500).await?;
    let ends = world.journal.ends().await?;
    let wanted: Vec<Position> = ends.iter().map(|end| Position { offset: end.offset / 2, ..*end }).collect();
    let worker = Counter { counts: Arc::default() };
    let shutdown = CancellationToken::new();
    run_until(vec![worker], world.source(), world.options("-"), Status::default(), &wanted, shutdown.clone())
        .await?;
    let expected: BTreeMap<i32, i64> = wanted.iter().map(|end| (end.partition, end.offset)).collect();
    assert_eq!(world.checkpoint().await?, expected);
    let worker = Counter { counts: Arc::default() };
    run_until(vec![worker], world.source(), world.options("-"), Status::default(), &ends, shutdown).await?;
    world.settles().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_tail_halts_its_partition_only() -> Result<()> {
    let world = World::new().await?;
    world.append(200).await?;
    let running = world.start("counter");
    world.settles().await?;
    running.stop().await?;
    // As if partition 0 had been folded beyond what the log still has.
    world.execute("update {schema}.checkpoint set next_offset = next_offset + 5 where partition = 0").await?;
    let running = world.start("counter");
    running.problem("partition 0 halted: the log ends at").await?;
    let end = Instant::now() + WAIT_MAX;
    while running.status.folding().len() != PARTITIONS as usize - 1 {
        ensure!(Instant::now() < end, "{:?}", running.status.folding());
        sleep(Duration::from_millis(20)).await;
    }
    running.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overwritten_record_halts_its_partition() -> Result<()> {
    let world = World::new().await?;
    world.append(200).await?;
    let running = world.start("counter");
    world.settles().await?;
    running.stop().await?;
    world.execute("update {schema}.checkpoint set last_leaf = sha256('other') where partition = 1").await?;
    let running = world.start("counter");
    running.problem("partition 1 halted: the record at offset").await?;
    running.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_of_another_fold_version_is_refused() -> Result<()> {
    let world = World::new().await?;
    world.append(20).await?;
    let running = world.start("counter");
    world.settles().await?;
    running.stop().await?;
    for (version, word) in [(FOLD_VERSION - 1, "older"), (FOLD_VERSION + 1, "rebuild")] {
        let options = ConsumeOptions { fold_version: version, ..world.options("counter") };
        let running = world.start_with(world.source(), options);
        match tokio::time::timeout(WAIT_MAX, running.task).await?? {
            Err(engine::consume::Error::Refused(why)) if why.contains(word) => {}
            other => bail!("not refused as {word}: {other:?}"),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_journal_is_refused() -> Result<()> {
    let world = World::new().await?;
    world.append(50).await?;
    ensure!(prepare(&world.kafka, &world.pool).await? == world.identity, "the same log, started again");
    let topic = world.kafka.topics().events;
    let options = AdminOptions::new();
    world.admin()?.delete_topics(&[&topic], &options).await?;
    let gone = Instant::now() + WAIT_MAX;
    while world.refused_by_prepare("gone").await.is_err() {
        ensure!(Instant::now() < gone, "a journal that is gone was not refused");
        sleep(Duration::from_millis(200)).await;
    }
    let again = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1));
    world.admin()?.create_topics(&[again], &options).await?;
    let there = Instant::now() + WAIT_MAX;
    while world.refused_by_prepare("recreated").await.is_err() {
        ensure!(Instant::now() < there, "a recreated journal was not refused");
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_partition_count_is_refused() -> Result<()> {
    let world = World::new().await?;
    let topic = world.kafka.topics().events;
    let more = NewPartitions::new(&topic, PARTITIONS as usize + 1);
    world.admin()?.create_partitions(&[more], &AdminOptions::new()).await?;
    let deadline = Instant::now() + WAIT_MAX;
    while world.refused_by_prepare("was made with 4").await.is_err() {
        ensure!(Instant::now() < deadline, "a raised partition count was not refused");
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_head_is_refused() -> Result<()> {
    let world = World::new().await?;
    world.append(100).await?;
    let mut heads = rdkafka::TopicPartitionList::new();
    heads.add_partition_offset(&world.kafka.topics().events, 2, rdkafka::Offset::Offset(1))?;
    world.admin()?.delete_records(&heads, &AdminOptions::new()).await?;
    world.refused_by_prepare("its head was deleted").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_database_adopts_the_journal_and_two_starts_at_once_agree() -> Result<()> {
    let world = World::new().await?;
    world.append(10).await?;
    world.execute("delete from control.log_identity").await?;
    let (one, two) = tokio::join!(prepare(&world.kafka, &world.pool), prepare(&world.kafka, &world.pool));
    assert_eq!((one?, two?), (world.identity, world.identity));
    Ok(())
}

/// Sets a topic's settings; every other goes back to the broker's default.
async fn alter(world: &World, topic: &str, settings: &[(&str, &str)]) -> Result<()> {
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic));
    let change = settings.iter().fold(change, |change, (name, value)| change.set(name, value));
    for altered in world.admin()?.alter_configs(&[change], &AdminOptions::new()).await? {
        altered.map_err(|(_, code)| anyhow::anyhow!("{topic}: {code}"))?;
    }
    Ok(())
}

/// Waits until exactly these are found unsafe, each by the beginning of its sentence.
async fn await_unsafe(preflight: &Preflight, world: &World, expected: &[String]) -> Result<()> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let found = safety(preflight, &world.pool).await?;
        let found: Vec<String> =
            found.iter().map(ToString::to_string).filter(|it| it.starts_with("topic")).collect();
        let named = |one: &String| found.iter().any(|it| it.starts_with(one.as_str()));
        if found.len() == expected.len() && expected.iter().all(named) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "found {found:#?} and not {expected:#?}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_topic_is_made_with_safe_settings_and_each_unsafe_one_is_named_while_all_runs() -> Result<()> {
    let world = World::new().await?;
    let preflight = Preflight::new(&world.kafka)?;
    await_unsafe(&preflight, &world, &[]).await?;
    let topics = world.kafka.topics();
    for topic in [topics.events, topics.usage, topics.alerts, topics.dead_letters] {
        let worse = [
            ("retention.ms", "3600000"),
            ("retention.bytes", "1000000"),
            ("cleanup.policy", "compact"),
            ("unclean.leader.election.enable", "true"),
            ("message.timestamp.type", "CreateTime"),
        ];
        alter(&world, &topic, &worse).await?;
        let expected = worse.map(|(name, value)| format!("topic {topic} {name} is {value}"));
        await_unsafe(&preflight, &world, &expected).await?;
        let safe = [("retention.ms", "-1"), ("message.timestamp.type", "LogAppendTime")];
        alter(&world, &topic, &safe).await?;
        await_unsafe(&preflight, &world, &[]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_copies_and_too_few_acknowledgements_are_named() -> Result<()> {
    let world = World::new().await?;
    // One broker has one copy of each partition, where three are wanted.
    let wanted = KafkaOptions { replication: Some(3), ..world.kafka.clone() };
    let preflight = Preflight::new(&wanted)?;
    let topics = world.kafka.topics();
    let mut expected = Vec::new();
    for topic in [&topics.events, &topics.usage, &topics.alerts, &topics.dead_letters, &topics.checkpoints] {
        expected.push(format!("topic {topic} replication factor is 1"));
        expected.push(format!("topic {topic} min.insync.replicas is 1"));
    }
    await_unsafe(&preflight, &world, &expected).await?;
    let safe =
        [("retention.ms", "-1"), ("message.timestamp.type", "LogAppendTime"), ("min.insync.replicas", "2")];
    alter(&world, &topics.events, &safe).await?;
    expected.remove(1);
    await_unsafe(&preflight, &world, &expected).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_reads_back_as_it_was_appended() -> Result<()> {
    let world = World::new().await?;
    let events: Vec<(String, Vec<u8>)> =
        (0..3_000).map(|n| ("acme".to_owned(), format!("{n}").into_bytes())).collect();
    let mut places = Vec::new();
    for outcome in world.journal.append_all(&events).await {
        places.push(outcome?);
    }
    let partition = world.journal.partition_of("acme");
    let end = world.journal.end(partition).await?;
    let records: Vec<Record> = read_partition(&world.kafka, partition, 1, end.offset).try_collect().await?;
    let read: Vec<(Position, Option<Vec<u8>>)> =
        records.iter().map(|it| (it.position, it.value.clone())).collect();
    let appended: Vec<(Position, Option<Vec<u8>>)> =
        places.into_iter().zip(events.into_iter().map(|(_, value)| Some(value))).collect();
    ensure!(read == appended, "the journal does not read back as appended");
    let again: Vec<Record> = read_partition(&world.kafka, partition, 1_000, 1_010).try_collect().await?;
    assert_eq!(
        again.iter().map(leaf_hash).collect::<Vec<_>>(),
        records[999..1_009].iter().map(leaf_hash).collect::<Vec<_>>()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ingress_goes_on_after_what_was_committed() -> Result<()> {
    let world = World::new().await?;
    let topic = world.kafka.topics().usage;
    let ingress = platform::kafka::Appender::new(&world.kafka, &topic, PARTITIONS)?;
    let records: Vec<(&[u8], Vec<u8>)> = (0..30_u8).map(|n| (b"acme".as_slice(), vec![n])).collect();
    for outcome in ingress.append_all(&records).await {
        outcome?;
    }
    let first = IngressConsumer::new(&world.kafka, "ingress", &topic).await?;
    let taken = take(&first, 10).await?;
    assert_eq!(taken, (0..10).collect::<Vec<u8>>());
    let partition = ingress.partition_of(b"acme");
    first.commit(&[Position { partition, offset: 9 }]).await?;
    let taken = take(&first, 5).await?;
    assert_eq!(taken, (10..15).collect::<Vec<u8>>());
    first.rewind(&[Position { partition, offset: 12 }]).await?;
    assert_eq!(take(&first, 3).await?, (12..15).collect::<Vec<u8>>());
    first.close().await;
    let second = IngressConsumer::new(&world.kafka, "ingress", &topic).await?;
    assert_eq!(take(&second, 20).await?, (10..30).collect::<Vec<u8>>());
    Ok(())
}

/// Takes exactly so many records and returns their only byte.
async fn take(consumer: &IngressConsumer, count: usize) -> Result<Vec<u8>> {
    let deadline = Instant::now() + WAIT_MAX;
    let mut taken = Vec::new();
    while taken.len() < count {
        ensure!(Instant::now() < deadline, "only {} records came", taken.len());
        for one in consumer.next_batch(count - taken.len()).await? {
            let Taken::Record(record) = one else { bail!("{one:?} can't be read") };
            taken.push(record.value.context("a value")?[0]);
        }
    }
    Ok(taken)
}

/// Where the proxy cuts the line of a commit.
#[derive(Clone, Copy)]
enum Cut {
    /// The server never receives it.
    BeforeServer,
    /// The server commits, but the client does not receive the answer.
    AfterServer,
}

/// A proxy of Postgres that, once armed, cuts the line at the next commit of a batch.
struct Proxy {
    url: String,
    armed: Arc<AtomicBool>,
    /// Passes nothing on; what was connected meanwhile is closed afterwards.
    silent: watch::Sender<bool>,
    /// Connections that are passed on.
    passing: Arc<AtomicUsize>,
}

impl Proxy {
    async fn start(database_url: &str, cut: Cut) -> Result<Proxy> {
        let (_, rest) = database_url.split_once('@').context("a user in the database URL")?;
        let (server, _) = rest.split_once('/').context("a database in the URL")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = database_url.replace(server, &listener.local_addr()?.to_string());
        let server = server.to_owned();
        let proxy =
            Proxy { url, armed: Arc::default(), silent: watch::Sender::new(false), passing: Arc::default() };
        let (armed, silent, passing) = (proxy.armed.clone(), proxy.silent.clone(), proxy.passing.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (server, armed, passing) = (server.clone(), armed.clone(), passing.clone());
                let mut silenced = silent.subscribe();
                tokio::spawn(async move {
                    passing.fetch_add(1, Ordering::SeqCst);
                    let ended = tokio::select! {
                        biased;
                        _ = silenced.wait_for(|silent| *silent) => None,
                        ended = relay(&mut client, server, armed, cut) => Some(ended),
                    };
                    passing.fetch_sub(1, Ordering::SeqCst);
                    if let Some(ended) = ended {
                        return ended;
                    }
                    silenced.wait_for(|silent| !silent).await?;
                    Ok(())
                });
            }
        });
        Ok(proxy)
    }

    /// Falls silent; returns when nothing is passed on any more.
    async fn silence(&self) -> Result<()> {
        self.silent.send_replace(true);
        let deadline = Instant::now() + WAIT_MAX;
        while self.passing.load(Ordering::SeqCst) > 0 {
            ensure!(Instant::now() < deadline, "the proxy still passes on");
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

async fn relay(client: &mut TcpStream, server: String, armed: Arc<AtomicBool>, cut: Cut) -> Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let bytes = &up[..read?];
                ensure!(!bytes.is_empty(), "the client left");
                let is_commit = bytes.windows(6).any(|word| word.eq_ignore_ascii_case(b"commit"));
                if is_commit && armed.swap(false, Ordering::SeqCst) {
                    if matches!(cut, Cut::AfterServer) {
                        server.write_all(bytes).await?;
                        // The answer shows that the commit is done; the proxy does not pass it on.
                        let answered = server.read(&mut down).await?;
                        ensure!(answered > 0, "the server left");
                    }
                    return Ok(());
                }
                server.write_all(bytes).await?;
            }
            read = server.read(&mut down) => {
                let bytes = &down[..read?];
                ensure!(!bytes.is_empty(), "the server left");
                client.write_all(bytes).await?;
            }
        }
    }
}
