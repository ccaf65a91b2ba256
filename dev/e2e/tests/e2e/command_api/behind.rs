//! Behind: answers while the projection lags, or an account waits for a newer program.

use anyhow::{Result, ensure};
use platform::kafka::Appender;
use serde_json::{Value, json};

use super::{OPENED, expect_applied, expect_balance, expect_written, open};
use e2e::{Caller, Whole};

fn usage(id: &str) -> Value {
    json!({"id": id, "occurred_at": OPENED, "credits": "1"})
}

fn grant(id: &str) -> Value {
    json!({"grant_id": id, "source": "promo", "amount": "1"})
}

#[tokio::test]
async fn a_wait_that_runs_out_answers_without_an_outcome() -> Result<()> {
    let whole = Whole::start_impatient().await?;
    let operator = whole.operator();
    open(&operator, "acme", "10").await?;
    whole.all_projected().await?;
    // The projector can't move its checkpoint until this transaction ends.
    let mut held = whole.pool.begin().await?;
    sqlx::query("lock table read_model_1.checkpoint in exclusive mode").execute(&mut *held).await?;
    what_is_stored_is_202(&operator).await?;
    what_is_not_known_yet_is_503(&operator).await?;
    held.rollback().await?;
    whole.all_projected().await?;
    expect_balance(&operator, "acme", "settled=10 used=1").await?;
    whole.replay_and_stop().await
}

async fn what_is_stored_is_202(operator: &Caller) -> Result<()> {
    let granted = operator.post("/v1/accounts/acme/grants", grant("g1")).await?;
    expect_written(granted.expect(202)?, None)?;
    let used = operator.post("/v1/accounts/acme/usage?wait=true", usage("u1")).await?;
    expect_written(used.expect(202)?, None)?;
    // Without waiting a caller does not notice.
    operator.post("/v1/accounts/acme/usage", usage("u1")).await?.expect(202).map(drop)
}

/// The API can say that something is absent only once the projection has caught up.
async fn what_is_not_known_yet_is_503(operator: &Caller) -> Result<()> {
    // Every partition has an unprojected record.
    for account in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let plan = json!({"cycle": "monthly", "allowance": "1"});
        let body = json!({"account_id": account, "plan": plan});
        operator.post("/v1/accounts?wait=false", body).await?.expect(202)?;
    }
    let nobody = operator.post("/v1/accounts/nobody/usage", usage("u1")).await?;
    nobody.expect_problem(503, "behind")?;
    ensure!(!nobody.retry_after.is_empty(), "{nobody:?}");
    let nobody = operator.post("/v1/accounts/nobody/grants", grant("g")).await?;
    nobody.expect_problem(503, "behind")?;
    let unknown = operator.post("/v1/accounts/acme/usage/u9/reversal", json!({})).await?;
    unknown.expect_problem(503, "behind")?;
    let unknown = operator.delete("/v1/accounts/acme/grants/g9").await?;
    unknown.expect_problem(503, "behind").map(drop)
}

#[tokio::test]
async fn an_account_that_waits_for_a_newer_program_still_takes_usage() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "10").await?;
    open(&operator, "beta", "10").await?;
    let newer = json!({
        "specversion": "1.0", "id": "n1", "source": "/app", "type": "ledger.usage.recorded.v9", "subject": "acme",
        "time": OPENED, "recordedat": OPENED, "actor": "k", "data": {}
    });
    let events = Appender::new(&whole.kafka, &whole.kafka.topics().events, 3)?;
    events.append(b"acme", newer.to_string().as_bytes()).await?;
    let used = operator.post("/v1/accounts/acme/usage?wait=true", usage("u1")).await?;
    expect_written(used.expect(202)?, None)?;
    let granted = operator.post("/v1/accounts/acme/grants", grant("g1")).await?;
    granted.expect_problem(503, "account_halted")?;
    ensure!(!granted.retry_after.is_empty(), "{granted:?}");
    operator.post("/v1/accounts/acme/grants?wait=false", grant("g2")).await?.expect(202)?;
    expect_applied(&operator.post("/v1/accounts/beta/usage?wait=true", usage("u1")).await?)?;
    whole.replay_and_stop().await
}
