//! Tools of others read the audit log of a running ledger over HTTP: Go's `sumdb` packages, and `aics-tlog` of Python.
//!
//! Ignored by default: `.ci/run` runs them where Go and a Python of at least 3.12 can be had.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::audit_log::{Log, filled, keys, signed};
use e2e::Whole;
use platform::kafka::Appender;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Runs a program, which must end well, and returns what it says.
fn run(mut command: Command) -> Result<String> {
    let ran = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    ensure!(ran.status.success(), "{command:?}: {said}");
    Ok(said)
}

async fn vkey(whole: &Whole, log: &Log) -> Result<String> {
    let keys = keys(whole, log).await?;
    Ok(keys.first().and_then(|key| key["vkey"].as_str()).context("a key")?.to_owned())
}

fn prefix(whole: &Whole, log: &Log) -> String {
    format!("{}{}", whole.console(), log.path("").trim_end_matches('/'))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go; `.ci/run` runs it"]
async fn go_reads_every_entry_with_an_auditors_key() -> Result<()> {
    let whole = Whole::start_with(&["--checkpoint-seconds", "1"]).await?;
    let log = filled(&whole, 600).await?;
    signed(&whole, &log).await?;
    let auditor = whole.keyed("auditor", &[], None).await?;
    let vkey = vkey(&whole, &log).await?;
    let fetch = |key: &str| {
        let mut go = Command::new("go");
        go.current_dir(Path::new(ROOT).join("dev/interop/go")).args(["run", ".", "fetch"]);
        go.args([&prefix(&whole, &log), &vkey]).env("LEDGER_KEY", key);
        run(go)
    };
    let said = fetch(auditor.key())?;
    ensure!(said.contains(&format!("checked {} entries", log.size())), "{said}");
    ensure!(fetch("no key").is_err(), "a stranger reads the log");
    // A tile that somebody changed is no proof.
    sqlx::query(
        "update read_model_1.log_tile set bytes = set_byte(bytes, 100, get_byte(bytes, 100) # 1) where level = 0",
    )
    .execute(&whole.pool)
    .await?;
    ensure!(fetch(auditor.key()).is_err(), "a changed tile was not found");
    whole.stop().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python with aics-tlog; `.ci/run` runs it"]
async fn python_reads_a_public_log() -> Result<()> {
    let whole = Whole::start_with(&["--audit-public", "--checkpoint-seconds", "1"]).await?;
    let log = filled(&whole, 300).await?;
    signed(&whole, &log).await?;
    let vkey = vkey(&whole, &log).await?;
    let folder = tempfile::tempdir()?;
    let kept = folder.path().join("kept");
    let kept = kept.to_str().context("a path in UTF-8")?;
    let tool = |arguments: &[&str]| {
        let mut python = Command::new(Path::new(ROOT).join("target/interop/bin/aics-tlog"));
        python.args(arguments).args(["--tiles", &prefix(&whole, &log), "--log-key", &vkey]);
        run(python)
    };
    tool(&["verify-checkpoint", "--save-checkpoint", kept])?;
    let topic = whole.kafka.topics().events;
    let appender = Appender::new(&whole.kafka, &topic, whole.kafka.partitions)?;
    for stored in appender.append_all(&vec![("acme", "no event"); 300]).await {
        stored?;
    }
    let log = Log::of(&whole, log.partition).await?;
    signed(&whole, &log).await?;
    tool(&["verify-consistency", "--old-checkpoint", kept])?;
    let hash = hex::encode(log.entries[301].leaf_hash().0);
    tool(&["verify-inclusion", "--leaf-hash", &hash, "--index", "301"])?;
    ensure!(tool(&["verify-inclusion", "--leaf-hash", &hash, "--index", "302"]).is_err());
    whole.stop().await
}
