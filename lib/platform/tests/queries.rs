//! The queries that are checked at compile time: `.sqlx` must hold what the newest tables say of each of them.
//!
//! After a change of such a query or of its tables, write `.sqlx` anew:
//!
//! ```text
//! LEDGER_PREPARE_QUERIES=1 cargo test --workspace --test queries -- --ignored
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use local_stack::TestSpace;
use platform::pg;
use tokio::process::Command;

local_stack::shared_test_stack!();

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// The crates that have checked queries.
const CRATES: [&str; 6] =
    ["lib/engine", "lib/web", "lib/payments", "lib/contacts", "command-api", "alert-worker"];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: compiles the crates with checked queries once more; .ci/run runs it before it compiles the tests"]
async fn what_is_committed_of_checked_queries_is_what_the_tables_say() -> Result<()> {
    let space = TestSpace::new().await?;
    let pool = pg::connect(&space.database_url, "test", 2).await?;
    pg::migrate(&pool).await?;
    let committed = Path::new(ROOT).join(".sqlx");
    let described = tempfile::tempdir()?;
    describe(&space.database_url, described.path()).await?;
    if std::env::var_os("LEDGER_PREPARE_QUERIES").is_some() {
        replace(&committed, described.path())?;
    }
    let (committed, described) = (queries(&committed)?, queries(described.path())?);
    let differing: Vec<&str> = described
        .iter()
        .filter(|(name, text)| committed.get(*name) != Some(text))
        .map(|(name, _)| name.as_str())
        .collect();
    ensure!(differing.is_empty(), "not in .sqlx as the tables have them: {differing:?}");
    let stale: Vec<&String> = committed.keys().filter(|name| !described.contains_key(*name)).collect();
    ensure!(stale.is_empty(), "in .sqlx, and no query any more: {stale:?}");
    Ok(())
}

/// Compiles the crates against the database, which writes one file for each query.
async fn describe(database_url: &str, into: &Path) -> Result<()> {
    for folder in CRATES {
        // Cargo compiles anew only what is newer than its last result.
        let root = Path::new(ROOT).join(folder).join("src/lib.rs");
        File::options().append(true).open(root)?.set_modified(SystemTime::now())?;
    }
    let status = Command::new(env!("CARGO"))
        .args(["check", "--locked", "--workspace"])
        .current_dir(ROOT)
        .env("SQLX_OFFLINE", "false")
        .env("DATABASE_URL", database_url)
        .env("SQLX_OFFLINE_DIR", into)
        .status()
        .await
        .context("cargo does not run")?;
    ensure!(status.success(), "the crates do not compile against the newest tables");
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

fn queries(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut queries = BTreeMap::new();
    for file in files(folder)? {
        let name = file.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        queries.insert(name, fs::read_to_string(&file)?.trim_end().to_owned());
    }
    Ok(queries)
}

fn replace(committed: &Path, described: &Path) -> Result<()> {
    fs::create_dir_all(committed)?;
    for file in files(committed)? {
        fs::remove_file(file)?;
    }
    for file in files(described)? {
        fs::copy(&file, committed.join(file.file_name().context("a file has a name")?))?;
    }
    Ok(())
}
