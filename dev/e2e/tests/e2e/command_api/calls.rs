//! The same call reported again, numbers as other languages write them, and what a conflict names.

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::{OPENED, expect_applied, expect_balance, open};
use e2e::{Caller, Whole};

fn call(id: &str, source: &str, credits: &str) -> Value {
    json!({"id": id, "source": source, "occurred_at": OPENED, "credits": credits, "call_id": "chatcmpl-7f3"})
}

#[tokio::test]
async fn a_call_is_charged_once_and_a_conflict_names_its_fields() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "100").await?;
    a_call_that_two_report_is_charged_once(&operator).await?;
    a_hold_stays_where_its_call_was_charged_before(&operator).await?;
    whole_numbers_are_taken_as_languages_write_them(&operator).await?;
    a_conflict_names_the_fields_that_differ(&operator).await?;
    whole.replay_and_stop().await
}

async fn a_call_that_two_report_is_charged_once(operator: &Caller) -> Result<()> {
    let path = "/v1/accounts/acme/usage?wait=true";
    expect_applied(&operator.at(OPENED).post(path, call("gateway/1", "/gateway", "4")).await?)?;
    let second = operator.post(path, call("app/1", "/app", "3")).await?;
    let said = &second.expect(200)?.body;
    ensure!(said["outcome"] == "duplicate" && said["duplicate_of"] == "gateway/1", "{}", second.text);
    let event = operator.get("/v1/accounts/acme/events/app%2F1").await?;
    let shown = &event.expect(200)?.body;
    ensure!(shown["outcome"] == "duplicate" && shown["duplicate_of"] == "gateway/1", "{}", event.text);
    ensure!(shown["duplicate_of_source"] == "/gateway" && shown["credits"] == Value::Null, "{}", event.text);
    // Its id is known from then on.
    let other = json!({"id": "app/1", "source": "/app", "occurred_at": OPENED, "credits": "3"});
    operator.post(path, other).await?.expect_problem(409, "conflict")?;
    expect_balance(operator, "acme", "used=4").await
}

async fn a_hold_stays_where_its_call_was_charged_before(operator: &Caller) -> Result<()> {
    let hold = json!({"reservation_id": "r1", "amount": "5"});
    operator.post("/v1/accounts/acme/reservations", hold).await?.expect(201)?;
    let settled =
        operator.post("/v1/accounts/acme/reservations/r1/settle", call("app/2", "/app", "3")).await?;
    ensure!(settled.expect(200)?.body["duplicate_of"] == "gateway/1", "{}", settled.text);
    expect_balance(operator, "acme", "used=4 held=5").await?;
    operator.post_nothing("/v1/accounts/acme/reservations/r1/release").await?.expect(200)?;
    expect_balance(operator, "acme", "held=0").await
}

async fn whole_numbers_are_taken_as_languages_write_them(operator: &Caller) -> Result<()> {
    let path = "/v1/accounts/acme/usage?wait=true";
    let body = |id: &str, number: &str| {
        format!(
            r#"{{"id":"{id}","occurred_at":"{OPENED}","credits":"0","quantities":{{"tokens":{number}}}}}"#
        )
    };
    for (id, number) in [("n1", "1000.0"), ("n2", "1000"), ("n3", "1e3"), ("n4", "\"1000\"")] {
        expect_applied(&operator.send_as(Method::POST, path, "application/json", &body(id, number)).await?)?;
        // Equal as numbers is equal content.
        let again = operator.send_as(Method::POST, path, "application/json", &body(id, "1000")).await?;
        ensure!(again.expect(200)?.body["outcome"] == "duplicate", "{}", again.text);
    }
    let part = operator.send_as(Method::POST, path, "application/json", &body("n5", "1000.5")).await?;
    part.expect_fields(&["quantities.tokens not_an_amount"]).map(drop)
}

async fn a_conflict_names_the_fields_that_differ(operator: &Caller) -> Result<()> {
    let path = "/v1/accounts/acme/usage?wait=true";
    let first = json!({"id": "c1", "occurred_at": OPENED, "credits": "1", "model": "a", "quantities": {"x": "1", "y": 2}});
    expect_applied(&operator.post(path, first.clone()).await?)?;
    let mut other = first.clone();
    other["occurred_at"] = json!("2026-02-03T10:00:01Z");
    other["quantities"]["y"] = json!(3);
    let plain = operator.post(path, other).await?;
    let differs = &plain.expect_problem(409, "conflict")?.body["differs"];
    ensure!(*differs == json!(["occurred_at", "quantities.y"]), "{}", plain.text);
    let event = json!({"specversion": "1.0", "id": "c1", "source": "/v1/usage", "type": "ledger.usage.recorded.v1",
        "subject": "acme", "time": "2026-02-03T10:00:02Z", "data": {"credits": "1", "model": "b", "quantities": {"x": 1, "y": 2}}});
    let media_type = "application/cloudevents+json";
    let cloud =
        operator.send_as(Method::POST, "/v1/events?wait=true", media_type, &event.to_string()).await?;
    let differs = &cloud.expect_problem(409, "conflict")?.body["differs"];
    ensure!(*differs == json!(["time", "data.model"]), "{}", cloud.text);
    let media_type = "application/cloudevents-batch+json";
    let batch = json!([event]).to_string();
    let batch = operator.send_as(Method::POST, "/v1/events?wait=true", media_type, &batch).await?;
    let item = &batch.expect(200)?.body["items"][0];
    ensure!(
        item["outcome"] == "conflict" && item["differs"] == json!(["time", "data.model"]),
        "{}",
        batch.text
    );
    // So does what was sent under a grant's id.
    let grant = |amount: &str| json!({"grant_id": "g1", "source": "promo", "amount": amount});
    expect_applied(&operator.post("/v1/accounts/acme/grants", grant("5")).await?)?;
    let granted = operator.post("/v1/accounts/acme/grants", grant("6")).await?;
    ensure!(
        granted.expect_problem(409, "conflict")?.body["differs"] == json!(["amount"]),
        "{}",
        granted.text
    );
    Ok(())
}
