//! Users' own limits: one by one, beside the limits of all.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{OPENED, expect_applied, expect_same, open};
use e2e::{Caller, Whole};

/// Returns the users with a limit of their own, page by page: `ana 5, bo unlimited`.
async fn own(operator: &Caller, pages_of: usize) -> Result<String> {
    let (mut said, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/accounts/acme/limits/users?limit={pages_of}{cursor}");
        let page = operator.get(&path).await?;
        for item in page.expect(200)?.body["items"].as_array().into_iter().flatten() {
            said.push(format!("{} {}", text(&item["user_id"]), text(&item["limit"])));
        }
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(said.join(", ")),
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

async fn limits(operator: &Caller) -> Result<Value> {
    let read = operator.get("/v1/accounts/acme/limits").await?;
    let mut body = read.expect(200)?.body.clone();
    let fields = body.as_object_mut().into_iter();
    fields.for_each(|body| {
        ["account_id", "position", "recorded_at"].iter().for_each(|name| drop(body.remove(*name)))
    });
    Ok(body)
}

#[tokio::test]
async fn one_users_limit_is_set_beside_the_others() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "100").await?;
    let path = "/v1/accounts/acme/limits/users";
    let standard = |own: u32| json!({"enabled": true, "default_limit": null, "excluded_features": [], "notify": "all_admins", "own_limits": own});
    ensure!(limits(&operator).await? == standard(0), "{}", limits(&operator).await?);

    let ana = operator.put(&format!("{path}/ana"), json!({"limit": "5"})).await?;
    expect_applied(&ana)?;
    expect_same(&ana, &operator.put(&format!("{path}/ana"), json!({"limit": "5.0"})).await?)?;
    expect_applied(&operator.put(&format!("{path}/auth0%7C64ab"), json!({"limit": "unlimited"})).await?)?;
    expect_applied(&operator.put(&format!("{path}/projects%2F7%2Fusers%2F9"), json!({"limit": "7"})).await?)?;
    let three = "ana 5, auth0|64ab unlimited, projects/7/users/9 7";
    ensure!(own(&operator, 500).await? == three, "{}", own(&operator, 500).await?);
    ensure!(own(&operator, 1).await? == three, "{}", own(&operator, 1).await?);
    ensure!(limits(&operator).await? == standard(3));

    // Limits without `custom` leave them as they are, with it they replace them all.
    expect_applied(&operator.put("/v1/accounts/acme/limits", json!({"default_limit": "9"})).await?)?;
    ensure!(own(&operator, 2).await? == three);
    let custom = json!({"custom": {"ana": "6"}});
    expect_applied(&operator.put("/v1/accounts/acme/limits", custom.clone()).await?)?;
    ensure!(own(&operator, 2).await? == "ana 6");
    // What was sent before is new again where another setting has changed what is in force.
    let again = operator.put(&format!("{path}/ana"), json!({"limit": "5"})).await?;
    ensure!(again.expect(200)?.body["event_id"] != ana.body["event_id"], "{}", again.text);
    ensure!(own(&operator, 2).await? == "ana 5");
    expect_applied(&operator.put("/v1/accounts/acme/limits", custom).await?)?;
    ensure!(own(&operator, 2).await? == "ana 6");

    a_limit_holds(&operator).await?;
    expect_applied(&operator.delete(&format!("{path}/ana")).await?)?;
    ensure!(own(&operator, 2).await?.is_empty());
    check_allowed(&operator, true).await?;
    let bad = operator.put(&format!("{path}/ana"), json!({"limit": "-1", "default": "1"})).await?;
    bad.expect_fields(&["default unknown_field", "limit negative"])?;
    operator.put(&format!("{path}/%20ana"), json!({"limit": "1"})).await?.expect(422)?;
    whole.replay_and_stop().await
}

async fn a_limit_holds(operator: &Caller) -> Result<()> {
    let usage = json!({"id": "u1", "occurred_at": OPENED, "credits": "6", "user_id": "ana"});
    expect_applied(&operator.at(OPENED).post("/v1/accounts/acme/usage?wait=true", usage).await?)?;
    check_allowed(operator, false).await?;
    let users = operator.get("/v1/accounts/acme/users?over_budget=true").await?;
    let over = &users.expect(200)?.body["items"];
    ensure!(
        over[0]["user_id"] == "ana" && over[0]["limit"] == "6" && over[0]["blocked"] == true,
        "{}",
        users.text
    );
    Ok(())
}

async fn check_allowed(operator: &Caller, expected: bool) -> Result<()> {
    let check = json!({"user_id": "ana", "amount": "1"});
    let answer = operator.post("/v1/accounts/acme/check", check).await?;
    ensure!(answer.expect(200)?.body["allowed"] == expected, "{}", answer.text);
    Ok(())
}
