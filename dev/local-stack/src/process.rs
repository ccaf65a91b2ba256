//! One child process of the stack: started in a group of its own, found again after a crash of its parent, stopped within a limit.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::account::Account;

/// How long a process gets for an orderly stop before it is killed.
const STOP_MAX: Duration = Duration::from_secs(30);
/// How long a killed process may take to end; past this the machine itself is in trouble.
const KILL_MAX: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(50);
/// How much of a child's log an error quotes.
const LOG_TAIL_BYTES_MAX: u64 = 4096;
const LOG_TAIL_LINES_MAX: usize = 20;
/// A log past this size is set aside (one old file is kept) when its process starts.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How to start a process, and how to recognise it later.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub name: &'static str,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub identity: Identity,
    /// The unprivileged account it runs under, where the parent is root and the program refuses that.
    pub account: Option<Account>,
    /// Its working directory.
    pub folder: PathBuf,
    pub log: PathBuf,
    /// The signal that asks for an orderly stop.
    pub stop_signal: Signal,
    /// The signal that ends it within moments, as a crash would, and leaves nothing running that it started.
    pub crash_signal: Signal,
}

/// Two words of a command line that together belong to one process of one data directory and to no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The end of one argument: the program or its main class.
    pub program: &'static str,
    /// One whole argument: a path inside the data directory.
    pub path: String,
}

impl Identity {
    fn matches(&self, arguments: &[String]) -> bool {
        arguments.iter().any(|word| word.ends_with(self.program)) && arguments.contains(&self.path)
    }

    /// Finds the running process with these words; of several (a fork not yet renamed), the oldest.
    pub(crate) fn find(&self) -> Option<Found> {
        let mut found: Vec<Found> =
            running_processes().into_iter().filter(|process| self.matches(&process.arguments)).collect();
        found.sort_by_key(|process| process.pid);
        found.into_iter().next()
    }

    fn is_running(&self, pid: Pid) -> bool {
        running_process(pid).is_some_and(|process| self.matches(&process.arguments))
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub pid: Pid,
    pub arguments: Vec<String>,
}

/// A running process of the stack, started by us or taken over from a parent that crashed.
#[derive(Debug)]
pub(crate) struct Process {
    plan: Plan,
    pid: Pid,
    /// Present where we are the parent, and so have to reap it.
    child: Option<tokio::process::Child>,
    ended: bool,
}

impl Process {
    /// Starts the process in its own group, so that Ctrl-C at a terminal reaches only us and we stop it in order.
    pub(crate) fn start(plan: Plan) -> Result<Process> {
        set_aside_large_log(&plan.log)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&plan.log)
            .with_context(|| format!("cannot write the log {}", plan.log.display()))?;
        let mut command = tokio::process::Command::new(&plan.program);
        command
            .args(&plan.arguments)
            .current_dir(&plan.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        if let Some(account) = &plan.account {
            command.uid(account.uid).gid(account.gid);
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {} ({})", plan.name, plan.program.display()))?;
        let pid = child.id().context("a process that was just started has no id")?;
        Ok(Process { plan, pid: pid_from(pid)?, child: Some(child), ended: false })
    }

    /// Adopts a process that a crashed parent left running.
    pub(crate) fn adopt(plan: Plan, found: &Found) -> Process {
        Process { plan, pid: found.pid, child: None, ended: false }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Says whether the process still runs; reaps it if it was ours and has ended.
    pub(crate) fn is_running(&mut self) -> bool {
        if !self.ended {
            self.ended = match &mut self.child {
                Some(child) => !matches!(child.try_wait(), Ok(None)),
                None => !self.plan.identity.is_running(self.pid),
            };
        }
        !self.ended
    }

    /// Waits until `probe` succeeds, and fails when the process ends or `limit` passes, quoting its log.
    pub(crate) async fn wait_until_ready<F, P>(&mut self, limit: Duration, probe: F) -> Result<()>
    where
        F: Fn() -> P,
        P: Future<Output = Result<()>>,
    {
        let deadline = Instant::now() + limit;
        loop {
            let answer = probe().await;
            let Err(reason) = answer else { return Ok(()) };
            if !self.is_running() {
                bail!("{} ended while starting; {}", self.plan.name, self.log_tail());
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} was not ready after {} s ({reason:#}); {}",
                    self.plan.name,
                    limit.as_secs(),
                    self.log_tail()
                );
            }
            sleep(POLL_EVERY).await;
        }
    }

    /// Asks for an orderly stop, and kills past the limit.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.stop_by(self.plan.stop_signal).await
    }

    /// Sends `signal`, which should end the process, and kills past the limit.
    pub(crate) async fn stop_by(&mut self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        self.send(signal);
        if self.wait_until_gone(STOP_MAX).await {
            return Ok(());
        }
        self.kill().await
    }

    /// Kills at once, as a crash would.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        self.send(Signal::SIGKILL);
        if self.wait_until_gone(KILL_MAX).await {
            return Ok(());
        }
        bail!(
            "{} (process {}) is still there {} s after SIGKILL",
            self.plan.name,
            self.pid,
            KILL_MAX.as_secs()
        )
    }

    async fn wait_until_gone(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_running() {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(POLL_EVERY).await;
        }
        true
    }

    /// A process that has just ended is no error: the caller checks whether it is gone.
    fn send(&self, signal: Signal) {
        let _ = signal::kill(self.pid, signal);
    }

    fn log_tail(&self) -> String {
        log_tail(&self.plan.log)
    }
}

/// Ends the process with this identity, if one runs; nothing of it is kept.
pub(crate) async fn stop_left_behind(identity: &Identity) -> Result<()> {
    let deadline = Instant::now() + KILL_MAX;
    while let Some(found) = identity.find() {
        let _ = signal::kill(found.pid, Signal::SIGKILL);
        if Instant::now() >= deadline {
            bail!("process {} is still there after SIGKILL", found.pid);
        }
        sleep(POLL_EVERY).await;
    }
    Ok(())
}

impl Drop for Process {
    /// A dropped stack (a failed or interrupted start, a panic) must not stay behind, and nothing waits for it
    /// here: an orderly stop takes seconds, in which the next start would adopt a process that is ending.
    fn drop(&mut self) {
        if self.is_running() {
            self.send(self.plan.crash_signal);
        }
    }
}

fn pid_from(id: u32) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(id).context("process id out of range")?))
}

/// Says whether any process bears this id, ours or not.
pub(crate) fn exists(pid: Pid) -> bool {
    !matches!(signal::kill(pid, None), Err(nix::errno::Errno::ESRCH))
}

/// Returns one process with its arguments, if it runs; a zombie has none and does not count.
pub(crate) fn running_process(pid: Pid) -> Option<Found> {
    if !Path::new("/proc/self/cmdline").exists() {
        return processes_by_ps().into_iter().find(|process| process.pid == pid);
    }
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = split_arguments(&bytes);
    (!arguments.is_empty()).then_some(Found { pid, arguments })
}

fn running_processes() -> Vec<Found> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return processes_by_ps();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| running_process(Pid::from_raw(pid)))
        .collect()
}

fn split_arguments(bytes: &[u8]) -> Vec<String> {
    bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// For systems without /proc (macOS). Words with blanks are split there, so such a process is restarted, not adopted.
fn processes_by_ps() -> Vec<Found> {
    let output = std::process::Command::new("ps").args(["-A", "-ww", "-o", "pid=,command="]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().lines().filter_map(parse_ps_line).collect()
}

fn parse_ps_line(line: &str) -> Option<Found> {
    let mut words = line.split_whitespace();
    let pid = Pid::from_raw(words.next()?.parse().ok()?);
    Some(Found { pid, arguments: words.map(str::to_owned).collect() })
}

fn set_aside_large_log(log: &Path) -> Result<()> {
    if log.metadata().is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
        std::fs::rename(log, log.with_extension("old.log"))?;
    }
    Ok(())
}

/// Returns the last lines of a log, with its path, to quote in an error.
pub(crate) fn log_tail(log: &Path) -> String {
    let text = read_tail(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_TAIL_LINES_MAX);
    format!("the end of {}:\n{}", log.display(), lines[from..].join("\n"))
}

fn read_tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command_line: &[u8], expected: bool) {
        let identity = Identity { program: "kafka.Kafka", path: "/data/kafka/server.properties".into() };
        let arguments = split_arguments(command_line);
        assert_eq!(identity.matches(&arguments), expected, "{arguments:?}");
    }

    #[test]
    fn only_the_process_of_this_data_directory_is_taken_over() {
        check(b"java\0-Xmx1g\0kafka.Kafka\0/data/kafka/server.properties\0", true);
        check(b"java\0kafka.Kafka\0/other/data/kafka/server.properties\0", false);
        check(b"vim\0/data/kafka/server.properties\0", false);
        check(b"", false);
    }

    #[test]
    fn an_error_quotes_only_the_end_of_a_log() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("kafka.log");
        let lines: Vec<String> = (0..1000).map(|n| format!("line {n}")).collect();
        std::fs::write(&log, lines.join("\n")).expect("written");
        let tail = log_tail(&log);
        assert!(tail.ends_with("line 999"), "{tail}");
        assert!(!tail.contains("line 900"), "{tail}");
    }
}
