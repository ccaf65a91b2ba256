//! Fleet: each service as a process of its own, on a test space.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ledger_core::event::partition::partition_of;
use local_stack::TestSpace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use platform::http_client;
use platform::kafka::{self, KafkaOptions, LogIdentity};
use platform::pg::{self, Model, PgPool, Schema};
use tempfile::NamedTempFile;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::{Instant, sleep};
use transparency_log::key_file::LogKey;

/// The operator's key of every service.
pub const OPERATOR_KEY: &str = "the operator's key of these tests";
/// What the key of every fleet's audit log is made of.
pub const LOG_SEED: u8 = 7;
pub const PARTITIONS: i32 = 8;
const READY_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// Tests that are timed, or load the machine, run alone; those that mostly wait run concurrently.
static TURNS: RwLock<()> = RwLock::const_new(());

/// The right to run, until it is dropped.
pub enum Turn {
    Alone { _guard: RwLockWriteGuard<'static, ()> },
    Beside { _guard: RwLockReadGuard<'static, ()> },
}

/// Waits until no other test runs.
pub async fn alone() -> Turn {
    Turn::Alone { _guard: TURNS.write().await }
}

/// Waits until no test that must run alone is running.
pub async fn beside() -> Turn {
    Turn::Beside { _guard: TURNS.read().await }
}

/// Returns the number of the journal's partitions, as the fold takes it.
pub fn partitions() -> Result<NonZeroU32> {
    NonZeroU32::new(PARTITIONS.unsigned_abs()).context("partitions")
}

/// Returns the partition of a key in the journal.
pub fn home_of(key: &str) -> Result<i32> {
    Ok(i32::try_from(partition_of(key.as_bytes(), partitions()?))?)
}

/// Writes a private key of the audit log into a file.
pub fn log_key(seed: u8) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new()?;
    file.write_all(LogKey::from_seed([seed; 32]).to_pem().as_bytes())?;
    Ok(file)
}

/// A space and its processes, by a name that distinguishes copies of one service, such as `projector.2`.
pub struct Fleet {
    pub kafka: KafkaOptions,
    pub identity: LogIdentity,
    pub pool: PgPool,
    pub database_url: String,
    pub command_url: String,
    /// Whether the test writes records of its own to the journal, which need not be events.
    pub fuzzed: bool,
    processes: BTreeMap<String, Process>,
    /// More of the environment of each service.
    env: BTreeMap<&'static str, Vec<(String, String)>>,
    /// The private key of the audit log.
    log_key: NamedTempFile,
    client: reqwest::Client,
    _turn: Turn,
    // Last, so that its database and topics are dropped after everything that uses them.
    _space: TestSpace,
}

struct Process {
    listen: SocketAddr,
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Fleet {
    /// Starts these services and waits until they are ready.
    pub async fn start(names: &[&str]) -> Result<Fleet> {
        let turn = beside().await;
        Fleet::start_on(turn, TestSpace::new().await?, names).await
    }

    /// Starts them when no other test runs, and keeps others waiting.
    pub async fn start_alone(names: &[&str]) -> Result<Fleet> {
        let turn = alone().await;
        Fleet::start_on(turn, TestSpace::new().await?, names).await
    }

    /// Starts them on a given space.
    pub async fn start_on(turn: Turn, space: TestSpace, names: &[&str]) -> Result<Fleet> {
        let kafka = KafkaOptions::new(&space.kafka_brokers, &space.topic_prefix, PARTITIONS);
        let pool = pg::connect(&space.database_url, "test", 4).await?;
        pg::migrate(&pool).await?;
        let identity = kafka::prepare(&kafka, &pool).await?;
        let mut fleet = Fleet {
            kafka,
            identity,
            pool,
            database_url: space.database_url.clone(),
            command_url: String::new(),
            fuzzed: false,
            processes: BTreeMap::new(),
            env: BTreeMap::new(),
            log_key: log_key(LOG_SEED)?,
            client: http_client::plain(),
            _turn: turn,
            _space: space,
        };
        for name in names {
            fleet.launch(name, None)?;
        }
        for name in names {
            fleet.ready(name).await?;
        }
        Ok(fleet)
    }

    /// Adds to the environment of a service that is launched later.
    pub fn set_env(&mut self, service: &'static str, env: Vec<(String, String)>) {
        self.env.insert(service, env);
    }

    /// Starts a service at the address that it had before; it aborts at this failpoint.
    pub fn launch(&mut self, name: &str, failpoint: Option<&str>) -> Result<()> {
        let listen = match self.processes.remove(name) {
            Some(process) => process.listen,
            // The port is free now, and no other process requests this one.
            None => TcpListener::bind("127.0.0.1:0")?.local_addr()?,
        };
        let service = name.split('.').next().unwrap_or(name);
        let child = Command::new(e2e::program())
            .args(["serve", service, "--listen", &listen.to_string()])
            .env("DATABASE_URL", &self.database_url)
            .env("KAFKA_BROKERS", &self.kafka.brokers)
            .env("LEDGER_TOPIC_PREFIX", &self.kafka.topic_prefix)
            .env("LEDGER_PARTITIONS", PARTITIONS.to_string())
            .env("LEDGER_OPERATOR_KEY", OPERATOR_KEY)
            .env("LEDGER_DATABASE_CONNECTIONS", "8")
            .env("LEDGER_LOG_KEY_FILE", self.log_key.path())
            .env("LEDGER_CHECKPOINT_SECONDS", "1")
            .env("LEDGER_TOP_UP_LEASE_MS", "2000")
            .env("LEDGER_TOP_UP_FIRST_BACKOFF_MS", "100")
            .env("LEDGER_FAILPOINT", failpoint.unwrap_or_default())
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "error".to_owned()))
            .envs(self.env.get(service).cloned().unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        if service == "command-api" {
            self.command_url = format!("http://{listen}");
        }
        self.processes.insert(name.to_owned(), Process { listen, child });
        Ok(())
    }

    /// Waits until a service reports that it is ready.
    pub async fn ready(&mut self, name: &str) -> Result<()> {
        let process = self.processes.get_mut(name).context("launched before")?;
        let url = format!("http://{}/readyz", process.listen);
        let deadline = Instant::now() + READY_MAX;
        let mut said = String::new();
        while Instant::now() < deadline {
            if let Some(status) = process.child.try_wait()? {
                bail!("{name} ended before it was ready: {status}");
            }
            if let Ok(answer) = self.client.get(&url).send().await {
                if answer.status().is_success() {
                    return Ok(());
                }
                said = answer.text().await.unwrap_or_default();
            }
            sleep(POLL).await;
        }
        bail!("{name} is not ready after {READY_MAX:?}: {said}")
    }

    /// Waits until all services are ready; one that could not start under load is started once more, as a service
    /// manager would.
    pub async fn ready_all(&mut self) -> Result<()> {
        let names: Vec<String> = self.processes.keys().cloned().collect();
        for name in names {
            if self.ready(&name).await.is_err() {
                self.kill(&name)?;
                self.launch(&name, None)?;
                self.ready(&name).await?;
            }
        }
        Ok(())
    }

    /// Waits until a service says that it is not ready, for this reason.
    pub async fn unready(&self, name: &str, reason: &str) -> Result<()> {
        let url = format!("{}/readyz", self.url(name)?);
        let deadline = Instant::now() + READY_MAX;
        let mut said = String::new();
        while !said.contains(reason) {
            ensure!(Instant::now() < deadline, "{name} is ready, or does not say {reason}: {said}");
            if let Ok(answer) = self.client.get(&url).send().await {
                said = if answer.status() == 503 { answer.text().await? } else { String::new() };
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until all services are ready again, without starting any.
    pub async fn ready_all_by_themselves(&mut self) -> Result<()> {
        let names: Vec<String> = self.processes.keys().cloned().collect();
        for name in names {
            self.ready(&name).await?;
        }
        Ok(())
    }

    /// Stops all services in order, as an operator does.
    pub async fn stop_all(&mut self) -> Result<()> {
        let names: Vec<String> = self.processes.keys().cloned().collect();
        for name in &names {
            self.signal(name, Signal::SIGTERM)?;
        }
        for name in &names {
            self.ended(name, READY_MAX).await?;
        }
        Ok(())
    }

    pub fn url(&self, name: &str) -> Result<String> {
        let process = self.processes.get(name).context("launched before")?;
        Ok(format!("http://{}", process.listen))
    }

    /// Returns the live read model.
    pub async fn live(&self) -> Result<Schema> {
        pg::live_generation(&self.pool, Model::ReadModel).await?.context("a live generation")
    }

    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let process = self.processes.get(name).context("launched before")?;
        let pid = Pid::from_raw(i32::try_from(process.child.id())?);
        Ok(kill(pid, signal)?)
    }

    /// Kills a service as a power cut would.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let process = self.processes.get_mut(name).context("launched before")?;
        process.child.kill()?;
        process.child.wait()?;
        Ok(())
    }

    /// Waits for a service to end by itself.
    pub async fn ended(&mut self, name: &str, within: Duration) -> Result<ExitStatus> {
        let process = self.processes.get_mut(name).context("launched before")?;
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = process.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "{name} still runs after {within:?}");
            sleep(POLL).await;
        }
    }

    /// Waits for a service to abort at its failpoint.
    pub async fn aborted(&mut self, name: &str, within: Duration) -> Result<()> {
        let status = self.ended(name, within).await?;
        ensure!(status.signal() == Some(Signal::SIGABRT as i32), "{name} ended otherwise: {status}");
        Ok(())
    }
}
