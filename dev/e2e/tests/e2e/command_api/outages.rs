//! Outages: answers while the log or the database can't take a write.

use anyhow::{Result, ensure};
use local_stack::{Stack, StackOptions, TestSpace};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

use super::{OPENED, balance, expect_balance, open};
use e2e::{Answer, Caller, Whole};

/// Longest wait until everything works again by itself.
const RESUMED_MAX: Duration = Duration::from_secs(120);

fn usage(id: &str) -> Value {
    json!({"id": id, "occurred_at": OPENED, "credits": "1"})
}

async fn batch(operator: &Caller, ids: &[&str]) -> Result<Answer> {
    let event = |id: &&str| {
        json!({
            "specversion": "1.0", "id": id, "source": "/app", "type": "ledger.usage.recorded.v1", "subject": "acme",
            "time": OPENED, "data": {"credits": "1"}
        })
    };
    let events = json!(ids.iter().map(event).collect::<Vec<_>>()).to_string();
    operator.send_as(Method::POST, "/v1/events", "application/cloudevents-batch+json", &events).await
}

/// Sends each kind of write; some ids of usage are new in each round.
async fn write_all(operator: &Caller) -> Result<Vec<Answer>> {
    let grant = json!({"grant_id": "g", "source": "promo", "amount": "10"});
    let adjustment = json!({"amount": "-1", "reason": "r"});
    let keyed = operator.with("Idempotency-Key", "k");
    let (one, many, granted, named, adjusted) = tokio::join!(
        operator.post("/v1/accounts/acme/usage", usage("u1")),
        batch(operator, &["b1", "b2"]),
        operator.post("/v1/accounts/acme/grants", grant),
        operator.patch("/v1/accounts/acme", json!({"name": "Acme"})),
        keyed.post("/v1/accounts/acme/adjustments", adjustment),
    );
    Ok(vec![one?, many?, granted?, named?, adjusted?])
}

fn expect_unavailable(answers: &[Answer]) -> Result<()> {
    for answer in answers {
        answer.expect_problem(503, "unavailable")?;
        let seconds: u32 = answer.retry_after.parse()?;
        ensure!((1..=60).contains(&seconds), "Retry-After: {}", answer.retry_after);
    }
    Ok(())
}

/// Sends the same requests until all are accepted.
async fn resume(operator: &Caller) -> Result<()> {
    let resuming = async {
        loop {
            let answers = write_all(operator).await?;
            if answers.iter().all(|answer| answer.status < 300) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(RESUMED_MAX, resuming).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_can_not_be_stored_is_503_and_counts_once_when_sent_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let options = StackOptions { data_dir: folder.path().join("data"), ..StackOptions::default() };
    let mut stack = Stack::start(options, |_| {}).await?;
    let space = TestSpace::within(stack.kafka_brokers.clone(), stack.database_url.clone()).await?;
    let whole = Whole::start_on(space).await?;
    let operator = whole.operator();
    open(&operator, "acme", "100").await?;

    stack.kill_kafka().await?;
    expect_unavailable(&write_all(&operator).await?)?;
    expect_balance(&operator, "acme", "settled=100").await?;
    let ready = whole.caller(None).get("/readyz").await?;
    ready.expect(503)?;
    stack.start_kafka().await?;
    resume(&operator).await?;
    whole.all_projected().await?;
    // 3 used, 10 granted, 1 adjusted: each once, however often it was sent.
    expect_balance(&operator, "acme", "settled=106 used=3").await?;

    stack.stop_postgres_immediate().await?;
    expect_unavailable(&write_all(&operator).await?)?;
    operator.get("/v1/accounts/acme/balance").await?.expect_problem(503, "unavailable")?;
    stack.start_postgres().await?;
    resume(&operator).await?;
    whole.all_projected().await?;
    ensure!(balance(&operator, "acme").await?["settled"] == "106");

    whole.replay_and_stop().await?;
    stack.stop().await?;
    Ok(folder.close()?)
}
