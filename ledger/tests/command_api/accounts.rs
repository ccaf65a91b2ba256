//! Accounts, plans and clocks.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::whole::Whole;

#[tokio::test]
async fn an_account_opens_with_its_allowance() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    let plan = json!({"cycle": "monthly", "allowance": "10000"});
    let opened = operator.post("/v1/accounts", json!({"account_id": "acme", "plan": plan})).await?;
    opened.expect(200)?;
    ensure!(opened.body["outcome"] == "applied", "{}", opened.text);
    let balance = operator.get("/v1/accounts/acme/balance").await?;
    balance.expect(200)?;
    ensure!(balance.body["settled"] == "10000", "{}", balance.text);
    whole.replay_and_stop().await
}
