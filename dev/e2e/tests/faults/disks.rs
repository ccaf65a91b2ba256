//! Disks: the broker's is full, the database's is full, the database only reads, a database is told not to keep what it
//! acknowledges. Nothing is acknowledged that is not stored, and all goes on by itself once the disk has room.

use std::collections::BTreeSet;
use std::fs::{File, remove_file};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use local_stack::testing::shared_stack;
use local_stack::{Stack, StackOptions, TestSpace};
use platform::http_client;
use platform::pg::{self, PgPool};
use reqwest::Method;
use serde_json::json;
use sqlx::AssertSqlSafe;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::client::{self, Load, open_accounts};
use crate::fleet::{self, Fleet, OPERATOR_KEY};

const SERVICES: [&str; 3] = ["projector", "command-api", "alert-worker"];
/// Enough for a broker with the topics of one test.
const KAFKA_MEGABYTES: u32 = 32;
/// A new cluster takes 40, its log two files of 16.
const POSTGRES_MEGABYTES: u32 = 192;
const WAIT_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const ANSWER_MAX: Duration = Duration::from_secs(25);
const HOLDER: &str = "holder";

/// A disk of its own, in memory, that can be filled to the last byte.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    fn mount(megabytes: u32) -> Result<SmallDisk> {
        let folder = tempfile::tempdir()?;
        let owner = folder.path().metadata()?;
        // Others may pass: PostgreSQL's user does.
        let options = format!("size={megabytes}m,mode=0755,uid={},gid={}", owner.uid(), owner.gid());
        let mounted = as_root("mount")
            .args(["-t", "tmpfs", "-o", &options, "ledger-small-disk"])
            .arg(folder.path())
            .output()?;
        ensure!(
            mounted.status.success(),
            "no small disk can be made here, so a full one can't be tested: run as root, or with a sudo that needs no password ({})",
            String::from_utf8_lossy(&mounted.stderr).trim()
        );
        Ok(SmallDisk { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves no byte free.
    fn fill(&self) -> Result<()> {
        let mut ballast = File::create(self.path().join("ballast"))?;
        for bytes in [1 << 20, 1 << 12, 1] {
            while ballast.write_all(&vec![0; bytes]).is_ok() {}
        }
        Ok(())
    }

    fn make_room(&self) -> Result<()> {
        Ok(remove_file(self.path().join("ballast"))?)
    }
}

impl Drop for SmallDisk {
    /// Lazily: whatever still has a file open here does not keep the mount.
    fn drop(&mut self) {
        let _ = as_root("umount").arg("-l").arg(self.folder.path()).status();
    }
}

fn as_root(program: &str) -> Command {
    let mut command = match nix::unistd::geteuid().is_root() {
        true => Command::new(program),
        false => {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", program]);
            sudo
        }
    };
    command.stdin(Stdio::null());
    command
}

/// Waits until clients of the load have been told to come back later.
async fn refused(load: &Load) -> Result<()> {
    let before = load.refusals.unavailable.load(Ordering::Relaxed);
    let since = Instant::now();
    while load.refusals.unavailable.load(Ordering::Relaxed) == before {
        ensure!(since.elapsed() < WAIT_MAX, "no client was told to come back later");
        sleep(POLL).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts a tmpfs: needs root, or a sudo without a password"]
async fn a_broker_with_a_full_disk_acknowledges_nothing_that_it_does_not_store() -> Result<()> {
    let turn = fleet::beside().await;
    let disk = SmallDisk::mount(KAFKA_MEGABYTES)?;
    let options = StackOptions {
        data_dir: disk.path().join("data"),
        database_url: Some(shared_stack().await?.database_url),
        ..StackOptions::default()
    };
    let mut stack = Stack::start(options, |_| {}).await?;
    let space = TestSpace::within(stack.kafka_brokers.clone(), stack.database_url.clone()).await?;
    let mut fleet = Fleet::start_on(turn, space, &SERVICES).await?;
    open_accounts(&fleet).await?;
    let load = Load::start(&fleet)?;
    sleep(Duration::from_secs(1)).await;

    disk.fill()?;
    refused(&load).await?;
    fleet.unready("command-api", r#""log":"unreachable""#).await?;
    disk.make_room()?;
    // A broker that can't write to its only disk ends; what runs it starts it again.
    stack.kill_kafka().await?;
    stack.start_kafka().await?;
    fleet.ready_all_by_themselves().await?;

    let sent = load.finish().await?;
    fleet.verify(sent).await?;
    drop(fleet);
    stack.stop().await
}

/// Holds credits all the time, and remembers which holds were granted.
struct Holder {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    task: JoinHandle<Result<BTreeSet<String>>>,
}

impl Holder {
    async fn start(fleet: &Fleet) -> Result<Holder> {
        let client = http_client::builder().timeout(ANSWER_MAX).build()?;
        let body = json!({"account_id": HOLDER, "plan": {"cycle": "yearly", "allowance": "1000000"}});
        client::write(fleet, &client, Method::POST, "/v1/accounts", &body).await?;
        let url = format!("{}/v1/accounts/{HOLDER}/reservations", fleet.command_url);
        let (stop, refused) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let task = tokio::spawn(hold(client, url, Arc::clone(&stop), Arc::clone(&refused)));
        Ok(Holder { stop, refused, task })
    }

    /// Waits until a hold is refused.
    async fn refused(&self) -> Result<()> {
        let before = self.refused.load(Ordering::Relaxed);
        let since = Instant::now();
        while self.refused.load(Ordering::Relaxed) == before {
            ensure!(since.elapsed() < WAIT_MAX && !self.task.is_finished(), "no hold was refused");
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Checks that every hold that was granted is there.
    async fn finish(self, pool: &PgPool) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let granted = self.task.await??;
        let stored: Vec<String> =
            sqlx::query_scalar("select reservation_id from control.hold where account_id = $1")
                .bind(HOLDER)
                .fetch_all(pool)
                .await?;
        let stored: BTreeSet<String> = stored.into_iter().collect();
        ensure!(granted == stored, "{} were granted, {} are stored", granted.len(), stored.len());
        Ok(())
    }
}

async fn hold(
    client: reqwest::Client,
    url: String,
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
) -> Result<BTreeSet<String>> {
    let mut granted = BTreeSet::new();
    let mut last_refused = false;
    while !stop.load(Ordering::Relaxed) || last_refused {
        let id = format!("r{}", granted.len());
        let body = json!({"reservation_id": id, "amount": "1"});
        let Ok(answer) = client.post(&url).bearer_auth(OPERATOR_KEY).json(&body).send().await else {
            sleep(POLL).await;
            continue;
        };
        let (status, again) = (answer.status(), answer.headers().contains_key("retry-after"));
        let said = answer.text().await.unwrap_or_default();
        last_refused = status == 503;
        if last_refused {
            ensure!(again, "503 without Retry-After: {said}");
            refused.fetch_add(1, Ordering::Relaxed);
            sleep(POLL).await;
            continue;
        }
        ensure!(status == 201 || status == 200, "{status}: {said}");
        granted.insert(id);
        sleep(POLL).await;
    }
    Ok(granted)
}

async fn execute(pool: &PgPool, statement: &str) -> Result<()> {
    sqlx::query(AssertSqlSafe(statement.to_owned())).execute(pool).await?;
    Ok(())
}

async fn set(pool: &PgPool, setting: &str, value: &str) -> Result<()> {
    execute(pool, &format!("alter system set {setting} = {value}")).await?;
    execute(pool, "select pg_reload_conf()").await
}

/// What would let the database lose what it has acknowledged, switched while everything runs.
async fn unsafe_settings_are_named(fleet: &mut Fleet, admin: &PgPool) -> Result<()> {
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        set(admin, setting, "off").await?;
        for service in SERVICES {
            fleet.unready(service, &format!("{setting} is off")).await?;
        }
        set(admin, setting, "on").await?;
        fleet.ready_all_by_themselves().await?;
    }
    Ok(())
}

/// Waits until a setting is refused: each session of the database applies a change in its own time.
async fn a_setting_is_refused(fleet: &Fleet) -> Result<()> {
    let client = http_client::builder().timeout(ANSWER_MAX).build()?;
    let url = format!("{}/v1/accounts/{HOLDER}", fleet.command_url);
    let since = Instant::now();
    for name in 0.. {
        let body = json!({"name": format!("Holder {name}")});
        let answer = client.patch(&url).bearer_auth(OPERATOR_KEY).json(&body).send().await?;
        let (status, again) = (answer.status(), answer.headers().contains_key("retry-after"));
        if status == 503 {
            ensure!(again, "503 without Retry-After");
            break;
        }
        ensure!(status.is_success() && since.elapsed() < WAIT_MAX, "{status}: {}", answer.text().await?);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts a tmpfs: needs root, or a sudo without a password"]
async fn a_database_that_takes_no_writes_is_waited_for_and_nothing_is_answered_that_it_does_not_hold()
-> Result<()> {
    let turn = fleet::beside().await;
    let disk = SmallDisk::mount(POSTGRES_MEGABYTES)?;
    let settings = [("max_wal_size", "64MB"), ("min_wal_size", "32MB"), ("shared_buffers", "32MB")];
    let options = StackOptions {
        data_dir: disk.path().join("data"),
        kafka_brokers: Some(shared_stack().await?.kafka_brokers),
        postgres_settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..StackOptions::default()
    };
    let mut stack = Stack::start(options, |_| {}).await?;
    let space = TestSpace::within(stack.kafka_brokers.clone(), stack.database_url.clone()).await?;
    let mut fleet = Fleet::start_on(turn, space, &SERVICES).await?;
    let admin = pg::connect(&stack.database_url, "test", 1).await?;
    open_accounts(&fleet).await?;
    unsafe_settings_are_named(&mut fleet, &admin).await?;
    let load = Load::start(&fleet)?;
    let holder = Holder::start(&fleet).await?;

    set(&admin, "default_transaction_read_only", "on").await?;
    holder.refused().await?;
    a_setting_is_refused(&fleet).await?;
    for worker in ["projector", "alert-worker"] {
        fleet.unready(worker, "failing").await?;
    }
    set(&admin, "default_transaction_read_only", "off").await?;
    fleet.ready_all_by_themselves().await?;

    disk.fill()?;
    fleet.unready("projector", "failing").await.context("of a full disk")?;
    holder.refused().await?;
    disk.make_room()?;
    // A server that could not even write its log has ended; what runs it starts it again.
    if stack.ended().is_some() {
        stack.start_postgres().await?;
    }
    fleet.ready_all_by_themselves().await?;

    let sent = load.finish().await?;
    holder.finish(&fleet.pool).await?;
    fleet.verify(sent).await?;
    admin.close().await;
    drop(fleet);
    stack.stop().await
}
