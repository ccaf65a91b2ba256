//! What Maven fetches for the stack: Kafka's jars and, where no PostgreSQL is installed, its binaries.
//!
//! This program contains the `pom.xml` with the pinned versions. It fetches them once into the user's
//! cache, in a folder named after the file's hash, so that a changed version is fetched anew.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::account::{Account, create_passable, reachable_folder};
use crate::programs::{self, PostgresBinaries};

const POM: &str = include_str!("../pom.xml");
/// Generous, because it is a download: 45 MB for Kafka, 15 MB for PostgreSQL.
const FETCH_MAX: Duration = Duration::from_secs(900);
const UNPACK_MAX: Duration = Duration::from_secs(120);
/// Root's cache, which other accounts must be able to reach.
const PUBLIC_CACHE: &str = "/var/cache/ledger";

/// Returns the folder that Kafka's jars are in once they are fetched.
pub(crate) fn kafka_jars_folder() -> Result<PathBuf> {
    Ok(cache_folder()?.join(format!("kafka-{}", pom_key())))
}

/// Returns the folder of Kafka's jars, fetching them first if need be.
pub(crate) async fn kafka_jars(progress: &(dyn Fn(&str) + Send + Sync)) -> Result<PathBuf> {
    let folder = kafka_jars_folder()?;
    if folder.exists() {
        return Ok(folder);
    }
    let maven = programs::maven()?;
    let _lock = FetchLock::take(cache_folder()?).await?;
    if !folder.exists() {
        progress("fetching Kafka with Maven, once (about 45 MB)");
        let part = Part::next_to(&folder)?;
        part.fetch(&maven, "kafka", "copy-dependencies").await?;
        part.keep(&folder)?;
    }
    Ok(folder)
}

/// Returns the folder of the fetched PostgreSQL, whether or not it is there.
pub(crate) fn fetched_postgres_folder(account: Option<&Account>) -> Result<PathBuf> {
    let wanted = cache_folder()?.join(format!("postgres-{}", pom_key()));
    reachable_folder(account, &wanted, Path::new(PUBLIC_CACHE))
}

/// Returns the fetched PostgreSQL, fetching and unpacking it first if need be.
pub(crate) async fn fetched_postgres(
    account: Option<&Account>,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<PostgresBinaries> {
    let folder = fetched_postgres_folder(account)?;
    if !folder.exists() {
        let tar = programs::tar_with_xz()?;
        let maven = programs::maven()?;
        let _lock = FetchLock::take(cache_folder()?).await?;
        if !folder.exists() {
            progress("fetching PostgreSQL with Maven, once (about 15 MB)");
            let part = Part::next_to(&folder)?;
            part.fetch(&maven, "postgres", "unpack-dependencies").await?;
            part.unpack_archive(&tar).await?;
            part.keep(&folder)?;
        }
    }
    programs::postgres_in(&folder.join("bin")).with_context(|| {
        format!(
            "the PostgreSQL in {} does not run here: remove that folder, or install PostgreSQL 15 or newer",
            folder.display()
        )
    })
}

/// A folder that Maven works in, next to the final one, so that the rename that ends a fetch stays on one file system.
struct Part {
    folder: PathBuf,
    /// What becomes the final folder.
    content: PathBuf,
}

impl Part {
    /// Makes it with a name of its own: a Maven that a killed parent left behind may still write into an older one.
    fn next_to(folder: &Path) -> Result<Part> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!("{name}.part-");
        let parent = folder.parent().context("a cache folder has a parent")?;
        remove_interrupted(parent, &prefix);
        let part = parent.join(format!("{prefix}{}", std::process::id()));
        let content = part.join("content");
        create_passable(&content)?;
        fs::set_permissions(&content, fs::Permissions::from_mode(0o755))?;
        Ok(Part { folder: part, content })
    }

    async fn fetch(&self, maven: &Path, profile: &str, goal: &str) -> Result<()> {
        let pom = self.folder.join("pom.xml");
        fs::write(&pom, POM)?;
        let mut command = Command::new(maven);
        // Strict checksums: a damaged download is an error, not a warning.
        command.args(["-B", "-q", "-C", "-P", profile, "-f"]).arg(&pom);
        command.arg(format!("dependency:{goal}"));
        command.arg(format!("-DoutputDirectory={}", self.content.display()));
        if let Some(platform) = postgres_platform() {
            command.arg(format!("-Dpostgres.platform={platform}"));
        }
        programs::run("mvn", command, &self.folder.join("mvn.log"), FETCH_MAX).await
    }

    async fn unpack_archive(&self, tar: &Path) -> Result<()> {
        let archive = fs::read_dir(&self.content)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|end| end == "txz"))
            .with_context(|| {
                format!("the fetched PostgreSQL has no archive in {}", self.content.display())
            })?;
        let mut command = Command::new(tar);
        command.args(["--no-same-owner", "-xJf"]).arg(&archive).arg("-C").arg(&self.content);
        programs::run("tar", command, &self.folder.join("tar.log"), UNPACK_MAX).await?;
        Ok(fs::remove_file(&archive)?)
    }

    fn keep(self, folder: &Path) -> Result<()> {
        fs::rename(&self.content, folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(fs::remove_dir_all(&self.folder)?)
    }
}

/// Best effort: a folder that stays only takes disk space.
fn remove_interrupted(parent: &Path, prefix: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn postgres_platform() -> Option<&'static str> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "aarch64") => Some("linux-arm64v8"),
        ("macos", "x86_64") => Some("darwin-amd64"),
        ("macos", "aarch64") => Some("darwin-arm64v8"),
        _ => None,
    }
}

fn pom_key() -> String {
    hex::encode(&Sha256::digest(POM)[..6])
}

fn cache_folder() -> Result<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(cache) = named("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(cache).join("ledger"));
    }
    match named("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".cache/ledger")),
        None => bail!(
            "neither XDG_CACHE_HOME nor HOME is set: set one, the programs of the stack are kept below it"
        ),
    }
}

/// Held while fetching, so that two processes never write to one folder.
struct FetchLock {
    _file: File,
}

impl FetchLock {
    async fn take(cache: PathBuf) -> Result<FetchLock> {
        fs::create_dir_all(&cache).with_context(|| format!("cannot create the cache {}", cache.display()))?;
        let path = cache.join("fetch.lock");
        let file =
            File::create(&path).with_context(|| format!("cannot write in the cache {}", cache.display()))?;
        // Waits for another process that fetches the same; that one has its own time limit.
        let file = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await??;
        Ok(FetchLock { _file: file })
    }
}
