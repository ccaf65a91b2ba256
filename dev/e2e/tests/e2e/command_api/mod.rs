//! The write side over real HTTP, on real Kafka and Postgres, together with the projector and the read side.

mod accounts;
mod any_client;
mod behind;
mod bodies;
mod calls;
mod changed_meanwhile;
mod check;
mod closing;
mod contacts;
mod database;
mod ingress;
mod keys;
mod money;
mod outages;
mod outside_ids;
mod own_limits;
mod reservations;
mod rules;
mod settings;
mod usage;
mod webhook_tests;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use e2e::{Answer, Caller};

/// When the tests' accounts open, by their own clock.
const OPENED: &str = "2026-02-03T10:00:00Z";

/// Opens an account on a test clock, with a monthly allowance and no name.
async fn open(operator: &Caller, account: &str, allowance: &str) -> Result<()> {
    let plan = json!({"cycle": "monthly", "anchor": "2026-02-01T00:00:00Z", "allowance": allowance});
    let body = json!({"account_id": account, "clock": "test", "plan": plan});
    operator.at(OPENED).post("/v1/accounts", body).await?.expect(200).map(drop)
}

/// Opens an account whose clock is the service's.
async fn open_live(operator: &Caller, account: &str, allowance: &str) -> Result<()> {
    let body = json!({"account_id": account, "plan": {"cycle": "monthly", "allowance": allowance}});
    operator.post("/v1/accounts", body).await?.expect(200).map(drop)
}

/// Returns the account's balance.
async fn balance(operator: &Caller, account: &str) -> Result<Value> {
    let answer = operator.get(&format!("/v1/accounts/{account}/balance")).await?;
    Ok(answer.expect(200)?.body.clone())
}

/// Fails unless figures of the balance are these, as `settled=8 overdraft=0`.
async fn expect_balance(operator: &Caller, account: &str, expected: &str) -> Result<()> {
    let balance = balance(operator, account).await?;
    for part in expected.split_whitespace() {
        let (figure, value) = part.split_once('=').context("figure=value")?;
        ensure!(balance[figure] == value, "{account}: {part} is not so in {balance}");
    }
    Ok(())
}

/// Fails unless the write was applied and the answer has what the contract requires: id, position, outcome.
fn expect_applied(answer: &Answer) -> Result<()> {
    answer.expect(200)?;
    expect_written(answer, Some("applied"))
}

/// Fails unless the body is `{event_id, position}`, with this outcome where one is known.
fn expect_written(answer: &Answer, outcome: Option<&str>) -> Result<()> {
    answer.position()?;
    let body = answer.body.as_object().context("an object")?;
    let mut fields: Vec<&str> = body.keys().map(String::as_str).collect();
    fields.sort_unstable();
    let mut expected = vec!["event_id", "position"];
    if outcome.is_some() {
        expected.insert(1, "outcome");
    }
    ensure!(fields == expected, "{}", answer.text);
    ensure!(answer.body["event_id"].as_str().is_some_and(|id| !id.is_empty()), "{}", answer.text);
    ensure!(answer.body["outcome"].as_str() == outcome, "{}", answer.text);
    Ok(())
}

/// Fails unless both answers are the same, status and body.
fn expect_same(first: &Answer, again: &Answer) -> Result<()> {
    let said = |answer: &Answer| (answer.status, answer.body.clone());
    ensure!(said(first) == said(again), "{} first said {}, then {}", first.asked, first.text, again.text);
    Ok(())
}
