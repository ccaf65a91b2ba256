//! The local stack: the real Kafka and the real PostgreSQL as child processes under one data directory.
//!
//! A service that the settings name is used, not started. The others are started on loopback ports that the data
//! directory remembers. Data survive a restart; a process that a crashed parent left running is adopted if it runs
//! as it should, else stopped and started again.

mod account;
mod artifacts;
mod data_dir;
mod kafka;
mod postgres;
mod process;
mod programs;
pub mod survey;
#[cfg(feature = "testing")]
pub mod testing;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use account::Account;
use data_dir::{DataDir, Ports, free_port};
use kafka::Kafka;
use postgres::Postgres;
use process::{Identity, Process};

#[cfg(feature = "testing")]
pub use testing::TestSpace;

pub use kafka::Listener;

/// How often a running stack is checked.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// Options of a stack.
#[derive(Debug, Clone, Default)]
pub struct StackOptions {
    /// Where a start keeps all its files.
    pub data_dir: PathBuf,
    /// A Kafka that runs already; none is started then.
    pub kafka_brokers: Option<String>,
    /// A PostgreSQL that runs already; none is started then.
    pub database_url: Option<String>,
    /// Settings of clients of a Kafka that runs already, by librdkafka's names.
    pub kafka_client: Vec<(String, String)>,
    /// Listeners of our own Kafka besides the usual one, and settings on top of the usual ones.
    pub kafka_listeners: Vec<Listener>,
    pub kafka_settings: Vec<(String, String)>,
    /// Settings for our own PostgreSQL on top of the usual ones.
    pub postgres_settings: Vec<(String, String)>,
}

impl StackOptions {
    /// Uses the services that are named; an empty name is how compose files and shells say "unset".
    pub fn named(
        data_dir: PathBuf,
        kafka_brokers: Option<String>,
        database_url: Option<String>,
    ) -> StackOptions {
        StackOptions {
            data_dir,
            kafka_brokers: kafka_brokers.filter(is_set),
            database_url: database_url.filter(is_set),
            ..StackOptions::default()
        }
    }

    /// Uses the services that `KAFKA_BROKERS` and `DATABASE_URL` name.
    pub fn from_env(data_dir: PathBuf) -> StackOptions {
        StackOptions::named(data_dir, std::env::var("KAFKA_BROKERS").ok(), std::env::var("DATABASE_URL").ok())
    }
}

#[allow(clippy::ptr_arg, reason = "as `Option::filter` wants it")]
fn is_set(value: &String) -> bool {
    !value.is_empty()
}

/// A running Kafka and a running PostgreSQL, and the means to stop those that we started.
///
/// Dropping it stops them without waiting; [`Stack::stop`] waits.
#[derive(Debug)]
pub struct Stack {
    /// What Kafka clients connect to.
    pub kafka_brokers: String,
    /// What PostgreSQL clients connect to, with the password.
    pub database_url: String,
    kafka: Option<Own<Kafka>>,
    postgres: Option<Own<Postgres>>,
    // Last, so that the directory is free only once both are being stopped.
    _data_dir: DataDir,
}

/// A service that we started: how it is run, and its process.
#[derive(Debug)]
struct Own<S> {
    service: S,
    process: Process,
}

impl Stack {
    /// Starts what the options don't name, and returns when both services answer.
    ///
    /// Each failure is one sentence: what is missing or wrong, and what to do.
    pub async fn start(options: StackOptions, progress: impl Fn(&str) + Send + Sync) -> Result<Stack> {
        let data_dir = DataDir::take(&options.data_dir)?;
        let ports = choose_ports(&data_dir)?;
        // Checks for everything that can be missing before it starts anything.
        let kafka = match &options.kafka_brokers {
            Some(brokers) => kafka::check_reachable(brokers, &options.kafka_client).await.map(|()| None)?,
            None => Some(prepare_kafka(&data_dir, ports, &options, &progress).await?),
        };
        let postgres = match &options.database_url {
            Some(url) => postgres::check_reachable(url).await.map(|()| None)?,
            None => Some(prepare_postgres(&data_dir, ports, &options, &progress).await?),
        };
        if kafka.is_some() || postgres.is_some() {
            progress("starting the local stack");
        }
        let (kafka, postgres) = tokio::join!(run_kafka(kafka), run_postgres(postgres));
        let (kafka, postgres) = (kafka?, postgres?);
        let brokers = kafka.as_ref().map(|own| own.service.brokers());
        let url = postgres.as_ref().map(|own| own.service.url());
        Ok(Stack {
            kafka_brokers: options.kafka_brokers.or(brokers).unwrap_or_default(),
            database_url: options.database_url.or(url).unwrap_or_default(),
            kafka,
            postgres,
            _data_dir: data_dir,
        })
    }

    /// Stops the services that we started, in order and within a limit; data are kept.
    pub async fn stop(mut self) -> Result<()> {
        let (kafka, postgres) = tokio::join!(
            stop_process(self.kafka.as_mut().map(|own| &mut own.process)),
            stop_process(self.postgres.as_mut().map(|own| &mut own.process)),
        );
        kafka.and(postgres)
    }

    /// Returns which of our services has ended by itself, if one has.
    pub fn ended(&mut self) -> Option<&'static str> {
        let kafka = self.kafka.as_mut().map(|own| &mut own.process);
        if kafka.is_some_and(|process| !process.is_running()) {
            return Some("Kafka");
        }
        let postgres = self.postgres.as_mut().map(|own| &mut own.process);
        if postgres.is_some_and(|process| !process.is_running()) {
            return Some("PostgreSQL");
        }
        None
    }

    /// Completes with its name when one of our services has ended by itself.
    pub async fn watch(&mut self) -> &'static str {
        loop {
            if let Some(name) = self.ended() {
                return name;
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }

    pub fn kafka_pid(&self) -> Option<u32> {
        self.kafka.as_ref().map(|own| own.process.pid())
    }

    pub fn postgres_pid(&self) -> Option<u32> {
        self.postgres.as_ref().map(|own| own.process.pid())
    }

    /// Kills our Kafka as a crash would. For fault tests.
    pub async fn kill_kafka(&mut self) -> Result<()> {
        own_kafka(&mut self.kafka)?.process.kill().await
    }

    /// Starts our Kafka again after [`Stack::kill_kafka`], on the same port.
    pub async fn start_kafka(&mut self) -> Result<()> {
        let own = own_kafka(&mut self.kafka)?;
        own.process = own.service.start().await?;
        Ok(())
    }

    /// Stops our PostgreSQL at once, without finishing its work; it recovers at the next start. For fault tests.
    pub async fn stop_postgres_immediate(&mut self) -> Result<()> {
        own_postgres(&mut self.postgres)?.process.stop_by(Signal::SIGQUIT).await
    }

    /// Starts our PostgreSQL again after [`Stack::stop_postgres_immediate`], on the same port.
    pub async fn start_postgres(&mut self) -> Result<()> {
        let own = own_postgres(&mut self.postgres)?;
        own.process = own.service.start().await?;
        Ok(())
    }
}

/// The addresses of a stack that another process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// What Kafka clients connect to.
    pub kafka_brokers: String,
    /// What PostgreSQL clients connect to, with the password.
    pub database_url: String,
}

/// Returns the addresses of a data directory's stack, if one runs there.
pub fn running(data_dir: &Path) -> Option<Addresses> {
    data_dir::holder(data_dir)?;
    let ports = data_dir::remembered_ports_of(data_dir)?;
    Some(Addresses {
        kafka_brokers: kafka::brokers_at(ports.kafka),
        database_url: postgres::url_at(&postgres::kept_password(data_dir)?, ports.postgres),
    })
}

fn own_kafka(kafka: &mut Option<Own<Kafka>>) -> Result<&mut Own<Kafka>> {
    kafka.as_mut().context("this Kafka is not ours to stop and start: unset KAFKA_BROKERS")
}

fn own_postgres(postgres: &mut Option<Own<Postgres>>) -> Result<&mut Own<Postgres>> {
    postgres.as_mut().context("this PostgreSQL is not ours to stop and start: unset DATABASE_URL")
}

/// Keeps remembered ports where they are free or still held by our own process, and chooses others where not.
fn choose_ports(data_dir: &DataDir) -> Result<Ports> {
    let before = data_dir.remembered_ports();
    let kafka_runs = Kafka::identity(data_dir.path()).find().is_some();
    let postgres_runs = postgres_identity(data_dir.path())?.find().is_some();
    let choose = |port: Option<u16>, runs: bool, taken: &[u16]| match port {
        Some(port) if runs => Ok(port),
        _ => free_port(port, taken),
    };
    let kafka = choose(before.map(|ports| ports.kafka), kafka_runs, &[])?;
    let controller = before.map(|ports| ports.kafka_controller);
    let kafka_controller = choose(controller, kafka_runs, &[kafka])?;
    let taken = [kafka, kafka_controller];
    let postgres = choose(before.map(|ports| ports.postgres), postgres_runs, &taken)?;
    let ports = Ports { kafka, kafka_controller, postgres };
    if before != Some(ports) {
        data_dir.remember_ports(ports)?;
    }
    Ok(ports)
}

fn postgres_identity(data_dir: &Path) -> Result<Identity> {
    let account = Account::for_postgres()?;
    let folder = Postgres::folder_for(data_dir, account.as_ref())?;
    Ok(Postgres::identity(&folder))
}

async fn prepare_kafka(
    data_dir: &DataDir,
    ports: Ports,
    options: &StackOptions,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<Kafka> {
    let java = programs::java()?;
    let jars = artifacts::kafka_jars(progress).await?;
    Ok(Kafka {
        folder: Kafka::folder_in(data_dir.path()),
        log: data_dir.path().join("kafka.log"),
        java: java.program,
        jars,
        ports,
        listeners: options.kafka_listeners.clone(),
        extra_settings: options.kafka_settings.clone(),
    })
}

async fn prepare_postgres(
    data_dir: &DataDir,
    ports: Ports,
    options: &StackOptions,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<Postgres> {
    let account = Account::for_postgres()?;
    let folder = Postgres::folder_for(data_dir.path(), account.as_ref())?;
    if !folder.starts_with(data_dir.path()) {
        progress(&format!(
            "PostgreSQL may not run as root and its user cannot enter {}, so its data are in {}",
            data_dir.path().display(),
            folder.display()
        ));
    }
    let binaries = match postgres::installed_for(&folder) {
        Some(binaries) => binaries,
        None => artifacts::fetched_postgres(account.as_ref(), progress).await?,
    };
    postgres::check_version(&folder, &binaries)?;
    Ok(Postgres {
        folder,
        log: data_dir.path().join("postgres.log"),
        password: postgres::password_in(data_dir.path())?,
        binaries,
        account,
        port: ports.postgres,
        extra_settings: options.postgres_settings.clone(),
    })
}

async fn run_kafka(kafka: Option<Kafka>) -> Result<Option<Own<Kafka>>> {
    let Some(service) = kafka else {
        return Ok(None);
    };
    let process = service.start().await?;
    Ok(Some(Own { service, process }))
}

async fn run_postgres(postgres: Option<Postgres>) -> Result<Option<Own<Postgres>>> {
    let Some(service) = postgres else {
        return Ok(None);
    };
    let process = service.start().await?;
    Ok(Some(Own { service, process }))
}

async fn stop_process(process: Option<&mut Process>) -> Result<()> {
    match process {
        Some(process) => process.stop().await,
        None => Ok(()),
    }
}
