//! The local stack from outside: the program is started, killed and started again.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use local_stack::{Stack, StackOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use tempfile::TempDir;

const WAIT_MAX: Duration = Duration::from_secs(60);

struct Program {
    child: Child,
    kafka_brokers: String,
    database_url: String,
}

impl Program {
    fn start(data_dir: &Path) -> Result<Program> {
        let mut child = stack_command(data_dir).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        let mut read = |name: &str| -> Result<String> {
            let line = lines.next().context("the program ended before it was ready")??;
            Ok(line.strip_prefix(name).context("an address")?.to_owned())
        };
        let kafka_brokers = read("KAFKA_BROKERS=")?;
        let database_url = read("DATABASE_URL=")?;
        Ok(Program { child, kafka_brokers, database_url })
    }

    fn send(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }
}

fn stack_command(data_dir: &Path) -> Command {
    let mut command = Command::new(e2e::program());
    command.args(["stack", "--data-dir"]).arg(data_dir).stdin(Stdio::null());
    command.env_remove("KAFKA_BROKERS").env_remove("DATABASE_URL");
    command
}

/// A folder that PostgreSQL's user can enter, where the tests run as root; dropping it ends all processes in it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Result<Folder> {
        let folder = tempfile::tempdir()?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711))?;
        Ok(Folder(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    /// A test that fails half way must not leave a Kafka running.
    fn drop(&mut self) {
        for pid in processes_of(self.path()).unwrap_or_default() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Returns the processes whose command line names a path inside the folder.
fn processes_of(folder: &Path) -> Result<Vec<i32>> {
    let output = Command::new("ps").args(["-A", "-ww", "-o", "pid=,args="]).output()?;
    let inside = format!("{}/", folder.canonicalize()?.display());
    let text = String::from_utf8(output.stdout)?;
    let ours = text.lines().filter(|line| line.contains(&inside) && !line.contains("defunct"));
    Ok(ours.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect())
}

fn wait_until(what: &str, done: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + WAIT_MAX;
    while !done()? {
        ensure!(Instant::now() < deadline, "{what}: not within {WAIT_MAX:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

async fn keep(database_url: &str, brokers: &str) -> Result<()> {
    let mut connection = PgConnection::connect(database_url).await?;
    connection.execute("create table kept (words text); insert into kept values ('still here')").await?;
    create_topic(brokers, "kept").await?;
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("acks", "all").create()?;
    let record = FutureRecord::to("kept").key("k").payload("still here");
    producer.send(record, WAIT_MAX).await.map_err(|(error, _)| error)?;
    Ok(())
}

async fn check_kept(database_url: &str, brokers: &str) -> Result<()> {
    let mut connection = PgConnection::connect(database_url).await?;
    let words: String = sqlx::query_scalar("select words from kept").fetch_one(&mut connection).await?;
    assert_eq!(words, "still here");
    let brokers = brokers.to_owned();
    let marks = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &brokers).create()?;
        consumer.fetch_watermarks("kept", 0, WAIT_MAX)
    });
    assert_eq!(marks.await??, (0, 1), "one record is in the topic");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn data_outlive_a_killed_ledger_and_nothing_is_left_that_the_next_start_cannot_take_over() -> Result<()>
{
    let folder = Folder::new()?;
    let data = folder.path().join("data");

    // Killed in the middle of a first start.
    let mut early = stack_command(&data).stdout(Stdio::null()).spawn()?;
    std::thread::sleep(Duration::from_millis(1500));
    early.kill()?;
    early.wait()?;

    let mut first = Program::start(&data)?;
    keep(&first.database_url, &first.kafka_brokers).await?;

    let second = stack_command(&data).output()?;
    assert_eq!(second.status.code(), Some(1));
    check_sentence(&second, "in use by another ledger");

    let before = processes_of(&data)?;
    first.send(Signal::SIGKILL)?;
    first.child.wait()?;
    let mut next = Program::start(&data)?;
    assert_eq!(next.kafka_brokers, first.kafka_brokers);
    assert_eq!(next.database_url, first.database_url);
    let after = processes_of(&data)?;
    let taken_over = after.iter().filter(|pid| before.contains(pid)).count();
    assert_eq!(taken_over, 2, "Kafka and PostgreSQL run on: {before:?} {after:?}");
    check_kept(&next.database_url, &next.kafka_brokers).await?;

    next.send(Signal::SIGINT)?;
    assert!(next.child.wait()?.success(), "Ctrl-C is no failure");
    wait_until("everything has ended", || Ok(processes_of(&data)?.is_empty()))?;

    crash_and_recover(&data, &next).await
}

/// The same data directory, now inside this process: each service crashes and recovers its data.
async fn crash_and_recover(data: &Path, before: &Program) -> Result<()> {
    let options = StackOptions { data_dir: data.to_owned(), ..StackOptions::default() };
    let mut stack = Stack::start(options, |_| {}).await?;
    assert_eq!(stack.kafka_brokers, before.kafka_brokers, "ports are remembered");
    check_kept(&stack.database_url, &stack.kafka_brokers).await?;

    stack.stop_postgres_immediate().await?;
    stack.kill_kafka().await?;
    assert!(stack.ended().is_some());
    stack.start_postgres().await?;
    stack.start_kafka().await?;
    assert_eq!(stack.ended(), None);
    check_kept(&stack.database_url, &stack.kafka_brokers).await?;

    stack.stop().await?;
    assert_eq!(processes_of(data)?, Vec::<i32>::new());
    Ok(())
}

#[test]
fn a_missing_java_is_one_sentence_that_says_what_to_install() -> Result<()> {
    let folder = Folder::new()?;
    let bare = |command: &str| {
        let mut ledger = Command::new(e2e::program());
        ledger.args([command, "--data-dir"]).arg(folder.path()).env_clear();
        ledger.env("PATH", folder.path()).env("HOME", folder.path()).output()
    };
    let stack = bare("stack")?;
    assert_eq!(stack.status.code(), Some(1));
    check_sentence(&stack, "Kafka needs Java 17 or newer: install it");

    let doctor = bare("doctor")?;
    assert_eq!(doctor.status.code(), Some(1));
    let table = String::from_utf8(doctor.stdout)?;
    let java = table.lines().find(|line| line.contains("Java")).context("a line about Java")?;
    assert!(java.contains("MISSING") && java.contains("install it"), "{table}");
    Ok(())
}

fn check_sentence(output: &Output, expected: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(expected), "{text}");
    assert_eq!(text.trim().lines().count(), 1, "one sentence, no backtrace: {text}");
}

async fn create_topic(brokers: &str, name: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    for created in admin.create_topics(&[topic], &AdminOptions::new()).await? {
        created.map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))?;
    }
    Ok(())
}
