//! Audit log: checkpoints, keys and proofs, as the API has them.

use anyhow::{Context, Result, ensure};
use e2e::Whole;
use serde_json::Value;

use super::{Browser, tell};

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_sees_what_is_signed_and_proves_a_record() -> Result<()> {
    let whole = Whole::start_with(&["--checkpoint-seconds", "1"]).await?;
    tell(&whole, "acme", "100").await?;
    let auditor = whole.keyed("auditor", &[], None).await?;
    let signed = signed(&auditor).await?;
    let (partition, size) = (&signed["partition"], signed["size"].as_u64().context("a size")?);
    let mut browser = Browser::signed_in(&whole, &auditor).await?;
    let root = signed["root"].as_str().context("a root")?;
    browser.get("/audit-log").await?.shows(200, &[&format!("Partition {partition}"), "aics-tlog", root])?;
    browser.get(&format!("/audit-log?partition={partition}&offset=0")).await?;
    browser.shows(200, &["The record is in the log", "The hashes on the way"])?;
    browser.get(&format!("/audit-log?partition={partition}&offset={}", size + 10_000)).await?;
    browser.shows(200, &["The log has no such record yet"])?;
    browser.get("/audit-log?partition=x&offset=0").await?.shows(200, &["invalid"])?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    browser.get("/audit-log").await?.shows(200, &["forbidden"])?;
    ensure!(!browser.html.contains(root), "the log is the auditors'");
    whole.replay_and_stop().await
}

/// Waits for the first checkpoints and returns one.
async fn signed(auditor: &e2e::Caller) -> Result<Value> {
    for _ in 0..300 {
        let answer = auditor.get("/v1/audit/checkpoints").await?;
        if answer.status == 200 {
            return Ok(answer.body["items"][0].clone());
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    anyhow::bail!("nothing is signed within 30 s")
}
