//! Test calls of a webhook: signed as all calls are, and told as they went.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::receiver::{Answer, Receiver};
use e2e::Whole;

const PATH: &str = "/v1/accounts/acme/contacts/webhook-test";
const PRIVATE: [&str; 1] = ["--webhook-allow-private"];

async fn hook(whole: &Whole, url: &str) -> Result<String> {
    let put = whole.operator().put("/v1/accounts/acme/contacts", json!({"webhook": {"url": url}})).await?;
    let secret = put.expect(200)?.body["webhook"]["secret"].as_str();
    Ok(secret.unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_calls_the_webhook_and_reads_what_it_answered() -> Result<()> {
    let whole = Whole::start_with(&PRIVATE).await?;
    let teapot = Answer::of(418).saying("short and stout");
    let receiver = Receiver::start([Answer::of(202), teapot]).await?;
    whole
        .operator()
        .post("/v1/accounts", json!({"account_id": "acme", "plan": {"cycle": "monthly", "allowance": "1"}}))
        .await?
        .expect(200)?;
    let admin = whole.keyed("admin", &["acme"], None).await?;
    let without = admin.post_nothing(PATH).await?;
    ensure!(without.expect(404)?.body["code"] == "webhook_unknown", "{}", without.text);
    let secret = hook(&whole, &receiver.url()).await?;

    let tested = admin.post_nothing(PATH).await?.expect(200)?.body.clone();
    ensure!(
        tested["is_accepted"] == true && tested["status"] == 202 && tested["reason"].is_null(),
        "{tested}"
    );
    ensure!(tested["duration_ms"].is_u64() && tested["url"] == receiver.url(), "{tested}");
    let calls = receiver.wait_for(1).await?;
    ensure!(calls[0].verifies(&secret), "signed with the account's secret");
    ensure!(tested["event_id"] == calls[0].header("webhook-id"), "{tested}");
    let event: Value = serde_json::from_slice(&calls[0].body)?;
    ensure!(event["type"] == "ledger.webhook.tested.v1" && event["id"] == tested["event_id"], "{event}");
    ensure!(event["data"]["account_id"] == "acme", "{event}");

    let refused = admin.post_nothing(PATH).await?.expect(200)?.body.clone();
    ensure!(refused["is_accepted"] == false && refused["status"] == 418, "{refused}");
    ensure!(refused["reason"] == "short and stout", "{refused}");
    let address = receiver.address;
    drop(receiver);
    hook(&whole, &format!("http://{address}/")).await?;
    let gone = admin.post_nothing(PATH).await?.expect(200)?.body.clone();
    ensure!(gone["is_accepted"] == false && gone["status"].is_null(), "{gone}");
    ensure!(gone["reason"].as_str().is_some_and(|reason| reason.contains("can't be reached")), "{gone}");

    // An account has ten a minute; others have theirs.
    for _ in 0..7 {
        admin.post_nothing(PATH).await?.expect(200)?;
    }
    let too_often = admin.post_nothing(PATH).await?;
    ensure!(too_often.expect(429)?.body["code"] == "too_many_requests", "{}", too_often.text);
    ensure!(too_often.retry_after.parse::<u64>().context("seconds")? <= 60, "{}", too_often.retry_after);
    for (role, accounts, user) in [
        ("admin", "beta", None),
        ("member", "acme", Some("carl")),
        ("auditor", "*", None),
        ("producer", "acme", None),
    ] {
        whole.keyed(role, &[accounts], user).await?.post_nothing(PATH).await?.expect(403)?;
    }
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_call_reaches_no_private_address() -> Result<()> {
    let whole = Whole::start().await?;
    let receiver = Receiver::start([]).await?;
    whole
        .operator()
        .post("/v1/accounts", json!({"account_id": "acme", "plan": {"cycle": "monthly", "allowance": "1"}}))
        .await?
        .expect(200)?;
    for (url, reason) in [
        (receiver.url(), "must begin with https"),
        (receiver.url().replace("http:", "https:"), "is not on the public Internet"),
        ("https://169.254.169.254/latest".to_owned(), "is not on the public Internet"),
    ] {
        hook(&whole, &url).await?;
        let tested = whole.operator().post_nothing(PATH).await?.expect(200)?.body.clone();
        ensure!(tested["is_accepted"] == false && tested["status"].is_null(), "{url}: {tested}");
        ensure!(tested["reason"].as_str().is_some_and(|said| said.contains(reason)), "{url}: {tested}");
    }
    ensure!(receiver.calls().is_empty(), "it was called");
    whole.replay_and_stop().await
}
