//! Keys: who may do what and where.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::{OPENED, expect_balance, expect_same, open};
use e2e::{Answer, Caller, Whole};

/// Every write of the contract, as `METHOD path body` on an account.
fn writes(account: &str) -> Vec<(Method, String, Value)> {
    let at = |rest: &str| format!("/v1/accounts/{account}{rest}");
    let plan = json!({"cycle": "monthly", "allowance": "10"});
    vec![
        (Method::POST, "/v1/accounts".into(), json!({"account_id": account, "plan": plan})),
        (Method::PATCH, at(""), json!({"name": "N"})),
        (Method::PUT, at("/plan"), json!({"plan": plan})),
        (Method::POST, at("/clock"), json!({"advance_to": OPENED})),
        (Method::POST, at("/usage"), json!({"id": "u", "occurred_at": OPENED, "credits": "1"})),
        (Method::POST, at("/usage/u/reversal"), json!({})),
        (Method::POST, at("/grants"), json!({"grant_id": "g", "source": "promo", "amount": "1"})),
        (Method::DELETE, at("/grants/g"), Value::Null),
        (Method::POST, at("/adjustments"), json!({"amount": "1", "reason": "r"})),
        (Method::POST, at("/purchases"), json!({"payment_id": "p", "amount": "1"})),
        (Method::POST, at("/refunds"), json!({"payment_id": "p", "amount": "1"})),
        (
            Method::PUT,
            "/v1/rate-cards/card".into(),
            json!({"meters": [{"category": "c", "prices": {"x": {"credits": "1", "per": "1"}}}]}),
        ),
        (Method::POST, "/v1/keys".into(), json!({"role": "auditor"})),
        (Method::GET, "/v1/keys".into(), Value::Null),
        (Method::DELETE, "/v1/keys/0123456789abcdef".into(), Value::Null),
        (Method::PUT, at("/limits"), json!({"default_limit": "1"})),
        (Method::PUT, at("/user-alert"), json!({"threshold": "1"})),
        (Method::PUT, at("/alerts/a1"), json!({"basis": "percent_used", "threshold": "75"})),
        (Method::DELETE, at("/alerts/a1"), Value::Null),
        (
            Method::PUT,
            at("/contacts"),
            json!({"admins": [{"id": "carl"}], "webhook": {"url": "https://a.test"}}),
        ),
        (Method::GET, at("/contacts"), Value::Null),
        (Method::POST, at("/contacts/webhook-secret"), Value::Null),
        (Method::POST, at("/check"), json!({"amount": "1"})),
        (Method::POST, at("/reservations"), json!({"reservation_id": "r", "amount": "1"})),
        (Method::PATCH, at("/reservations/r"), json!({"amount": "1"})),
        (
            Method::POST,
            at("/reservations/r/settle"),
            json!({"id": "s", "occurred_at": OPENED, "credits": "1"}),
        ),
        (Method::POST, at("/reservations/r/release"), Value::Null),
        (Method::PATCH, at(""), json!({"name": "N", "overdraft": "carry"})),
        (Method::PATCH, at(""), json!({"low_balance_threshold": "1"})),
        (Method::POST, at("/notifications/n1/resend"), Value::Null),
        (Method::POST, at("/contacts/webhook-test"), Value::Null),
        (Method::GET, "/v1/parked-payments".into(), Value::Null),
        (
            Method::POST,
            "/v1/parked-payments/pi_1/decision".into(),
            json!({"decision": "dismissed", "reason": "r"}),
        ),
        (Method::POST, at("/top-ups/t1/decision"), json!({"outcome": "failed", "reason": "r"})),
    ]
}

/// Which of [`writes`] a role may do, in its own accounts.
fn allowed(role: &str) -> &'static [usize] {
    match role {
        "admin" => &[1, 28, 15, 16, 17, 18, 19, 20, 21, 29, 30],
        "producer" => &[4, 22, 23, 24, 25, 26],
        _ => &[],
    }
}

async fn call(caller: &Caller, (method, path, body): &(Method, String, Value)) -> Result<Answer> {
    let request = caller.request(method.clone(), path);
    let request = if body.is_null() { request } else { request.json(body) };
    caller.send(request).await
}

#[tokio::test]
async fn a_key_opens_what_its_role_and_accounts_allow() -> Result<()> {
    // It sends wrong keys as fast as it can.
    let whole = Whole::start_with(&["--rate-unknown", "0"]).await?;
    let operator = whole.operator();
    open(&operator, "acme", "10").await?;
    open(&operator, "beta", "10").await?;
    without_a_key_nothing_is_said(&whole).await?;
    each_role_writes_what_is_its_own(&whole).await?;
    a_batch_is_judged_account_by_account(&whole).await?;
    the_actor_is_the_key(&whole).await?;
    whole.replay_and_stop().await
}

async fn without_a_key_nothing_is_said(whole: &Whole) -> Result<()> {
    let forged = format!("ldg_0123456789abcdef_{}", "x".repeat(43));
    for key in [None, Some("wrong"), Some(""), Some(forged.as_str())] {
        for write in writes("acme").iter().chain(&writes("nobody")) {
            call(&whole.caller(key), write).await?.expect_problem(401, "unauthorized")?;
        }
        // Refused before anything else of the request is read.
        let caller = whole.caller(key);
        let odd = caller.send_as(Method::POST, "/v1/events?x=1", "text/plain", "{").await?;
        odd.expect_problem(401, "unauthorized")?;
    }
    whole.ready().await?;
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        whole.caller(None).get(path).await?.expect(200)?;
    }
    Ok(())
}

async fn each_role_writes_what_is_its_own(whole: &Whole) -> Result<()> {
    for (role, user) in [("admin", None), ("producer", None), ("member", Some("ana")), ("auditor", None)] {
        let accounts: &[&str] = if role == "auditor" { &[] } else { &["acme"] };
        let caller = whole.keyed(role, accounts, user).await?;
        for (at, write) in writes("acme").iter().enumerate() {
            let answer = call(&caller, write).await?;
            if allowed(role).contains(&at) {
                ensure!(answer.status != 403 && answer.status != 401, "{role}: {answer:?}");
            } else {
                answer.expect_problem(403, "forbidden").with_context(|| format!("{role} {write:?}"))?;
            }
        }
        // Another account and one that does not exist get the same refusal.
        let (there, nowhere) = (writes("beta"), writes("nobody"));
        for (there, nowhere) in there.iter().zip(&nowhere) {
            let (there, nowhere) = (call(&caller, there).await?, call(&caller, nowhere).await?);
            there.expect_problem(403, "forbidden")?;
            expect_same(&there, &nowhere)?;
        }
    }
    let everywhere = whole.keyed("producer", &["*"], None).await?;
    let usage = json!({"id": "w", "occurred_at": OPENED, "credits": "0"});
    everywhere.post("/v1/accounts/beta/usage", usage.clone()).await?.expect(202)?;
    everywhere.post("/v1/accounts/nobody/usage", usage).await?.expect_problem(404, "account_not_found")?;
    expect_balance(&whole.operator(), "beta", "settled=10").await
}

async fn a_batch_is_judged_account_by_account(whole: &Whole) -> Result<()> {
    let producer = whole.keyed("producer", &["acme"], None).await?;
    let event = |account: &str| {
        json!({
            "specversion": "1.0", "id": "k1", "source": "/app", "type": "ledger.usage.recorded.v1",
            "subject": account, "time": OPENED, "data": {"credits": "0"}
        })
    };
    let body = json!([event("acme"), event("beta"), event("nobody")]).to_string();
    let media_type = "application/cloudevents-batch+json";
    let answer = producer.send_as(Method::POST, "/v1/events", media_type, &body).await?;
    answer.expect(202)?;
    let said = |index: usize| {
        let item = &answer.body["items"][index];
        (item["result"].clone(), item["code"].clone())
    };
    ensure!(said(0) == (json!("accepted"), Value::Null), "{}", answer.text);
    ensure!(said(1) == (json!("refused"), json!("forbidden")), "{}", answer.text);
    ensure!(said(2) == said(1), "{}", answer.text);
    let one = event("beta").to_string();
    let one = producer.send_as(Method::POST, "/v1/events", "application/cloudevents+json", &one).await?;
    one.expect_problem(403, "forbidden").map(drop)
}

async fn the_actor_is_the_key(whole: &Whole) -> Result<()> {
    let operator = whole.operator();
    let body = json!({"role": "producer", "accounts": ["acme"]});
    let created = operator.with("Idempotency-Key", "actor").post("/v1/keys", body).await?;
    let producer = whole.caller(created.expect(201)?.body["secret"].as_str());
    let usage = json!({"id": "actor", "occurred_at": OPENED, "credits": "0"});
    let position =
        producer.post("/v1/accounts/acme/usage?wait=true", usage).await?.expect(200)?.position()?;
    let path = format!("/v1/audit/events?partition={}&offset={}", position.partition, position.offset);
    let journal = operator.get(&path).await?;
    let first = journal.expect(200)?.text.lines().next().context("a line")?.to_owned();
    let record: Value = serde_json::from_str(&first)?;
    ensure!(record["event"]["actor"] == created.body["key_id"], "{record}");
    Ok(())
}

#[tokio::test]
async fn keys_are_made_shown_once_listed_and_revoked() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "10").await?;
    a_secret_is_shown_once(&operator).await?;
    bad_keys_are_not_made(&operator).await?;
    a_revoked_key_is_no_key(&whole).await?;
    an_expired_key_is_no_key(&whole).await?;
    keys_are_listed_page_by_page(&operator).await?;
    whole.replay_and_stop().await
}

async fn a_secret_is_shown_once(operator: &Caller) -> Result<()> {
    let body = json!({"role": "producer", "accounts": ["acme"], "user_id": null, "expires_at": null, "name": "chat service"});
    operator.post("/v1/keys", body.clone()).await?.expect_fields(&["Idempotency-Key required"])?;
    let named = operator.with("Idempotency-Key", "k1");
    let first = named.post("/v1/keys", body.clone()).await?;
    first.expect(201)?;
    let (id, secret) = (first.body["key_id"].clone(), first.body["secret"].clone());
    ensure!(secret.as_str().is_some_and(|secret| secret.starts_with("ldg_")), "{}", first.text);
    let again = named.post("/v1/keys", body).await?;
    again.expect(201)?;
    ensure!(again.body["key_id"] == id && again.body["secret"].is_null(), "{}", again.text);
    named.post("/v1/keys", json!({"role": "auditor"})).await?.expect_problem(409, "conflict")?;
    let listed = operator.get("/v1/keys").await?;
    let secret = secret.as_str().context("a secret")?;
    ensure!(
        listed.expect(200)?.text.contains("chat service") && !listed.text.contains(secret),
        "{}",
        listed.text
    );
    Ok(())
}

async fn bad_keys_are_not_made(operator: &Caller) -> Result<()> {
    let named = operator.with("Idempotency-Key", "bad");
    let check = |body: Value, fields: &'static [&'static str]| {
        let named = named.clone();
        async move { named.post("/v1/keys", body).await?.expect_fields(fields).map(drop) }
    };
    check(json!({}), &["role required"]).await?;
    check(json!({"role": "king", "extra": 1}), &["extra unknown_field", "role not_one_of"]).await?;
    check(json!({"role": "producer"}), &["accounts required"]).await?;
    check(json!({"role": "producer", "accounts": ["no id"]}), &["accounts bad_id"]).await?;
    check(json!({"role": "producer", "accounts": ["a"], "user_id": "ana"}), &["user_id not_allowed"]).await?;
    check(json!({"role": "member", "accounts": ["a"]}), &["user_id required"]).await?;
    check(json!({"role": "member", "accounts": ["a", "b"], "user_id": "ana"}), &["accounts too_many"])
        .await?;
    check(json!({"role": "auditor", "accounts": ["a"]}), &["accounts not_allowed"]).await?;
    check(json!({"role": "auditor", "expires_at": "2020-01-01T00:00:00Z"}), &["expires_at not_in_future"])
        .await?;
    check(json!({"role": "auditor", "expires_at": "soon"}), &["expires_at not_a_time"]).await?;
    // None of these has used the name up.
    named.post("/v1/keys", json!({"role": "auditor"})).await?.expect(201).map(drop)
}

/// How long a key may still work after it ended: one cached read of it.
const KEPT: Duration = Duration::from_millis(1_500);

async fn a_revoked_key_is_no_key(whole: &Whole) -> Result<()> {
    let operator = whole.operator();
    let body = json!({"role": "producer", "accounts": ["acme"]});
    let made = operator.with("Idempotency-Key", "revoked").post("/v1/keys", body).await?;
    let producer = whole.caller(made.expect(201)?.body["secret"].as_str());
    let usage = json!({"id": "r", "occurred_at": OPENED, "credits": "0"});
    producer.post("/v1/accounts/acme/usage", usage.clone()).await?.expect(202)?;
    let path = format!("/v1/keys/{}", made.body["key_id"].as_str().context("an id")?);
    let revoked = operator.delete(&path).await?;
    ensure!(revoked.expect(200)?.body["revoked_at"].is_string(), "{}", revoked.text);
    expect_same(&revoked, &operator.delete(&path).await?)?;
    tokio::time::sleep(KEPT).await;
    producer.post("/v1/accounts/acme/usage", usage).await?.expect_problem(401, "unauthorized")?;
    operator.delete("/v1/keys/0123456789abcdef").await?.expect_problem(404, "key_not_found").map(drop)
}

async fn an_expired_key_is_no_key(whole: &Whole) -> Result<()> {
    let usage = json!({"id": "x", "occurred_at": OPENED, "credits": "0"});
    // On a machine that stalls the key may end before its first use: then a longer one is tried.
    for tries in 1..=10 {
        let lives = KEPT * tries;
        let soon = (chrono::Utc::now() + lives).to_rfc3339();
        let body = json!({"role": "producer", "accounts": ["acme"], "expires_at": soon});
        let named = whole.operator().with("Idempotency-Key", &format!("expired-{tries}"));
        let producer = whole.caller(named.post("/v1/keys", body).await?.expect(201)?.body["secret"].as_str());
        if producer.post("/v1/accounts/acme/usage", usage.clone()).await?.status == 202 {
            tokio::time::sleep(lives).await;
            let late = producer.post("/v1/accounts/acme/usage", usage).await?;
            return late.expect_problem(401, "unauthorized").map(drop);
        }
    }
    anyhow::bail!("no key was taken before its end")
}

async fn keys_are_listed_page_by_page(operator: &Caller) -> Result<()> {
    let all = operator.get("/v1/keys?limit=500").await?;
    let all = all.expect(200)?.body["items"].as_array().cloned().unwrap_or_default();
    ensure!(all.len() >= 4, "{all:?}");
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = operator.get(&format!("/v1/keys?limit=2{cursor}")).await?;
        pages.extend(page.expect(200)?.body["items"].as_array().cloned().unwrap_or_default());
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    ensure!(pages == all, "{pages:?}");
    operator.get("/v1/keys?limit=501").await?.expect_fields(&["limit out_of_range"])?;
    operator.get("/v1/keys?limit=0").await?.expect_fields(&["limit out_of_range"])?;
    operator
        .get("/v1/keys?limit=x&page=2")
        .await?
        .expect_fields(&["limit wrong_type", "page unknown_field"])?;
    Ok(())
}
