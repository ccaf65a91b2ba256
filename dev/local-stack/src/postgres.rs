//! PostgreSQL of the local stack: the system's own or the fetched one, on loopback, with a password.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rand::RngExt;
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use crate::account::{Account, create_passable, reachable_folder};
use crate::data_dir::write_whole;
use crate::process::{Identity, Plan, Process, exists, log_tail, running_process, stop_left_behind};
use crate::programs::{self, PostgresBinaries};

/// Recovery after a crash replays up to `max_wal_size` of log.
const READY_MAX: Duration = Duration::from_secs(90);
const INITDB_MAX: Duration = Duration::from_secs(90);
const PROBE_MAX: Duration = Duration::from_secs(2);
/// How long a server that was named in the settings may take to answer.
const REACH_MAX: Duration = Duration::from_secs(5);
/// How long the sessions of a killed server may take to end; until then a new one refuses to start.
const SESSIONS_GONE_MAX: Duration = Duration::from_secs(15);
const SESSIONS_GONE_POLL: Duration = Duration::from_millis(200);
const PASSWORD_BYTES: usize = 16;
const USER: &str = "postgres";
const DATABASE: &str = "ledger";
const PASSWORD_FILE: &str = "postgres.password";
/// Where root keeps the data of an account that cannot enter the data directory.
const PUBLIC_DATA: &str = "/var/lib/ledger";

/// One stack's PostgreSQL: its paths, port and programs.
#[derive(Debug, Clone)]
pub(crate) struct Postgres {
    /// The cluster, mode 0700 and owned by the account that runs the server.
    pub folder: PathBuf,
    pub log: PathBuf,
    pub password: String,
    pub binaries: PostgresBinaries,
    pub account: Option<Account>,
    pub port: u16,
    /// Set after our own, so that they win.
    pub extra_settings: Vec<(String, String)>,
}

impl Postgres {
    /// Returns the words by which the running server of a cluster is known.
    pub(crate) fn identity(folder: &Path) -> Identity {
        Identity { program: "/postgres", path: folder.display().to_string() }
    }

    /// Returns the cluster's folder: in the data directory if the account that runs the server can enter it.
    pub(crate) fn folder_for(data_dir: &Path, account: Option<&Account>) -> Result<PathBuf> {
        reachable_folder(account, &data_dir.join("postgres"), Path::new(PUBLIC_DATA))
    }

    pub(crate) fn url(&self) -> String {
        self.url_of(DATABASE)
    }

    fn url_of(&self, database: &str) -> String {
        url_of(database, &self.password, self.port)
    }

    /// Adopts a server left running if it runs as we would run it, else starts one; returns when it answers.
    pub(crate) async fn start(&self) -> Result<Process> {
        let process = match self.take_over().await? {
            Some(process) => process,
            None => self.start_anew().await?,
        };
        self.create_database_once().await?;
        Ok(process)
    }

    async fn take_over(&self) -> Result<Option<Process>> {
        let plan = self.plan();
        let Some(found) = plan.identity.find() else { return Ok(None) };
        let as_planned = found.arguments.ends_with(&plan.arguments);
        let mut left_behind = Process::adopt(plan, &found);
        if as_planned && self.wait(&mut left_behind).await.is_ok() {
            return Ok(Some(left_behind));
        }
        left_behind.stop().await?;
        Ok(None)
    }

    async fn start_anew(&self) -> Result<Process> {
        self.create_cluster_once().await?;
        self.remove_foreign_pid_file()?;
        self.start_past_old_sessions(self.plan()).await
    }

    async fn wait(&self, process: &mut Process) -> Result<()> {
        let url = self.url_of("postgres");
        process.wait_until_ready(READY_MAX, || answers(url.clone(), PROBE_MAX)).await
    }

    /// Starts the server, again while the sessions of a killed one still hold its shared memory.
    async fn start_past_old_sessions(&self, plan: Plan) -> Result<Process> {
        let deadline = Instant::now() + SESSIONS_GONE_MAX;
        loop {
            let mut process = Process::start(plan.clone())?;
            let Err(error) = self.wait(&mut process).await else {
                return Ok(process);
            };
            let held = log_tail(&self.log).contains("pre-existing shared memory block");
            if process.is_running() || !held || Instant::now() >= deadline {
                return Err(error);
            }
            sleep(SESSIONS_GONE_POLL).await;
        }
    }

    async fn create_cluster_once(&self) -> Result<()> {
        if self.folder.join("PG_VERSION").exists() {
            return Ok(());
        }
        // A folder that is renamed once it is complete: an interrupted initdb is started over.
        let part = self.folder.with_extension("part");
        let interrupted = Identity { program: "/initdb", path: part.display().to_string() };
        stop_left_behind(&interrupted).await?;
        if part.exists() {
            fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
        }
        create_passable(&part)?;
        let password_file = part.with_extension("initial");
        write_whole(&password_file, self.password.as_bytes(), 0o600)?;
        if let Some(account) = &self.account {
            account.own(&part)?;
            account.own(&password_file)?;
        }
        let done = self.initdb(&part, &password_file).await;
        let _ = fs::remove_file(&password_file);
        done?;
        fs::rename(&part, &self.folder).with_context(|| format!("cannot create {}", self.folder.display()))
    }

    async fn initdb(&self, part: &Path, password_file: &Path) -> Result<()> {
        let mut command = tokio::process::Command::new(self.binaries.folder.join("initdb"));
        command
            .arg("-D")
            .arg(part)
            .args(["-U", USER, "--encoding=UTF8", "--locale=C", "--data-checksums"])
            .arg("--auth=scram-sha-256")
            .arg(format!("--pwfile={}", password_file.display()))
            .current_dir(part);
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        let log = self.log.with_file_name("initdb.log");
        programs::run("initdb", command, &log, INITDB_MAX).await?;
        let _ = fs::remove_file(&log);
        Ok(())
    }

    /// After a reboot the number in `postmaster.pid` may belong to an unrelated process, and the server would refuse
    /// to start. The file stays where its process is a PostgreSQL, because then it guards the shared memory.
    fn remove_foreign_pid_file(&self) -> Result<()> {
        let file = self.folder.join("postmaster.pid");
        let Ok(text) = fs::read_to_string(&file) else {
            return Ok(());
        };
        let number = text.lines().next().and_then(|line| line.trim().parse().ok());
        let Some(pid) = number.map(Pid::from_raw) else {
            return Ok(());
        };
        let is_postgres =
            running_process(pid).is_some_and(|process| process.arguments[0].contains("postgres"));
        if exists(pid) && !is_postgres {
            fs::remove_file(&file)?;
        }
        Ok(())
    }

    async fn create_database_once(&self) -> Result<()> {
        let mut connection = PgConnection::connect(&self.url_of("postgres")).await?;
        let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(DATABASE)
            .fetch_one(&mut connection)
            .await?;
        if !exists {
            sqlx::query("create database ledger").execute(&mut connection).await?;
        }
        Ok(connection.close().await?)
    }

    fn plan(&self) -> Plan {
        let mut arguments = vec!["-D".to_owned(), self.folder.display().to_string()];
        for (name, value) in self.settings() {
            arguments.push("-c".to_owned());
            arguments.push(format!("{name}={value}"));
        }
        Plan {
            name: "PostgreSQL",
            program: self.binaries.folder.join("postgres"),
            arguments,
            identity: Self::identity(&self.folder),
            account: self.account.clone(),
            folder: self.folder.clone(),
            log: self.log.clone(),
            // "Fast": sessions are ended, the data are flushed. SIGTERM would wait for every client to leave.
            stop_signal: Signal::SIGINT,
            // "Immediate": ends the sessions too, which SIGKILL would leave.
            crash_signal: Signal::SIGQUIT,
        }
    }

    fn settings(&self) -> Vec<(String, String)> {
        let port = self.port.to_string();
        let ours = [
            ("listen_addresses", "127.0.0.1"),
            ("port", port.as_str()),
            // A socket's path is limited to about 100 bytes, less than many data directories; no client needs it.
            ("unix_socket_directories", ""),
            // `fsync` and its kind are on by default. Set here, no `alter system` could turn them off, nor a test show that
            // the services notice.
            ("shared_buffers", "256MB"),
            ("max_connections", "200"),
            ("max_wal_size", "2GB"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("logging_collector", "off"),
        ];
        ours.into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .chain(self.extra_settings.iter().cloned())
            .collect()
    }
}

/// Finds a PostgreSQL for this data directory: its own version where it has data, else the newest here, else none.
pub(crate) fn installed_for(folder: &Path) -> Option<PostgresBinaries> {
    programs::installed_postgres(cluster_major(folder))
}

/// Refuses binaries that cannot read the cluster that is there.
pub(crate) fn check_version(folder: &Path, binaries: &PostgresBinaries) -> Result<()> {
    match cluster_major(folder) {
        Some(major) if major != binaries.major => bail!(
            "the data in {} were written by PostgreSQL {major} and only {} was found: install PostgreSQL {major}, or choose another --data-dir",
            folder.display(),
            binaries.major
        ),
        _ => Ok(()),
    }
}

fn cluster_major(folder: &Path) -> Option<u32> {
    let text = fs::read_to_string(folder.join("PG_VERSION")).ok()?;
    text.trim().parse().ok()
}

/// Returns the password of a data directory's server, made at first use and readable by its owner only.
pub(crate) fn password_in(data_dir: &Path) -> Result<String> {
    if let Some(password) = kept_password(data_dir) {
        return Ok(password);
    }
    let bytes: [u8; PASSWORD_BYTES] = rand::rng().random();
    let password = hex::encode(bytes);
    write_whole(&data_dir.join(PASSWORD_FILE), password.as_bytes(), 0o600)?;
    Ok(password)
}

/// Returns the password of a data directory's server, if it has been made.
pub(crate) fn kept_password(data_dir: &Path) -> Option<String> {
    let text = fs::read_to_string(data_dir.join(PASSWORD_FILE)).ok()?;
    Some(text.trim().to_owned())
}

/// Returns what clients of a server on this machine connect to.
pub(crate) fn url_at(password: &str, port: u16) -> String {
    url_of(DATABASE, password, port)
}

fn url_of(database: &str, password: &str, port: u16) -> String {
    format!("postgres://{USER}:{password}@127.0.0.1:{port}/{database}")
}

/// Succeeds when the server answers a query.
pub(crate) async fn answers(url: String, limit: Duration) -> Result<()> {
    let asked = async {
        let mut connection = PgConnection::connect(&url).await?;
        sqlx::query("select 1").execute(&mut connection).await?;
        connection.close().await
    };
    Ok(timeout(limit, asked).await.context("no answer in time")??)
}

/// Checks a PostgreSQL that the settings name; its password stays out of the sentence.
pub(crate) async fn check_reachable(url: &str) -> Result<()> {
    let options: PgConnectOptions = url.parse().map_err(|_| {
        anyhow::anyhow!("DATABASE_URL is not of the form postgres://user:password@host:port/database")
    })?;
    let answer = answers(url.to_owned(), REACH_MAX).await;
    answer.map_err(|reason| {
        anyhow::anyhow!(
            "DATABASE_URL is set, but no PostgreSQL answers at {}:{} ({reason:#}): start it, or unset DATABASE_URL and the ledger starts its own",
            options.get_host(),
            options.get_port()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_password_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let password = password_in(folder.path()).expect("made");
        assert_eq!(password.len(), 32);
        assert_eq!(password_in(folder.path()).expect("read"), password);
        let file = folder.path().join("postgres.password");
        let mode = file.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "closed to everyone else");
    }

    #[tokio::test]
    async fn a_database_named_but_absent_is_one_sentence_without_its_password() {
        let error = check_reachable("postgres://me:secret@127.0.0.1:1/x").await;
        let sentence = error.expect_err("nothing listens there").to_string();
        assert!(sentence.contains("127.0.0.1:1"), "{sentence}");
        assert!(!sentence.contains("secret"), "{sentence}");
        assert!(!sentence.contains('\n'), "{sentence}");
    }

    #[test]
    fn data_of_another_major_version_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("PG_VERSION"), "14\n").expect("written");
        let binaries = PostgresBinaries { folder: PathBuf::new(), major: 18 };
        assert!(check_version(folder.path(), &binaries).is_err());
        fs::write(folder.path().join("PG_VERSION"), "18\n").expect("written");
        assert!(check_version(folder.path(), &binaries).is_ok());
    }
}
