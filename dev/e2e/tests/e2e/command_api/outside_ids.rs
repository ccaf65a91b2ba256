//! Ids that the outside world makes: taken as they are, and percent-encoded in paths.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{OPENED, expect_applied, expect_balance, open};
use e2e::{Caller, Whole};

const USER: &str = "auth0|64ab";
const EVENT: &str = "projects/7/calls/9";

fn usage(id: &str, user: &str) -> Value {
    json!({"id": id, "occurred_at": OPENED, "credits": "2", "user_id": user, "org_id": "org/ü", "message_id": "thread/9#3",
           "session_id": "s 9", "provider": "=HYPERLINK()", "model": "claude-sonnet@20260101", "feature": "agent_chat"})
}

#[tokio::test]
async fn ids_of_others_are_taken_as_they_are_and_found_again() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "100").await?;
    usage_is_found_by_its_ids(&operator).await?;
    a_member_sees_his_own(&whole).await?;
    holds_and_limits_know_the_user(&whole).await?;
    payments_have_ids_of_others(&operator).await?;
    ids_are_256_bytes_without_space_around(&operator).await?;
    whole.replay_and_stop().await
}

async fn usage_is_found_by_its_ids(operator: &Caller) -> Result<()> {
    let path = "/v1/accounts/acme/usage?wait=true";
    expect_applied(&operator.at(OPENED).post(path, usage(EVENT, USER)).await?)?;
    let again = operator.post(path, usage(EVENT, USER)).await?;
    ensure!(again.expect(200)?.body["outcome"] == "duplicate", "{}", again.text);
    let event = operator.get("/v1/accounts/acme/events/projects%2F7%2Fcalls%2F9").await?;
    ensure!(event.expect(200)?.body["user_id"] == USER, "{}", event.text);
    let message = operator.get("/v1/accounts/acme/messages/thread%2F9%233").await?;
    ensure!(message.expect(200)?.body["credits"] == "2", "{}", message.text);
    let groups = operator.get("/v1/accounts/acme/usage?group_by=user,model&user=auth0%7C64ab").await?;
    ensure!(groups.expect(200)?.body["items"][0]["user"] == USER, "{}", groups.text);
    // A second user, so that the list has a cursor that names the first.
    expect_applied(&operator.post(path, usage("u2", "b/ü")).await?)?;
    let first = operator.get("/v1/accounts/acme/users?limit=1").await?;
    ensure!(first.expect(200)?.body["items"][0]["user_id"] == USER, "{}", first.text);
    let cursor = first.body["next_cursor"].as_str().unwrap_or_default();
    let second = operator.get(&format!("/v1/accounts/acme/users?limit=1&cursor={cursor}")).await?;
    ensure!(second.expect(200)?.body["items"][0]["user_id"] == "b/ü", "{}", second.text);
    let reversal = "/v1/accounts/acme/usage/projects%2F7%2Fcalls%2F9/reversal";
    expect_applied(&operator.post(reversal, json!({"reason": "wrong"})).await?)?;
    expect_balance(operator, "acme", "used=2 settled=98").await
}

async fn a_member_sees_his_own(whole: &Whole) -> Result<()> {
    let member = whole.keyed("member", &["acme"], Some("b/ü")).await?;
    let users = member.get("/v1/accounts/acme/users").await?;
    let items = users.expect(200)?.body["items"].as_array().cloned().unwrap_or_default();
    ensure!(items.len() == 1 && items[0]["user_id"] == "b/ü", "{}", users.text);
    Ok(())
}

async fn holds_and_limits_know_the_user(whole: &Whole) -> Result<()> {
    let operator = whole.operator();
    let limit = operator.put("/v1/accounts/acme/limits/users/auth0%7C64ab", json!({"limit": "5"})).await?;
    expect_applied(&limit)?;
    let hold = |id: &str, amount: &str| json!({"reservation_id": id, "user_id": USER, "amount": amount});
    operator.post("/v1/accounts/acme/reservations", hold("r1", "4")).await?.expect(201)?;
    let refused = operator.post("/v1/accounts/acme/reservations", hold("r2", "2")).await?;
    refused.expect_problem(402, "user_limit_reached")?;
    let mut settle = usage("projects/7/calls/10", USER);
    settle["credits"] = json!("5");
    let settled = operator.at(OPENED).post("/v1/accounts/acme/reservations/r1/settle", settle).await?;
    ensure!(settled.expect(200)?.body["outcome"] == "applied", "{}", settled.text);
    // The limit is reached, and so told by the user's id.
    whole.all_evaluated().await?;
    let firings = operator.get("/v1/accounts/acme/firings").await?;
    let fired = &firings.expect(200)?.body["items"][0];
    ensure!(fired["kind"] == "user_limit_reached" && fired["subject"] == USER, "{}", firings.text);
    Ok(())
}

async fn payments_have_ids_of_others(operator: &Caller) -> Result<()> {
    let purchase = json!({"payment_id": "orders/2026|7", "amount": "10"});
    expect_applied(&operator.post("/v1/accounts/acme/purchases", purchase).await?)?;
    let refund = json!({"payment_id": "orders/2026|7", "amount": "4"});
    let refunded = operator.with("Idempotency-Key", "k/1").post("/v1/accounts/acme/refunds", refund).await?;
    expect_applied(&refunded)?;
    expect_applied(&operator.delete("/v1/accounts/acme/grants/orders%2F2026%7C7").await?)?;
    // A grant's own id has the shape of the ledger's ids.
    let grant = json!({"grant_id": "a/b", "source": "promo", "amount": "1"});
    operator.post("/v1/accounts/acme/grants", grant).await?.expect_fields(&["grant_id bad_id"]).map(drop)
}

async fn ids_are_256_bytes_without_space_around(operator: &Caller) -> Result<()> {
    let path = "/v1/accounts/acme/usage?wait=true";
    let longest = "ü".repeat(128);
    expect_applied(&operator.post(path, usage(&longest, &longest)).await?)?;
    let too_long = "x".repeat(257);
    operator
        .post(path, usage(&too_long, &too_long))
        .await?
        .expect_fields(&["id bad_id", "user_id bad_id"])?;
    let mut padded = usage(" u3", "ana ");
    padded["model"] = json!("\u{a0}gpt");
    padded["call_id"] = json!("a\nb");
    let bad = ["call_id bad_id", "id bad_id", "model bad_id", "user_id bad_id"];
    operator.post(path, padded).await?.expect_fields(&bad).map(drop)
}
