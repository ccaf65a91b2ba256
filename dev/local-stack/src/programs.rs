//! Finds the programs of this machine that the stack needs, and says in one sentence what to install where one is missing.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::timeout;

use crate::process::log_tail;

/// Kafka 4 runs on Java 17 and newer.
pub(crate) const JAVA_MAJOR_MIN: u32 = 17;
/// The oldest PostgreSQL the migrations are written for.
pub(crate) const POSTGRES_MAJOR_MIN: u32 = 15;

const JAVA_MISSING: &str = "Kafka needs Java 17 or newer: install it (Debian and Ubuntu: apt-get install default-jre-headless; macOS: brew install openjdk), or set JAVA_HOME, or KAFKA_BROKERS to a Kafka that runs";
const MAVEN_MISSING: &str = "the first start fetches its programs with Maven, and `mvn` was not found: install it (Debian and Ubuntu: apt-get install maven; macOS: brew install maven)";
const XZ_MISSING: &str = "no PostgreSQL 15 or newer was found, and unpacking the one that Maven fetched needs `tar` and `xz`: install them (Debian and Ubuntu: apt-get install xz-utils), or install PostgreSQL (apt-get install postgresql)";

/// A Java of at least the required version.
#[derive(Debug, Clone)]
pub(crate) struct Java {
    pub program: PathBuf,
    pub major: u32,
}

/// A folder with `initdb` and `postgres` of one version.
#[derive(Debug, Clone)]
pub(crate) struct PostgresBinaries {
    pub folder: PathBuf,
    pub major: u32,
}

/// Finds Java: `JAVA_HOME` first, then the PATH.
pub(crate) fn java() -> Result<Java> {
    let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    let candidates = home.into_iter().chain(on_path("java"));
    let mut too_old = None;
    for program in candidates {
        match java_major(&program) {
            Some(major) if major >= JAVA_MAJOR_MIN => return Ok(Java { program, major }),
            Some(major) => too_old = Some((program, major)),
            None => {}
        }
    }
    match too_old {
        Some((program, major)) => bail!("{} is Java {major}; {JAVA_MISSING}", program.display()),
        None => bail!(JAVA_MISSING),
    }
}

/// Finds Maven on the PATH.
pub(crate) fn maven() -> Result<PathBuf> {
    on_path("mvn").next().context(MAVEN_MISSING)
}

/// Checks that an xz archive can be unpacked here.
pub(crate) fn tar_with_xz() -> Result<PathBuf> {
    let tar = on_path("tar").next();
    let xz = on_path("xz").next();
    tar.zip(xz).map(|(tar, _)| tar).context(XZ_MISSING)
}

/// Finds the PostgreSQL installed here, the newest first, or the one of `major` where data of that version exist.
pub(crate) fn installed_postgres(major: Option<u32>) -> Option<PostgresBinaries> {
    let mut found: Vec<PostgresBinaries> = postgres_folders()
        .iter()
        .filter_map(|folder| postgres_in(folder))
        .filter(|binaries| binaries.major >= POSTGRES_MAJOR_MIN)
        .filter(|binaries| major.is_none_or(|major| binaries.major == major))
        .collect();
    found.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
    found.into_iter().next()
}

/// Returns the binaries in this folder if there is a whole server in it.
pub(crate) fn postgres_in(folder: &Path) -> Option<PostgresBinaries> {
    // A link on the PATH leads to the folder where the server finds its libraries.
    let server = folder.join("postgres").canonicalize().or_else(|_| {
        let initdb = folder.join("initdb").canonicalize()?;
        initdb.with_file_name("postgres").canonicalize()
    });
    let server = server.ok()?;
    let folder = server.parent()?.to_path_buf();
    if !is_program(&folder.join("initdb")) {
        return None;
    }
    let text = version_text(&server, "--version")?;
    let major = postgres_major(&text)?;
    Some(PostgresBinaries { folder, major })
}

fn postgres_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = path_folders().collect();
    for (parent, inside) in [
        ("/usr/lib/postgresql", "bin"),
        ("/usr", "bin"),
        ("/usr/local", "pgsql/bin"),
        ("/opt/homebrew/opt", "bin"),
        ("/usr/local/opt", "bin"),
        ("/Library/PostgreSQL", "bin"),
    ] {
        folders.extend(folders_named_after_postgres(Path::new(parent), inside));
    }
    folders
}

/// `/usr/lib/postgresql/17/bin`, `/usr/pgsql-17/bin` (Red Hat), `/opt/homebrew/opt/postgresql@17/bin` and their like.
fn folders_named_after_postgres(parent: &Path, inside: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("postgresql")
                || name.starts_with("pgsql")
                || name.bytes().all(|b| b.is_ascii_digit())
        })
        .map(|path| path.join(inside))
        .collect()
}

fn java_major(program: &Path) -> Option<u32> {
    // `java -version` writes to standard error, everywhere and always.
    parse_java_major(&version_text(program, "-version")?)
}

fn parse_java_major(text: &str) -> Option<u32> {
    let version = text.split('"').nth(1)?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    let first: u32 = numbers.next()?.parse().ok()?;
    // Until Java 8 the version began with "1.".
    if first == 1 {
        return numbers.next()?.parse().ok();
    }
    Some(first)
}

fn postgres_major(text: &str) -> Option<u32> {
    let version = text.split_once("(PostgreSQL) ")?.1;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn version_text(program: &Path, flag: &str) -> Option<String> {
    let output = Command::new(program)
        .arg(flag)
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn path_folders() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.into_iter()
}

fn on_path(name: impl AsRef<OsStr>) -> impl Iterator<Item = PathBuf> {
    let name = name.as_ref().to_owned();
    path_folders().map(move |folder| folder.join(&name)).filter(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs a program to its end, its output going to `log`; fails past `limit`, quoting the log.
pub(crate) async fn run(
    name: &str,
    mut command: tokio::process::Command,
    log: &Path,
    limit: Duration,
) -> Result<()> {
    let output =
        std::fs::File::create(log).with_context(|| format!("cannot write the log {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    match timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => bail!("{name} failed ({status}); {}", log_tail(log)),
        Ok(Err(error)) => Err(error).with_context(|| format!("cannot wait for {name}")),
        Err(_) => bail!("{name} did not finish within {} s; {}", limit.as_secs(), log_tail(log)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_java_version_is_read_in_its_old_and_its_new_form() {
        let check = |text: &str, expected| assert_eq!(parse_java_major(text), expected, "{text}");
        check("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK", Some(17));
        check("java version \"21\" 2023-09-19 LTS", Some(21));
        check("openjdk version \"22-ea\" 2024-03-19", Some(22));
        check("java version \"1.8.0_392\"", Some(8));
        check("The operation couldn't be completed.", None);
    }

    #[test]
    fn a_postgres_version_is_read_in_every_packagers_form() {
        let check = |text: &str, expected| assert_eq!(postgres_major(text), expected, "{text}");
        check("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)\n", Some(15));
        check("postgres (PostgreSQL) 18beta1\n", Some(18));
        check("postgres (PostgreSQL) 18.1", Some(18));
        check("mysqld 8.0", None);
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_ended_and_its_log_quoted() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", "echo waiting for the moon; sleep 30"]);
        let error = run("moon", command, &folder.path().join("log"), Duration::from_secs(3))
            .await
            .expect_err("too slow")
            .to_string();
        assert!(error.contains("moon did not finish") && error.contains("waiting for the moon"), "{error}");
    }
}
