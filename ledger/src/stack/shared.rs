//! The stack that all tests of a run share: started by the first, left for the others, gone when nobody holds it.
//!
//! A test process holds the lease, a file it locks as one of many, until it ends, however it ends. A supervisor
//! process (`ledger stack --for-tests`) runs the stack, tries now and then to lock the lease for itself alone, and stops
//! when it has been able to for a while.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::account::Account;
use super::data_dir::{DataDir, holder, write_whole};
use super::kafka::Kafka;
use super::postgres::Postgres;
use super::process::{Identity, log_tail, stop_left_behind};
use super::{Addresses, Stack, StackOptions};

/// Longer than the gap between two test programs of one run.
const IDLE_MAX: Duration = Duration::from_secs(120);
const LEASE_POLL: Duration = Duration::from_secs(2);
/// A first start may have to fetch Kafka.
const READY_MAX: Duration = Duration::from_secs(1000);
/// How long a listing of topics and the order to delete some may take.
const TOPICS_MAX: Duration = Duration::from_secs(10);
const READY_POLL: Duration = Duration::from_millis(100);

/// Returns brokers and database URL of the stack that the tests of this run share.
///
/// `KAFKA_BROKERS` and `DATABASE_URL` are used where both are set.
pub async fn shared_for_tests() -> Result<(String, String)> {
    static SHARED: OnceCell<(Addresses, Option<File>)> = OnceCell::const_new();
    let (addresses, _lease) = SHARED.get_or_try_init(find_or_start).await?;
    let Addresses { kafka_brokers, database_url } = addresses.clone();
    Ok((kafka_brokers, database_url))
}

async fn find_or_start() -> Result<(Addresses, Option<File>)> {
    let named = StackOptions::from_env(PathBuf::new());
    if let (Some(kafka_brokers), Some(database_url)) = (named.kafka_brokers, named.database_url) {
        super::kafka::check_reachable(&kafka_brokers).await?;
        super::postgres::check_reachable(&database_url).await?;
        let addresses = Addresses { kafka_brokers, database_url };
        return Ok((addresses, None));
    }
    let program = ledger_program()?;
    let place = Place::beside(&program)?;
    let (addresses, lease) = place.join(&program).await?;
    Ok((addresses, Some(lease)))
}

/// The test programs lie in `target/<profile>/deps`, the ledger one folder up.
fn ledger_program() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(Path::parent);
    let program = profile.map(|folder| folder.join("ledger"));
    program.filter(|path| path.is_file()).context(
        "the tests share a stack that the program `ledger` runs, and it is not built: cargo build -p ledger",
    )
}

/// The folder of the shared stack.
struct Place {
    folder: PathBuf,
}

impl Place {
    fn beside(program: &Path) -> Result<Place> {
        let folder = program.with_file_name("test-stack");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Place { folder: folder.canonicalize()? })
    }

    fn at(folder: &Path) -> Result<Place> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Place { folder: folder.canonicalize()? })
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn addresses_file(&self) -> PathBuf {
        self.folder.join("addresses.json")
    }

    fn open(&self, name: &str) -> Result<File> {
        let path = self.folder.join(name);
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn running(&self) -> Option<Addresses> {
        holder(&self.data_dir())?;
        serde_json::from_slice(&fs::read(self.addresses_file()).ok()?).ok()
    }

    /// Takes part in the running stack, or starts one; only one process at a time decides which.
    async fn join(&self, program: &Path) -> Result<(Addresses, File)> {
        let starting = self.open("starting")?;
        let lease = self.open("lease")?;
        let (_starting, lease) = tokio::task::spawn_blocking(move || {
            starting.lock()?;
            // Waits for a supervisor that is just leaving: it holds the lease until it is gone.
            lease.lock_shared()?;
            std::io::Result::Ok((starting, lease))
        })
        .await??;
        if let Some(addresses) = self.running() {
            return Ok((addresses, lease));
        }
        let addresses = self.start_supervisor(program).await?;
        Ok((addresses, lease))
    }

    async fn start_supervisor(&self, program: &Path) -> Result<Addresses> {
        let _ = fs::remove_file(self.addresses_file());
        let log = self.folder.join("supervisor.log");
        let output = File::create(&log)?;
        let mut supervisor = Command::new(program)
            .args(["stack", "--for-tests", "--data-dir"])
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .context("cannot start the shared stack")?;
        let deadline = Instant::now() + READY_MAX;
        loop {
            if let Some(addresses) = self.running() {
                return Ok(addresses);
            }
            if supervisor.try_wait()?.is_some() || Instant::now() >= deadline {
                bail!("the shared stack did not start; {}", log_tail(&log));
            }
            sleep(READY_POLL).await;
        }
    }
}

/// Runs the shared stack in `folder` until no test holds the lease for a while or `stop` completes, then removes its data.
pub async fn supervise(folder: &Path, stop: impl Future<Output = ()>) -> Result<()> {
    let place = Place::at(folder)?;
    discard(&place.data_dir()).await?;
    let options = StackOptions {
        // Many tests at a time, each with pools of its own.
        postgres_settings: vec![("max_connections".to_owned(), "400".to_owned())],
        ..StackOptions::from_env(place.data_dir())
    };
    let mut stack = Stack::start(options, |_| {}).await?;
    let addresses =
        Addresses { kafka_brokers: stack.kafka_brokers.clone(), database_url: stack.database_url.clone() };
    let text = serde_json::to_vec(&addresses)?;
    write_whole(&place.addresses_file(), &text, 0o600)?;
    let lease = place.open("lease")?;
    let ended = tokio::select! {
        idle = wait_until_idle(&lease, IDLE_MAX) => idle.map(|()| None)?,
        () = stop => None,
        name = stack.watch() => Some(name),
    };
    let _ = fs::remove_file(place.addresses_file());
    stack.stop().await?;
    if let Some(name) = ended {
        bail!("{name} of the shared stack ended by itself: its log is in {}", place.data_dir().display());
    }
    discard(&place.data_dir()).await
}

/// Returns, holding the lease alone, when nobody else has held it for `limit`.
async fn wait_until_idle(lease: &File, limit: Duration) -> Result<()> {
    let mut idle_since = Instant::now();
    loop {
        sleep(LEASE_POLL).await;
        match lease.try_lock() {
            Ok(()) if idle_since.elapsed() >= limit => return Ok(()),
            Ok(()) => lease.unlock()?,
            Err(fs::TryLockError::WouldBlock) => idle_since = Instant::now(),
            Err(fs::TryLockError::Error(error)) => return Err(error.into()),
        }
    }
}

/// Ends what still runs in a data directory and removes its data; logs stay for who wants to know.
async fn discard(path: &Path) -> Result<()> {
    let data_dir = DataDir::take(path)?;
    let account = Account::for_postgres()?;
    let postgres = Postgres::folder_for(data_dir.path(), account.as_ref())?;
    let identities: [Identity; 2] = [Kafka::identity(data_dir.path()), Postgres::identity(&postgres)];
    for identity in &identities {
        stop_left_behind(identity).await?;
    }
    for folder in [Kafka::folder_in(data_dir.path()), postgres] {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    Ok(())
}

/// A database of its own and a topic prefix of its own for one test, in the shared stack.
///
/// Both go with it.
#[derive(Debug)]
pub struct TestSpace {
    /// What Kafka clients connect to.
    pub kafka_brokers: String,
    /// The test's own, empty database.
    pub database_url: String,
    /// What the test puts before every topic and group it names.
    pub topic_prefix: String,
    database: String,
    admin_url: String,
}

impl TestSpace {
    /// Makes a space in the shared stack, which is started if it does not run.
    pub async fn new() -> Result<TestSpace> {
        let (kafka_brokers, admin_url) = shared_for_tests().await?;
        TestSpace::within(kafka_brokers, admin_url).await
    }

    /// Makes a space in a stack that runs already.
    pub async fn within(kafka_brokers: String, admin_url: String) -> Result<TestSpace> {
        let id = Uuid::new_v4().simple().to_string();
        let database = format!("t_{id}");
        let mut admin = PgConnection::connect(&admin_url).await?;
        // The name is a letter and hexadecimal digits.
        let create = sqlx::AssertSqlSafe(format!("create database {database}"));
        sqlx::query(create).execute(&mut admin).await?;
        admin.close().await?;
        Ok(TestSpace {
            kafka_brokers,
            database_url: with_database(&admin_url, &database),
            topic_prefix: format!("t{}.", &id[..12]),
            database,
            admin_url,
        })
    }
}

impl Drop for TestSpace {
    /// On a thread of its own, because a test's runtime may be closing. What stays goes with the stack.
    fn drop(&mut self) {
        let topics = (self.kafka_brokers.clone(), self.topic_prefix.clone());
        let database = (self.admin_url.clone(), self.database.clone());
        let dropping = std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(drop_database(&database.0, &database.1))?;
            runtime.block_on(delete_topics(&topics.0, &topics.1))
        });
        let _ = dropping.join();
    }
}

async fn drop_database(url: &str, database: &str) -> Result<()> {
    let mut admin = PgConnection::connect(url).await?;
    let drop = sqlx::AssertSqlSafe(format!("drop database if exists {database} with (force)"));
    sqlx::query(drop).execute(&mut admin).await?;
    Ok(admin.close().await?)
}

/// Keeps the broker small through hundreds of tests.
async fn delete_topics(brokers: &str, prefix: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).set("log_level", "0").create()?;
    let metadata = admin.inner().fetch_metadata(None, TOPICS_MAX)?;
    let ours: Vec<&str> =
        metadata.topics().iter().map(|topic| topic.name()).filter(|name| name.starts_with(prefix)).collect();
    if !ours.is_empty() {
        admin.delete_topics(&ours, &AdminOptions::new().operation_timeout(Some(TOPICS_MAX))).await?;
    }
    Ok(())
}

/// Returns the URL with another database, its parameters kept.
fn with_database(url: &str, database: &str) -> String {
    let (address, parameters) = match url.split_once('?') {
        Some((address, parameters)) => (address, format!("?{parameters}")),
        None => (url, String::new()),
    };
    let server = match address.rsplit_once('/') {
        Some((server, _)) if !server.ends_with('/') => server,
        _ => address,
    };
    format!("{server}/{database}{parameters}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_url_changes_its_database_only() {
        let check = |url: &str, expected: &str| assert_eq!(with_database(url, "t"), expected);
        check("postgres://u:p@h:1/ledger", "postgres://u:p@h:1/t");
        check("postgres://u:p@h:1/ledger?sslmode=disable", "postgres://u:p@h:1/t?sslmode=disable");
        check("postgres://u@h", "postgres://u@h/t");
    }

    #[tokio::test]
    async fn a_lease_that_a_test_holds_keeps_the_stack() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = Place::at(folder.path()).expect("a place");
        let test = place.open("lease").expect("opened");
        let supervisor = place.open("lease").expect("opened");
        test.lock_shared().expect("held");
        let held = tokio::time::timeout(
            LEASE_POLL + Duration::from_millis(500),
            wait_until_idle(&supervisor, Duration::ZERO),
        );
        assert!(held.await.is_err(), "stays while the lease is held");
        test.unlock().expect("let go");
        let free = tokio::time::timeout(LEASE_POLL * 2, wait_until_idle(&supervisor, Duration::ZERO));
        free.await.expect("leaves in time").expect("no error");
    }
}
