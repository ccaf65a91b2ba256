//! Quotas: nothing that one caller sends stops another.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::alerts::stream::Follower;
use e2e::{Caller, Whole};

/// Requests that are sent at once: more than any burst here.
const FLOOD: usize = 60;
/// How soon the stream of a key that has ended ends.
const STREAM_END_MAX: Duration = Duration::from_secs(5);

async fn open(operator: &Caller, account: &str) -> Result<()> {
    let body = json!({"account_id": account, "plan": {"cycle": "monthly", "allowance": "10"}});
    operator.post("/v1/accounts", body).await?.expect(200).map(drop)
}

/// Returns how many of many requests were answered with this status.
async fn flood(caller: &Caller, path: &str, status: u16) -> Result<usize> {
    let answers = try_join_all((0..FLOOD).map(|_| caller.get(path))).await?;
    for refused in answers.iter().filter(|answer| answer.status == 429) {
        refused.expect_problem(429, "too_many_requests")?;
        ensure!(!refused.retry_after.is_empty(), "{refused:?}");
    }
    Ok(answers.iter().filter(|answer| answer.status == status).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_floods_waits_and_others_are_served() -> Result<()> {
    let whole = Whole::start_with(&["--rate-per-key", "5", "--rate-unknown", "5"]).await?;
    open(&whole.operator(), "acme").await?;
    let noisy = whole.keyed("admin", &["acme"], None).await?;
    let other = whole.keyed("admin", &["acme"], None).await?;
    let new = whole.keyed("admin", &["acme"], None).await?;
    let balance = "/v1/accounts/acme/balance";
    let served = flood(&noisy, balance, 200).await?;
    ensure!((1..FLOOD / 2).contains(&served), "{served} served");
    other.get(balance).await?.expect(200)?;

    // Made-up keys, a wrong secret of a real one, and text that is no key.
    let made_up: Vec<String> = (0..FLOOD).map(|at| format!("ldg_{at:016x}_{}", "x".repeat(43))).collect();
    let answers = try_join_all(made_up.iter().map(|key| {
        let caller = whole.caller(Some(key));
        async move { caller.get(balance).await }
    }))
    .await?;
    let refused = answers.iter().filter(|answer| answer.status == 429).count();
    ensure!(refused > 0 && answers.iter().all(|answer| matches!(answer.status, 401 | 429)), "{refused}");
    ensure!(flood(&whole.caller(Some("garbage")), balance, 429).await? > 0);
    // From the same address: a key that was never seen before, and requests without any.
    new.get(balance).await?.expect(200)?;
    whole.caller(None).get(balance).await?.expect_problem(401, "unauthorized")?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_key() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme").await?;
    let make = async |name: &str, expires_at: Option<String>| {
        let body = json!({"role": "admin", "accounts": ["acme"], "expires_at": expires_at});
        operator.with("Idempotency-Key", name).post("/v1/keys", body).await
    };
    let soon = platform::clock::now().plus_seconds(2).to_string();
    let (revoked, expiring) = (make("revoked", None).await?, make("expiring", Some(soon)).await?);
    for made in [&expiring, &revoked] {
        let caller = whole.caller(made.expect(201)?.body["secret"].as_str());
        let mut follower = Follower::begin(&caller, None).await?;
        follower.next_of("balance").await?;
        let is_revoked = std::ptr::eq(made, &raw const revoked);
        if is_revoked {
            let key = made.body["key_id"].as_str().context("an id")?;
            operator.delete(&format!("/v1/keys/{key}")).await?.expect(200)?;
        }
        let longest = STREAM_END_MAX + Duration::from_secs(if is_revoked { 0 } else { 2 });
        let ended = timeout(longest, follower.next_of("firing")).await.context("the stream goes on")?;
        ensure!(ended.is_err(), "{ended:?}");
    }
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_invites_and_guesses_only_so_often() -> Result<()> {
    let whole = Whole::start_with(&["--invitations-per-day", "3"]).await?;
    let operator = whole.operator();
    open(&operator, "acme").await?;
    open(&operator, "beta").await?;
    let admin = whole.keyed("admin", &["acme", "beta"], None).await?;
    let invite = async |account: &str, who: usize| {
        let body = json!({"email": format!("guest{who}@example.test")});
        admin.post(&format!("/v1/accounts/{account}/referrals"), body).await
    };
    for who in 0..3 {
        invite("acme", who).await?.expect(201)?;
    }
    let refused = invite("acme", 3).await?;
    refused.expect_problem(429, "too_many_requests")?;
    let wait: u64 = refused.retry_after.parse()?;
    ensure!((86_000..=86_400).contains(&wait), "{wait}");
    invite("acme", 0).await?.expect(201)?;
    invite("beta", 3).await?.expect(201)?;

    operator.post("/v1/promo-codes", json!({"code": "REAL", "amount": "5"})).await?.expect(201)?;
    let redeem = async |account: &str, code: &str| {
        admin.post(&format!("/v1/accounts/{account}/redemptions"), json!({"code": code})).await
    };
    for guess in 0..10 {
        redeem("acme", &format!("GUESS{guess}")).await?.expect_problem(404, "promo_code_unknown")?;
    }
    redeem("acme", "REAL").await?.expect_problem(429, "too_many_requests")?;
    redeem("beta", "REAL").await?.expect(200)?;
    redeem("beta", "REAL").await?.expect(200)?;
    a_code_that_was_ended_redeems_no_more(&operator, &admin).await?;
    whole.replay_and_stop().await
}

async fn a_code_that_was_ended_redeems_no_more(operator: &Caller, admin: &Caller) -> Result<()> {
    let path = "/v1/promo-codes/REAL";
    admin.get(path).await?.expect_problem(403, "forbidden")?;
    let made = operator.get(path).await?;
    ensure!(made.expect(200)?.body["redemptions"] == 1 && made.body["ended_at"].is_null(), "{}", made.text);
    let ended = operator.delete(path).await?;
    ensure!(ended.expect(200)?.body["ended_at"].is_string(), "{}", ended.text);
    ensure!(operator.delete(path).await?.body == ended.body);
    operator.get("/v1/promo-codes/NONE").await?.expect_problem(404, "promo_code_unknown")?;
    open(operator, "late").await?;
    let late = operator.post("/v1/accounts/late/redemptions", json!({"code": "REAL"})).await?;
    late.expect_problem(422, "promo_code_expired")?;
    let again = admin.post("/v1/accounts/beta/redemptions", json!({"code": "REAL"})).await?;
    again.expect(200).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_token_shows_one_user_and_ends_with_its_key() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme").await?;
    let body = json!({"role": "producer", "accounts": ["acme"]});
    let made = operator.with("Idempotency-Key", "issuer").post("/v1/keys", body).await?;
    let producer = whole.caller(made.expect(201)?.body["secret"].as_str());
    let path = "/v1/accounts/acme/member-tokens";
    let usage = json!({"id": "u1", "occurred_at": platform::clock::now(), "user_id": "ana", "credits": "1"});
    producer.post("/v1/accounts/acme/usage?wait=true", usage).await?.expect(200)?;

    let token = producer.post(path, json!({"user_id": "ana"})).await?;
    let member = whole.caller(token.expect(201)?.body["token"].as_str());
    let users = member.get("/v1/accounts/acme/users").await?;
    ensure!(users.expect(200)?.body["items"][0]["user_id"] == "ana", "{}", users.text);
    member.get("/v1/accounts/acme/usage?user=bo").await?.expect_problem(403, "forbidden")?;
    member.get("/v1/accounts/beta/users").await?.expect_problem(403, "forbidden")?;
    member.post(path, json!({"user_id": "bo"})).await?.expect_problem(403, "forbidden")?;
    producer
        .post(path, json!({"user_id": "ana", "ttl_seconds": 86_401}))
        .await?
        .expect_fields(&["ttl_seconds out_of_range"])?;
    producer
        .post("/v1/accounts/beta/member-tokens", json!({"user_id": "ana"}))
        .await?
        .expect_problem(403, "forbidden")?;
    let by_operator = operator.post(path, json!({"user_id": "bo", "ttl_seconds": 1})).await?;
    let short = whole.caller(by_operator.expect(201)?.body["token"].as_str());
    sleep(Duration::from_secs(1)).await;
    short.get("/v1/accounts/acme/users").await?.expect_problem(401, "unauthorized")?;

    let key = made.body["key_id"].as_str().context("an id")?;
    operator.delete(&format!("/v1/keys/{key}")).await?.expect(200)?;
    let end = Instant::now() + STREAM_END_MAX;
    while member.get("/v1/accounts/acme/users").await?.status == 200 {
        ensure!(Instant::now() < end, "the token outlives its key");
        sleep(Duration::from_millis(100)).await;
    }
    whole.replay_and_stop().await
}
