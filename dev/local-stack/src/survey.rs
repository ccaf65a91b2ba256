//! Reports which parts of the stack are present and which are missing, for `ledger doctor`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::unistd::{AccessFlags, access};

use crate::account::{Account, existing_ancestor};
use crate::data_dir::{holder, remembered_ports_of};
use crate::kafka::{self, Kafka};
use crate::postgres::{self, Postgres};
use crate::{StackOptions, artifacts, programs};

/// Below this a day of tests fills the disk.
const FREE_DISK_GB_MIN: f64 = 2.0;

/// Something that the stack needs, or that is worth knowing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Such as `Java`.
    pub what: &'static str,
    pub state: State,
    /// One sentence: what was found, or how to get it.
    pub sentence: String,
}

/// How a finding counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Found,
    /// Not there, and not needed now.
    Note,
    /// Needed, and missing.
    Missing,
}

impl Finding {
    fn new(what: &'static str, state: State, sentence: impl Into<String>) -> Finding {
        Finding { what, state, sentence: sentence.into() }
    }
}

/// Examines this machine; starts, fetches and changes nothing.
pub async fn survey(options: &StackOptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &options.kafka_brokers {
        Some(brokers) => findings.push(kafka_named(brokers, &options.kafka_client).await),
        None => findings.extend(kafka_own()),
    }
    match &options.database_url {
        Some(url) => findings.push(postgres_named(url).await),
        None => findings.extend(postgres_own(&options.data_dir)),
    }
    findings.push(data_dir(&options.data_dir));
    findings.push(free_disk(&options.data_dir));
    findings.push(running(&options.data_dir).await);
    findings
}

async fn kafka_named(brokers: &str, client: &[(String, String)]) -> Finding {
    match kafka::check_reachable(brokers, client).await {
        Ok(()) => Finding::new(
            "KAFKA_BROKERS",
            State::Found,
            format!("Kafka answers at {brokers}, so none is started."),
        ),
        Err(error) => Finding::new("KAFKA_BROKERS", State::Missing, sentence(&error)),
    }
}

async fn postgres_named(url: &str) -> Finding {
    match postgres::check_reachable(url).await {
        Ok(()) => Finding::new("DATABASE_URL", State::Found, "PostgreSQL answers there, so none is started."),
        Err(error) => Finding::new("DATABASE_URL", State::Missing, sentence(&error)),
    }
}

fn kafka_own() -> Vec<Finding> {
    let java = match programs::java() {
        Ok(java) => {
            Finding::new("Java", State::Found, format!("Java {} is {}.", java.major, java.program.display()))
        }
        Err(error) => Finding::new("Java", State::Missing, sentence(&error)),
    };
    let fetched = artifacts::kafka_jars_folder();
    let jars = match &fetched {
        Ok(folder) if folder.exists() => {
            Finding::new("Kafka", State::Found, format!("Kafka's jars are in {}.", folder.display()))
        }
        Ok(folder) => Finding::new(
            "Kafka",
            State::Note,
            format!(
                "Kafka's jars are not in {} yet; the first start fetches them with Maven.",
                folder.display()
            ),
        ),
        Err(error) => Finding::new("Kafka", State::Missing, sentence(error)),
    };
    let needed = jars.state != State::Found;
    vec![java, jars, maven(needed)]
}

fn maven(needed: bool) -> Finding {
    match programs::maven() {
        Ok(program) => Finding::new("Maven", State::Found, format!("Maven is {}.", program.display())),
        Err(error) if needed => Finding::new("Maven", State::Missing, sentence(&error)),
        Err(_) => Finding::new(
            "Maven",
            State::Note,
            "Maven was not found, and is not needed because Kafka's jars are fetched.",
        ),
    }
}

fn postgres_own(data_dir: &Path) -> Vec<Finding> {
    let (account, folder) = match postgres_place(data_dir) {
        Ok(place) => place,
        Err(error) => return vec![Finding::new("PostgreSQL", State::Missing, sentence(&error))],
    };
    let binaries = match postgres::installed_for(&folder) {
        Some(binaries) => Finding::new(
            "PostgreSQL",
            State::Found,
            format!("PostgreSQL {} is in {}.", binaries.major, binaries.folder.display()),
        ),
        None => fetched_postgres(account.as_ref()),
    };
    let mut findings = vec![binaries];
    if let Some(account) = account {
        findings.push(Finding::new(
            "user",
            State::Found,
            format!(
                "You are root, so PostgreSQL runs as {} with its data in {}.",
                account.name,
                folder.display()
            ),
        ));
    }
    findings
}

fn postgres_place(data_dir: &Path) -> Result<(Option<Account>, PathBuf)> {
    let account = Account::for_postgres()?;
    let folder = Postgres::folder_for(&absolute(data_dir), account.as_ref())?;
    Ok((account, folder))
}

fn fetched_postgres(account: Option<&Account>) -> Finding {
    let found = artifacts::fetched_postgres_folder(account).and_then(|folder| {
        if folder.exists() {
            return Ok((State::Found, format!("PostgreSQL was fetched into {}.", folder.display())));
        }
        programs::tar_with_xz()?;
        programs::maven()?;
        let how = "no PostgreSQL 15 or newer is installed; the first start fetches one with Maven, or install it (Debian and Ubuntu: apt-get install postgresql; macOS: brew install postgresql).";
        Ok((State::Note, how.to_owned()))
    });
    match found {
        Ok((state, text)) => Finding::new("PostgreSQL", state, text),
        Err(error) => Finding::new("PostgreSQL", State::Missing, sentence(&error)),
    }
}

fn data_dir(path: &Path) -> Finding {
    let path = absolute(path);
    let state = match (path.exists(), is_writable(&path)) {
        (true, true) => "is there",
        (false, true) => "is made by the first start",
        (_, false) => {
            return Finding::new(
                "data directory",
                State::Missing,
                format!(
                    "{} cannot be written: choose another with --data-dir or LEDGER_DATA_DIR.",
                    path.display()
                ),
            );
        }
    };
    Finding::new("data directory", State::Found, format!("{} {state}.", path.display()))
}

fn free_disk(path: &Path) -> Finding {
    let path = absolute(path);
    let place = existing_ancestor(&path);
    let Ok(disk) = nix::sys::statvfs::statvfs(place) else {
        return Finding::new(
            "free disk",
            State::Note,
            format!("The free disk below {} is unknown.", place.display()),
        );
    };
    #[allow(clippy::cast_precision_loss, clippy::unnecessary_cast)]
    let gigabytes = disk.blocks_available() as f64 * disk.fragment_size() as f64 / 1e9;
    if gigabytes < FREE_DISK_GB_MIN {
        return Finding::new(
            "free disk",
            State::Missing,
            format!(
                "{gigabytes:.1} GB are free below {} and the stack wants {FREE_DISK_GB_MIN:.0}: make room, or choose another --data-dir.",
                place.display()
            ),
        );
    }
    Finding::new("free disk", State::Found, format!("{gigabytes:.0} GB are free below {}.", place.display()))
}

async fn running(path: &Path) -> Finding {
    let path = absolute(path);
    let holder = holder(&path);
    let ports = remembered_ports_of(&path);
    let kafka = match ports {
        Some(ports) if Kafka::identity(&path).find().is_some() => Some(ports.kafka),
        _ => None,
    };
    let text = match (holder, kafka) {
        (Some(pid), Some(port)) => {
            format!("A ledger (process {pid}) runs on it, its Kafka at 127.0.0.1:{port}.")
        }
        (Some(pid), None) => format!("A ledger (process {pid}) uses the data directory."),
        (None, Some(port)) => format!(
            "A Kafka that a crashed ledger left behind runs at 127.0.0.1:{port}; the next start takes it over."
        ),
        (None, None) => {
            return Finding::new("running stack", State::Note, "Nothing runs on it now.");
        }
    };
    Finding::new("running stack", State::Found, text)
}

fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_path_buf())
}

/// Asks the system, because root, access lists and read-only disks make the mode bits a guess.
fn is_writable(path: &Path) -> bool {
    access(existing_ancestor(path), AccessFlags::W_OK).is_ok()
}

fn sentence(error: &anyhow::Error) -> String {
    format!("{error:#}.")
}
