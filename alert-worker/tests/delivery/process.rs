//! A worker in a process of its own, as in production, which a test kills or lets abort.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep};

use crate::place::{FROM, Place, WAIT_MAX};

/// A worker in a process of its own.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> Result<()> {
        let end = Instant::now() + WAIT_MAX;
        while self.0.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "the worker lives on");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Place {
    /// Starts a worker as production does, which aborts at a failpoint.
    pub fn work_until(&self, failpoint: &str, smtp_url: &str) -> Result<Process> {
        self.work_apart(smtp_url, &[("LEDGER_FAILPOINT", failpoint)])
    }

    /// Starts a worker as production does, with these variables.
    pub fn work_apart(&self, smtp_url: &str, variables: &[(&str, &str)]) -> Result<Process> {
        let child = Command::new(env!("CARGO_BIN_EXE_alert-worker"))
            .args(["--listen", "127.0.0.1:0"])
            .env("DATABASE_URL", &self.space.database_url)
            .env("KAFKA_BROKERS", &self.kafka.brokers)
            .env("LEDGER_TOPIC_PREFIX", &self.kafka.topic_prefix)
            .env("LEDGER_PARTITIONS", self.kafka.partitions.to_string())
            .env("LEDGER_SMTP_URL", smtp_url)
            .env("LEDGER_MAIL_FROM", FROM)
            .envs(variables.iter().copied())
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("the worker does not start")?;
        Ok(Process(child))
    }
}
