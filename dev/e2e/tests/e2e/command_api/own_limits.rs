//! Users' own limits: one by one, beside the limits of all.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use platform::kafka::Appender;
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

/// Users with a limit of their own: more than the account itself could ever hold.
const MANY: usize = 20_000;
/// Requests timed of each account.
const TIMED: usize = 15;

#[tokio::test(flavor = "multi_thread")]
async fn very_many_own_limits_cost_an_account_nothing() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    for account in ["acme", "small"] {
        open(&operator, account, "100000").await?;
    }
    let limit = |n: usize| {
        let event = json!({"specversion": "1.0", "id": format!("l{n}"), "source": "/app", "subject": "acme",
                           "type": "ledger.user_limit.set.v1", "time": OPENED, "recordedat": OPENED, "actor": "app",
                           "data": {"user_id": format!("user{n:05}"), "limit": "7"}});
        ("acme", event.to_string())
    };
    let appender = Appender::new(&whole.kafka, &whole.kafka.topics().events, whole.kafka.partitions)?;
    for appended in appender.append_all(&(0..MANY).map(limit).collect::<Vec<_>>()).await {
        appended?;
    }
    whole.all_projected().await?;
    whole.all_evaluated().await?;
    ensure!(limits(&operator).await?["own_limits"] == MANY, "{}", limits(&operator).await?);
    let last = operator.get(&format!("/v1/accounts/acme/limits/users/user{:05}", MANY - 1)).await?;
    ensure!(last.expect(200)?.body["limit"] == "7", "{}", last.text);

    let (many, few) = (put_and_get(&operator, "acme").await?, put_and_get(&operator, "small").await?);
    ensure!(many < few * 3 + Duration::from_millis(100), "{many:?} of many, {few:?} of few");
    ensure_equal_sizes(&whole).await?;
    ensure_enforced(&operator).await?;

    // One request replaces them all.
    let none = json!({"default_limit": "100", "custom": {"ana": "1"}});
    expect_applied(&operator.put("/v1/accounts/acme/limits?wait=true", none).await?)?;
    ensure!(limits(&operator).await?["own_limits"] == 1 && own(&operator, 500).await? == "ana 1");
    operator
        .get("/v1/accounts/acme/limits/users/user00001")
        .await?
        .expect_problem(404, "user_limit_unknown")?;
    let check = json!({"user_id": "user00001", "amount": "1"});
    let answer = operator.post("/v1/accounts/acme/check", check).await?;
    ensure!(answer.expect(200)?.body["limit"] == "100" && answer.body["allowed"] == true, "{}", answer.text);
    whole.replay_and_stop().await
}

/// Times how long a user's limit takes to be set, projected and read, in the middle of some.
async fn put_and_get(operator: &Caller, account: &str) -> Result<Duration> {
    let mut times = Vec::new();
    for n in 0..TIMED {
        let path = format!("/v1/accounts/{account}/limits/users/ana");
        let begun = Instant::now();
        let put = operator.put(&format!("{path}?wait=true"), json!({"limit": n.to_string()})).await?;
        expect_applied(&put)?;
        let read = operator.get(&path).await?;
        ensure!(read.expect(200)?.body["limit"] == n.to_string().as_str(), "{}", read.text);
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[TIMED / 2])
}

/// What each batch writes of an account does not grow with users' limits, nor do snapshots.
async fn ensure_equal_sizes(whole: &Whole) -> Result<()> {
    whole.all_evaluated().await?;
    for what in [
        "octet_length(core::text) from read_model_1.account",
        "octet_length(core::text) + octet_length(watch::text) from alerting_1.account",
        "max(octet_length(core::text)) from read_model_1.snapshot",
    ] {
        let group = if what.contains("snapshot") { "group by account_id" } else { "" };
        let sizes = format!("select account_id, {what} {group} order by account_id");
        let sizes: Vec<(String, i32)> =
            sqlx::query_as(sqlx::AssertSqlSafe(sizes)).fetch_all(&whole.pool).await?;
        // Only figures and ids are longer; the small account's snapshot is of before it had limits.
        let most = if what.contains("snapshot") { 400 } else { 40 };
        ensure!(sizes.len() == 2 && sizes[0].1 <= sizes[1].1 + most, "{what}: {sizes:?}");
    }
    Ok(())
}

/// Each limit holds for its user, and who has reached it is found.
async fn ensure_enforced(operator: &Caller) -> Result<()> {
    let user = "user12345";
    let usage = json!({"id": "u1", "occurred_at": OPENED, "credits": "6", "user_id": user});
    expect_applied(&operator.at(OPENED).post("/v1/accounts/acme/usage?wait=true", usage).await?)?;
    let reserve = |id: &str, user: &str| json!({"reservation_id": id, "user_id": user, "amount": "2"});
    let path = "/v1/accounts/acme/reservations";
    operator.post(path, reserve("r1", user)).await?.expect_problem(402, "user_limit_reached")?;
    operator.post(path, reserve("r2", "user12346")).await?.expect(201)?;
    let usage = json!({"id": "u2", "occurred_at": OPENED, "credits": "1", "user_id": user});
    expect_applied(&operator.at(OPENED).post("/v1/accounts/acme/usage?wait=true", usage).await?)?;
    let over = operator.get("/v1/accounts/acme/users?over_budget=true").await?;
    let items = over.expect(200)?.body["items"].as_array().context("items")?;
    ensure!(items.len() == 1 && items[0]["user_id"] == user && items[0]["limit"] == "7", "{}", over.text);
    let fired = operator.get("/v1/accounts/acme/firings").await?;
    let fired = &fired.expect(200)?.body["items"];
    ensure!(fired[0]["kind"] == "user_limit_reached" && fired[0]["subject"] == user, "{fired}");
    Ok(())
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
