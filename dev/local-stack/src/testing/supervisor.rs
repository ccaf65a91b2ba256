//! The stack that all tests of a run share: the first starts it, and it stops when no test holds it.
//!
//! A test process holds the lease, a shared lock on a file, until it ends, however it ends. A supervisor
//! process runs the stack, tries now and then to lock the lease exclusively, and stops when it has been able to
//! for a while. The supervisor is the test program itself, started again to run the one test that
//! [`shared_test_stack!`](crate::shared_test_stack) defines, so that tests of any crate find it.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::account::Account;
use crate::data_dir::{DataDir, holder, write_whole};
use crate::kafka::{self, Kafka};
use crate::postgres::{self, Postgres};
use crate::process::{Identity, log_tail, stop_left_behind};
use crate::{Addresses, Stack, StackOptions};

/// Longer than the gap between two test programs of one run.
const IDLE_MAX: Duration = Duration::from_secs(120);
const LEASE_POLL: Duration = Duration::from_secs(2);
/// A first start may have to fetch Kafka.
const READY_MAX: Duration = Duration::from_secs(1000);
const READY_POLL: Duration = Duration::from_millis(100);
/// The test that [`shared_test_stack!`](crate::shared_test_stack) defines.
const SUPERVISOR_TEST: &str = "shared_test_stack_supervisor";
/// Gives the folder of the shared stack to the process that is to run it.
const SUPERVISE_IN: &str = "LEDGER_TEST_STACK_FOLDER";

/// Returns the addresses of the stack that the tests of this run share; starts it where none runs.
///
/// `KAFKA_BROKERS` and `DATABASE_URL` are used where both are set.
pub async fn shared_stack() -> Result<Addresses> {
    static SHARED: OnceCell<(Addresses, Option<File>)> = OnceCell::const_new();
    let (addresses, _lease) = SHARED.get_or_try_init(find_or_start).await?;
    Ok(addresses.clone())
}

/// Returns the folder of the shared broker's logs, a folder in it for each partition; none where the broker is not ours.
pub fn shared_log_folder() -> Result<Option<PathBuf>> {
    let folder = Kafka::folder_in(&shared_folder()?.data_dir()).join("log");
    let ours = StackOptions::from_env(PathBuf::new()).kafka_brokers.is_none();
    Ok((ours && folder.exists()).then_some(folder))
}

async fn find_or_start() -> Result<(Addresses, Option<File>)> {
    let named = StackOptions::from_env(PathBuf::new());
    if let (Some(kafka_brokers), Some(database_url)) = (named.kafka_brokers, named.database_url) {
        kafka::check_reachable(&kafka_brokers, &[]).await?;
        postgres::check_reachable(&database_url).await?;
        return Ok((Addresses { kafka_brokers, database_url }, None));
    }
    let (addresses, lease) = shared_folder()?.join(&std::env::current_exe()?).await?;
    Ok((addresses, Some(lease)))
}

/// Test programs lie in `target/<profile>/deps`; those of all crates share one folder next to it.
fn shared_folder() -> Result<StackFolder> {
    let program = std::env::current_exe()?;
    let profile = program.parent().and_then(Path::parent).context("a test program lies in target")?;
    StackFolder::at(&profile.join("test-stack"))
}

/// Runs the shared stack where this process was started for that; else returns at once.
///
/// Called by the test that [`shared_test_stack!`](crate::shared_test_stack) defines.
pub fn supervise_if_started_for_it() {
    let Some(folder) = std::env::var_os(SUPERVISE_IN) else { return };
    if let Err(error) = supervise_blocking(Path::new(&folder)) {
        // The last line of the log, which a test that waits for the stack quotes.
        eprintln!("{error:#}");
        std::process::exit(1);
    }
}

fn supervise_blocking(folder: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let asked_to_stop = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        supervise(folder, asked_to_stop).await
    })
}

struct StackFolder {
    folder: PathBuf,
}

impl StackFolder {
    fn at(folder: &Path) -> Result<StackFolder> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(StackFolder { folder: folder.canonicalize()? })
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

    /// Joins the running stack, or starts one; only one process at a time decides which.
    async fn join(&self, program: &Path) -> Result<(Addresses, File)> {
        let starting = self.open("starting")?;
        let lease = self.open("lease")?;
        let (_starting, lease) = tokio::task::spawn_blocking(move || {
            starting.lock()?;
            // Waits for a supervisor that is stopping: it holds the lease until it has ended.
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
            .args([SUPERVISOR_TEST, "--exact", "--ignored", "--nocapture"])
            .env(SUPERVISE_IN, &self.folder)
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
            let ended = supervisor.try_wait()?;
            ensure!(
                !ended.is_some_and(|status| status.success()),
                "{} has no test that runs the shared stack: say `local_stack::shared_test_stack!();` in its root",
                program.display()
            );
            if ended.is_some() || Instant::now() >= deadline {
                bail!("the shared stack did not start; {}", log_tail(&log));
            }
            sleep(READY_POLL).await;
        }
    }
}

/// Runs the shared stack in `folder` until no test holds the lease for a while or `stop` completes, then removes its data.
async fn supervise(folder: &Path, stop: impl Future<Output = ()>) -> Result<()> {
    let shared = StackFolder::at(folder)?;
    discard(&shared.data_dir()).await?;
    let options = StackOptions {
        // Many tests at a time, each with pools of its own.
        postgres_settings: vec![("max_connections".to_owned(), "400".to_owned())],
        ..StackOptions::from_env(shared.data_dir())
    };
    let mut stack = Stack::start(options, |_| {}).await?;
    let addresses =
        Addresses { kafka_brokers: stack.kafka_brokers.clone(), database_url: stack.database_url.clone() };
    let text = serde_json::to_vec(&addresses)?;
    write_whole(&shared.addresses_file(), &text, 0o600)?;
    let lease = shared.open("lease")?;
    let ended = tokio::select! {
        idle = wait_until_idle(&lease, IDLE_MAX) => idle.map(|()| None)?,
        () = stop => None,
        name = stack.watch() => Some(name),
    };
    let _ = fs::remove_file(shared.addresses_file());
    stack.stop().await?;
    if let Some(name) = ended {
        bail!("{name} of the shared stack ended by itself: its log is in {}", shared.data_dir().display());
    }
    discard(&shared.data_dir()).await
}

/// Returns, with the lease locked exclusively, when no other process has held it for `limit`.
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

/// Ends what still runs in a data directory and removes its data; logs are kept for debugging.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lease_that_a_test_holds_keeps_the_stack() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let shared = StackFolder::at(folder.path()).expect("a folder of the stack");
        let test = shared.open("lease").expect("opened");
        let supervisor = shared.open("lease").expect("opened");
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
