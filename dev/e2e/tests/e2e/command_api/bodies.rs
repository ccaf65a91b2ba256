//! Bodies that no route accepts: other types, no JSON, too deep, too large, duplicate keys.

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::{OPENED, expect_applied, expect_balance, open};
use e2e::{Answer, Caller, Whole};

/// Every route that takes a JSON body, with a good one.
fn routes() -> Vec<(Method, &'static str, Value)> {
    let plan = json!({"cycle": "monthly", "allowance": "5"});
    vec![
        (Method::POST, "/v1/accounts", json!({"account_id": "other", "plan": plan})),
        (Method::PATCH, "/v1/accounts/acme", json!({"name": "N"})),
        (Method::PUT, "/v1/accounts/acme/plan", json!({"plan": plan})),
        (Method::POST, "/v1/accounts/acme/clock", json!({"advance_to": OPENED})),
        (Method::POST, "/v1/accounts/acme/usage", json!({"id": "u", "occurred_at": OPENED, "credits": "1"})),
        (Method::POST, "/v1/accounts/acme/usage/u/reversal", json!({"reason": "r"})),
        (
            Method::POST,
            "/v1/accounts/acme/grants",
            json!({"grant_id": "g", "source": "promo", "amount": "1"}),
        ),
        (Method::POST, "/v1/accounts/acme/adjustments", json!({"amount": "1", "reason": "r"})),
        (Method::POST, "/v1/accounts/acme/purchases", json!({"payment_id": "p", "amount": "1"})),
        (Method::POST, "/v1/accounts/acme/refunds", json!({"payment_id": "p", "amount": "1"})),
        (Method::PUT, "/v1/accounts/acme/limits", json!({"enabled": true})),
        (Method::PUT, "/v1/accounts/acme/user-alert", json!({"threshold": "1"})),
        (Method::PUT, "/v1/accounts/acme/alerts/a1", json!({"basis": "absolute_used", "threshold": "1"})),
        (Method::PUT, "/v1/accounts/acme/contacts", json!({"admins": []})),
        (Method::POST, "/v1/accounts/acme/check", json!({"amount": "1"})),
        (Method::POST, "/v1/accounts/acme/reservations", json!({"reservation_id": "r", "amount": "1"})),
        (Method::PATCH, "/v1/accounts/acme/reservations/r", json!({"amount": "1"})),
        (
            Method::POST,
            "/v1/accounts/acme/reservations/r/settle",
            json!({"id": "u", "occurred_at": OPENED, "credits": "1"}),
        ),
        (Method::PUT, "/v1/rate-cards/card", json!({"meters": []})),
        (Method::POST, "/v1/keys", json!({"role": "auditor"})),
    ]
}

async fn send(caller: &Caller, method: &Method, path: &str, media_type: &str, body: &str) -> Result<Answer> {
    caller.send_as(method.clone(), path, media_type, body).await
}

#[tokio::test]
async fn what_is_no_body_of_the_contract_is_refused_everywhere() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator().with("Idempotency-Key", "k");
    open(&operator, "acme", "10").await?;
    let before = whole.ends().await?;
    for (method, path, good) in routes() {
        a_body_has_its_type(&operator, &method, path, &good).await?;
        a_body_is_json_in_its_limits(&operator, &method, path).await?;
        a_field_is_said_once(&operator, &method, path, &good).await?;
        a_query_is_known(&operator, &method, path, &good).await?;
    }
    a_cloud_event_has_its_limits(&operator).await?;
    paths_and_methods_are_those_of_the_contract(&operator).await?;
    ensure!(whole.ends().await? == before, "nothing of it was stored");
    a_body_may_be_as_large_as_a_record(&operator).await?;
    whole.replay_and_stop().await
}

async fn a_body_has_its_type(operator: &Caller, method: &Method, path: &str, good: &Value) -> Result<()> {
    for other in ["text/plain", "application/cloudevents+json", "application/x-www-form-urlencoded", "json"] {
        let answer = send(operator, method, path, other, &good.to_string()).await?;
        answer.expect_problem(415, "unsupported_media_type")?;
    }
    let untyped = operator.request(method.clone(), path).body(good.to_string());
    operator.send(untyped).await?.expect_problem(415, "unsupported_media_type")?;
    let packed = operator.with("Content-Encoding", "br");
    let packed = send(&packed, method, path, "application/json", &good.to_string()).await?;
    packed.expect_problem(415, "unsupported_media_type").map(drop)
}

async fn a_body_is_json_in_its_limits(operator: &Caller, method: &Method, path: &str) -> Result<()> {
    let json = "application/json";
    for text in ["", "{", "{\"a\":}", "{} {}", "nul", "{'a': 1}", "\u{feff}{}"] {
        send(operator, method, path, json, text).await?.expect_problem(400, "not_json")?;
    }
    for text in ["[]", "7", "\"text\"", "null"] {
        send(operator, method, path, json, text).await?.expect_fields(&["body wrong_type"])?;
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(8), "]".repeat(8));
    send(operator, method, path, json, &deep).await?.expect_fields(&["body too_deep"])?;
    let very_deep = "[".repeat(60_000);
    send(operator, method, path, json, &very_deep).await?.expect_fields(&["body too_deep"])?;
    let is_no_record = path.contains("rate-cards") || path.ends_with("contacts");
    let bytes_max = if is_no_record { 1024 * 1024 } else { 64 * 1024 };
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(bytes_max));
    send(operator, method, path, json, &large).await?.expect_problem(413, "too_large").map(drop)
}

async fn a_field_is_said_once(operator: &Caller, method: &Method, path: &str, good: &Value) -> Result<()> {
    let good = good.to_string();
    let name = good.split('"').nth(1).unwrap_or_default();
    let twice = format!(
        "{},\"{name}\":null}}",
        good.trim_end_matches('}').to_owned() + &"}".repeat(closing(&good) - 1)
    );
    let answer = send(operator, method, path, "application/json", &twice).await?;
    answer.expect_fields(&[&format!("{name} duplicate")]).map(drop)
}

/// Counts the closing brackets at the end of a body.
fn closing(body: &str) -> usize {
    body.len() - body.trim_end_matches('}').len()
}

async fn a_query_is_known(operator: &Caller, method: &Method, path: &str, good: &Value) -> Result<()> {
    let json = "application/json";
    let odd = format!("{path}?wiat=true");
    let answer = send(operator, method, &odd, json, &good.to_string()).await?;
    answer.expect_fields(&["wiat unknown_field"])?;
    let odd = format!("{path}?wait=1");
    send(operator, method, &odd, json, &good.to_string()).await?.expect_fields(&["wait wrong_type"])?;
    Ok(())
}

async fn a_cloud_event_has_its_limits(operator: &Caller) -> Result<()> {
    let one = "application/cloudevents+json";
    let post = |body: String| async move { operator.send_as(Method::POST, "/v1/events", one, &body).await };
    post("{".into()).await?.expect_problem(400, "not_json")?;
    post("[]".into()).await?.expect_fields(&["body wrong_type"])?;
    post(format!("{{\"data\":{}{}}}", "[".repeat(8), "]".repeat(8)))
        .await?
        .expect_fields(&["body too_deep"])?;
    post(format!("{{\"data\":\"{}\"}}", "x".repeat(64 * 1024))).await?.expect_problem(413, "too_large")?;
    let twice = format!(
        r#"{{"specversion":"1.0","id":"e","id":"f","source":"/app","type":"ledger.usage.recorded.v1","subject":"acme",
            "time":"{OPENED}","data":{{"credits":"1"}}}}"#
    );
    post(twice).await?.expect_fields(&["id duplicate"])?;
    let twice = format!(
        r#"{{"specversion":"1.0","id":"e","source":"/app","type":"ledger.usage.recorded.v1","subject":"acme",
            "time":"{OPENED}","data":{{"credits":"1","credits":"2"}}}}"#
    );
    post(twice).await?.expect_fields(&["data.credits duplicate"]).map(drop)
}

async fn paths_and_methods_are_those_of_the_contract(operator: &Caller) -> Result<()> {
    operator.post("/v1/nothing", json!({})).await?.expect_problem(404, "not_found")?;
    operator.delete("/v1/accounts/acme").await?.expect_problem(405, "method_not_allowed")?;
    operator
        .post("/v1/accounts/acme/plan", json!({}))
        .await?
        .expect_problem(405, "method_not_allowed")
        .map(drop)
}

async fn a_body_may_be_as_large_as_a_record(operator: &Caller) -> Result<()> {
    let text = |bytes: usize| json!({"id": "long", "occurred_at": OPENED, "credits": "1", "metadata": {"k": "x".repeat(bytes)}});
    // The fields that the ledger adds must fit as well.
    let path = "/v1/accounts/acme/usage?wait=true";
    expect_applied(&operator.post(path, text(64 * 1024 - 1_000)).await?)?;
    operator.post(path, text(64 * 1024 - 150)).await?.expect_problem(413, "too_large")?;
    expect_balance(operator, "acme", "settled=9").await
}
