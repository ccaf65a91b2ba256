//! Memory: the peak of each service, as a process of its own, while an account has a million users and one edit of a
//! rule affects all of them.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use platform::http_client;
use platform::kafka::Journal;
use platform::pg::PgPool;
use serde_json::json;

use crate::environment::{Environment, KEY};
use crate::load;
use crate::measured::Measured;

/// Users of the one account.
const USERS: usize = 1_000_000;
/// Records appended at once.
const APPEND_EVENTS: usize = 20_000;
const READY_MAX: Duration = Duration::from_secs(60);
const FOLDED_MAX: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(100);
const SERVICES: [&str; 4] = ["projector", "command-api", "alert-worker", "query-api"];

/// Measures the four services empty, then after a million users.
pub async fn run() -> Result<Vec<Measured>> {
    let environment = Environment::new().await?;
    let measured = measure(&environment).await;
    environment.leave().await?;
    measured
}

async fn measure(environment: &Environment) -> Result<Vec<Measured>> {
    let (pool, identity) = environment.prepare().await?;
    let journal = Journal::new(&environment.kafka, identity)?;
    let mut services = Vec::new();
    for name in SERVICES {
        let service = Service::start(name, environment)?;
        service.ready().await?;
        services.push(service);
    }
    let [_, command, _, query] = &services[..] else { bail!("four services") };
    command.put("/v1/rate-cards/bench", &load::rate_card()).await?;
    command.post("/v1/accounts", &load::opening("account-0", "live")).await?;
    work(command, query).await?;
    let empty: Vec<f64> = services.iter().map(Service::peak).collect::<Result<_>>()?;

    for first in (0..USERS).step_by(APPEND_EVENTS) {
        let records: Vec<_> =
            (first..first + APPEND_EVENTS).map(|n| (load::account(0), load::recorded(0, n, n))).collect();
        for appended in journal.append_all(&records).await {
            appended?;
        }
    }
    wait_until_folded(&pool, &journal).await?;
    work(command, query).await?;
    // Every user is past this limit.
    command
        .put("/v1/accounts/account-0/limits", &json!({"default_limit": "0.1", "notify": ["carl"]}))
        .await?;
    wait_until_folded(&pool, &journal).await?;
    services
        .iter()
        .zip(empty)
        .map(|(service, empty)| {
            Ok(Measured {
                more: json!({"service": service.name, "users": USERS}),
                ..Measured::new(
                    "memory",
                    "MB at peak",
                    service.peak()?,
                    ("the same process before the users came", empty),
                    "what a batch touches, not what an account has: under 512 MB",
                )
            })
        })
        .collect()
}

/// Makes the API services do some of everything.
async fn work(command: &Service, query: &Service) -> Result<()> {
    let now = platform::clock::now().to_string();
    for number in 0..100 {
        let event = load::offered(0, number, USERS + number, &now);
        let event: serde_json::Value = serde_json::from_str(&event)?;
        command.send("/v1/events", "application/cloudevents+json", &event).await?;
    }
    for path in ["balance", "usage?group_by=user", "users?limit=500", "periods", "entries", "grants"] {
        query.get(&format!("/v1/accounts/account-0/{path}")).await?;
    }
    Ok(())
}

/// Waits until the read model and the alerts are folded to the journal's ends.
async fn wait_until_folded(pool: &PgPool, journal: &Journal) -> Result<()> {
    let deadline = Instant::now() + FOLDED_MAX;
    let account = load::account(0);
    let end = journal.end(journal.partition_of(account.as_str())).await?;
    loop {
        let next: i64 = sqlx::query_scalar(
            "select least(projected.next_offset, evaluated.next_offset)
             from read_model_1.checkpoint as projected
             join alerting_1.checkpoint   as evaluated using (partition)
             where partition = $1",
        )
        .bind(end.partition)
        .fetch_one(pool)
        .await?;
        if next >= end.offset {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "a million events are not folded after {FOLDED_MAX:?}");
        tokio::time::sleep(POLL).await;
    }
}

struct Service {
    name: &'static str,
    url: String,
    child: Child,
    client: reqwest::Client,
}

impl Service {
    fn start(name: &'static str, environment: &Environment) -> Result<Service> {
        // The port is free now; if another process takes it first, the service fails with a clear error.
        let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let child = Command::new(std::env::current_exe()?)
            .args(["serve", name, "--listen", &listen])
            .env("DATABASE_URL", &environment.database_url)
            .env("KAFKA_BROKERS", &environment.kafka.brokers)
            .env("LEDGER_TOPIC_PREFIX", &environment.kafka.topic_prefix)
            .env("LEDGER_OPERATOR_KEY", KEY)
            .env("LEDGER_LOG_KEY_FILE", environment.log_key()?)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Service { name, url: format!("http://{listen}"), child, client: http_client::plain() })
    }

    async fn ready(&self) -> Result<()> {
        let deadline = Instant::now() + READY_MAX;
        loop {
            let answer = self.client.get(format!("{}/readyz", self.url)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "{} is not ready after {READY_MAX:?}", self.name);
            tokio::time::sleep(POLL).await;
        }
    }

    async fn get(&self, path: &str) -> Result<()> {
        let answer = self.client.get(format!("{}{path}", self.url)).bearer_auth(KEY).send().await?;
        answer.error_for_status()?.bytes().await?;
        Ok(())
    }

    async fn put(&self, path: &str, body: &serde_json::Value) -> Result<()> {
        let put = self.client.put(format!("{}{path}", self.url)).bearer_auth(KEY).json(body);
        put.send().await?.error_for_status()?;
        Ok(())
    }

    async fn post(&self, path: &str, body: &serde_json::Value) -> Result<()> {
        self.send(path, "application/json", body).await
    }

    async fn send(&self, path: &str, media_type: &str, body: &serde_json::Value) -> Result<()> {
        let post = self.client.post(format!("{}{path}", self.url)).bearer_auth(KEY);
        let answer = post.header("content-type", media_type).body(body.to_string()).send().await?;
        answer.error_for_status().with_context(|| format!("{} {path}", self.name))?;
        Ok(())
    }

    /// Highest resident memory so far, in MB.
    fn peak(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes / 1024.0)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
