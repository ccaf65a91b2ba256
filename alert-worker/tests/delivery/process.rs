//! A worker in a process of its own, as in production, which a test kills or lets abort.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use alert_worker::Config;
use anyhow::{Context, Result, ensure};
use clap::Parser;
use platform::kafka::KafkaOptions;
use platform::pg::PgConfig;
use platform::{shutdown, telemetry};
use tokio::time::{Instant, sleep};
use web::http::{Deps, HttpConfig};

use crate::fixture::{FROM, Fixture, WAIT_MAX};

/// The path of `worker_process` in this test program.
const WORKER_TEST: &str = "process::worker_process";
/// Makes the process run the worker.
const RUN_WORKER: &str = "LEDGER_TEST_RUN_WORKER";

/// Settings of the worker's process, all by environment as in production.
#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    http: HttpConfig,
    #[command(flatten)]
    postgres: PgConfig,
    #[command(flatten)]
    kafka: KafkaOptions,
    #[command(flatten)]
    config: Config,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "no test: runs the worker in the process that a test starts for it"]
async fn worker_process() -> Result<()> {
    if std::env::var_os(RUN_WORKER).is_none() {
        return Ok(());
    }
    let Settings { http, postgres, kafka, config } = Settings::parse_from(["alert-worker"]);
    telemetry::init();
    let shutdown = shutdown::on_signal()?;
    let service = alert_worker::build(config, &Deps::new(postgres, kafka), &shutdown).await?;
    service.run(&http, shutdown).await
}

pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Waits until the process ends by itself.
    pub async fn ended(&mut self) -> Result<()> {
        let end = Instant::now() + WAIT_MAX;
        while self.0.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "the worker lives on");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Fixture {
    /// Starts a worker as production does; it aborts at this failpoint.
    pub fn work_until(&self, failpoint: &str, smtp_url: &str) -> Result<Process> {
        self.work_apart(smtp_url, &[("LEDGER_FAILPOINT", failpoint)])
    }

    /// Starts a worker as production does, with these variables.
    pub fn work_apart(&self, smtp_url: &str, variables: &[(&str, &str)]) -> Result<Process> {
        let child = Command::new(std::env::current_exe()?)
            .args([WORKER_TEST, "--exact", "--ignored", "--nocapture"])
            .env(RUN_WORKER, "1")
            .env("LEDGER_LISTEN", "127.0.0.1:0")
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
