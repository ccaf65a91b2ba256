//! The data directory of a stack: one owner at a time, and the ports that the stack keeps.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::account::create_passable;

/// Below the range that systems give to outgoing connections (32768 and up on Linux): a client that keeps calling a
/// stopped broker's port could otherwise be given that very port and connect to itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const PORT_TRIES_MAX: usize = 200;
const LOCK_FILE: &str = "lock";
const PORTS_FILE: &str = "ports.json";
/// How often to retry a lock in use, and the wait between.
const LOOKS_MAX: usize = 20;
const LOOK: Duration = Duration::from_millis(25);

/// A data directory that belongs to this process until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// The kernel releases the lock when the process ends, however it ends.
    lock: File,
}

/// The loopback ports of one stack, chosen once and kept, so that clients find it again after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub kafka: u16,
    pub kafka_controller: u16,
    pub postgres: u16,
}

impl DataDir {
    /// Creates the directory if necessary and locks it; fails when another process has it.
    pub(crate) fn take(path: &Path) -> Result<DataDir> {
        // Others may pass through, but not list: PostgreSQL's own folder below may belong to another user.
        create_passable(path)?;
        let path = path.canonicalize()?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK_FILE))
            .with_context(|| format!("cannot write in the data directory {}", path.display()))?;
        match try_lock(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "the data directory {} is in use by another ledger{}: stop that one or choose another --data-dir",
                path.display(),
                owner(&mut lock)
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        lock.set_len(0)?;
        write!(lock, "{}", std::process::id())?;
        Ok(DataDir { path, lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the remembered ports, if a stack has run here before.
    pub(crate) fn remembered_ports(&self) -> Option<Ports> {
        remembered_ports_of(&self.path)
    }

    /// Writes down the ports for the next start.
    pub(crate) fn remember_ports(&self, ports: Ports) -> Result<()> {
        let text = serde_json::to_vec_pretty(&ports)?;
        write_whole(&self.path.join(PORTS_FILE), &text, 0o644)
    }
}

impl Drop for DataDir {
    /// Unlocks explicitly: a child that another thread is just starting may hold a copy of the file for a moment.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

/// Locks exclusively; a process that only checks whether the lock is held takes it for a moment.
fn try_lock(lock: &File) -> Result<(), TryLockError> {
    for _ in 0..LOOKS_MAX {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK),
            other => return other,
        }
    }
    lock.try_lock()
}

/// Returns the ports that a data directory remembers.
pub(crate) fn remembered_ports_of(path: &Path) -> Option<Ports> {
    serde_json::from_slice(&fs::read(path.join(PORTS_FILE)).ok()?).ok()
}

/// Returns the id of the process that holds the data directory, if one does.
pub(crate) fn holder(path: &Path) -> Option<String> {
    let mut lock = File::open(path.join(LOCK_FILE)).ok()?;
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            lock.read_to_string(&mut text).ok()?;
            Some(text)
        }
        _ => None,
    }
}

fn owner(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.read_to_string(&mut text) {
        Ok(length) if length > 0 => format!(" (process {text})"),
        _ => String::new(),
    }
}

/// Writes a small file whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let _ = fs::remove_file(&part);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&part)
        .with_context(|| format!("cannot write {}", part.display()))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Returns `wanted` if it is free, else a free port that is none of `taken`.
pub(crate) fn free_port(wanted: Option<u16>, taken: &[u16]) -> Result<u16> {
    if let Some(port) = wanted
        && is_free(port)
    {
        return Ok(port);
    }
    let mut random = rand::rng();
    for _ in 0..PORT_TRIES_MAX {
        let port = random.random_range(PORTS);
        if !taken.contains(&port) && is_free(port) {
            return Ok(port);
        }
    }
    bail!("found no free loopback port between {} and {}", PORTS.start, PORTS.end)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_owner_at_a_time() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("data");
        let first = DataDir::take(&path).expect("taken");
        let error = DataDir::take(&path).expect_err("refused").to_string();
        assert!(error.contains("in use by another ledger"), "{error}");
        assert!(error.contains(&std::process::id().to_string()), "the sentence names the owner: {error}");
        drop(first);
        DataDir::take(&path).expect("free again");
    }

    #[test]
    fn ports_are_kept_unless_somebody_took_them() {
        let first = free_port(None, &[]).expect("a port");
        assert_eq!(free_port(Some(first), &[]).expect("a port"), first);
        let _other = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).expect("bound");
        assert_ne!(free_port(Some(first), &[]).expect("a port"), first);
    }

    #[test]
    fn ports_survive_in_the_data_directory() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = DataDir::take(folder.path()).expect("taken");
        assert_eq!(data.remembered_ports(), None);
        let ports = Ports { kafka: 20_001, kafka_controller: 20_002, postgres: 20_003 };
        data.remember_ports(ports).expect("written");
        assert_eq!(data.remembered_ports(), Some(ports));
    }
}
