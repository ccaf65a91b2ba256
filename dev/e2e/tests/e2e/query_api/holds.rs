//! Reading holds: in balances and users, one by one, in the usage that settled them, and as refusals.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::described::{ensure_is, read};
use super::story::Story;
use e2e::{Answer, Caller, Whole};

const OPENED: &str = "2026-01-05T00:00:00Z";
const BEGUN: &str = "2026-01-06T10:00:00Z";

/// An account with 100 credits, of which `ana` has used 10 for chat by the sixth of January.
async fn tell(whole: &Whole) -> Result<Story> {
    let story = Story::monthly(whole, "acme", json!({"allowance": "100"})).await?;
    let limits = json!({"default_limit": "50", "excluded_features": ["workflow"]});
    story.limits(OPENED, limits).await?;
    let usage = json!({"credits": "10", "user_id": "ana", "feature": "chat"});
    story.usage(BEGUN, "u1", usage).await?;
    Ok(story)
}

async fn reserve(whole: &Whole, at: &str, body: Value) -> Result<Answer> {
    whole.operator().at(at).post("/v1/accounts/acme/reservations", body).await
}

fn hold(id: &str, user: Option<&str>, feature: &str, amount: &str, seconds: u32) -> Value {
    json!({"reservation_id": id, "user_id": user, "feature": feature, "amount": amount, "ttl_seconds": seconds})
}

/// Three open holds: 20 and 5 of `ana`, the latter for a feature that her limit excludes, and 30 without a user.
async fn hold_three(whole: &Whole) -> Result<()> {
    for body in [
        hold("r1", Some("ana"), "chat", "20", 3_600),
        hold("r2", Some("ana"), "workflow", "5", 60),
        hold("r3", None, "chat", "30", 900),
    ] {
        reserve(whole, BEGUN, body).await?.expect(201)?;
    }
    Ok(())
}

/// Checks `settled held available status` of the balance.
async fn check_balance(story: &Story, query: &str, expected: &str) -> Result<()> {
    let balance = story.get(&format!("/balance{query}")).await?;
    let found = ["settled", "held", "available", "status"]
        .map(|field| balance.body[field].as_str().unwrap_or("?").to_owned())
        .join(" ");
    ensure!(found == expected, "found {found}, not {expected}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn open_holds_show_in_the_balance_and_with_each_user() -> Result<()> {
    let whole = Whole::start().await?;
    let story = tell(&whole).await?;
    check_balance(&story, "", "90 0 90 active").await?;
    hold_three(&whole).await?;
    check_balance(&story, "", "90 55 35 active").await?;
    // Holds exist only in the present.
    check_balance(&story, &format!("?as_of={BEGUN}"), "90 0 90 active").await?;
    reserve(&whole, BEGUN, hold("r4", Some("bo"), "chat", "35", 3_600)).await?.expect(201)?;
    check_balance(&story, "", "90 90 0 depleted").await?;

    let ana = json!({"user_id": "ana", "used": "10", "counted": "10", "held": "25", "limit": "50", "blocked": false});
    // A user with a hold is listed, even without usage.
    let bo =
        json!({"user_id": "bo", "used": "0", "counted": "0", "held": "35", "limit": "50", "blocked": false});
    ensure_is(&json!(story.items("/users").await?), &json!([ana, bo]))?;
    ensure_is(&json!(story.pages("/users", 1).await?), &json!([ana, bo]))?;
    let csv = story.csv("/users").await?;
    ensure!(csv.text.ends_with("\nana,10,10,25,50,false\nbo,0,0,35,50,false\n"), "{}", csv.text);
    let member = whole.keyed("member", &["acme"], Some("ana")).await?;
    let own = read(&member, "/v1/accounts/acme/users").await?;
    ensure_is(&own.body["items"], &json!([ana]))?;
    story.limits(BEGUN, json!({"default_limit": "10"})).await?;
    let over = story.items("/users?over_budget=true").await?;
    ensure!(over.len() == 1 && over[0]["held"] == "25", "{over:?}");

    // All have expired but the hold of an hour.
    story.clock("2026-01-06T10:15:00Z").await?;
    check_balance(&story, "", "90 55 35 active").await?;
    ensure!(story.items("/users").await?[0]["held"] == "20");
    story.clock("2026-01-06T11:00:00Z").await?;
    check_balance(&story, "", "90 0 90 active").await?;
    whole.replay_and_stop().await
}

async fn expect_state(caller: &Caller, id: &str, expected: Value) -> Result<()> {
    let found = read(caller, &format!("/v1/accounts/acme/reservations/{id}")).await?;
    found.expect(200)?;
    for (name, value) in expected.as_object().context("fields")? {
        ensure!(&found.body[name] == value, "{name} of {id} is not {value}: {}", found.text);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn open_holds_are_listed_and_each_is_read_whatever_became_of_it() -> Result<()> {
    let whole = Whole::start().await?;
    let story = tell(&whole).await?;
    hold_three(&whole).await?;
    let r1 = json!({"reservation_id": "r1", "state": "held", "amount": "20", "user_id": "ana", "feature": "chat",
        "created_at": "*", "expires_at": "2026-01-06T11:00:00Z", "event_id": null, "source": null});
    let ids = |items: &[Value]| {
        items.iter().filter_map(|hold| hold["reservation_id"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    // The holds that expire first come first.
    for limit in [1, 2, 50] {
        let open = story.pages("/reservations", limit).await?;
        ensure!(ids(&open) == ["r2", "r3", "r1"], "{open:?}");
        ensure_is(&open[2], &r1)?;
    }
    ensure!(ids(&story.items("/reservations?user=ana").await?) == ["r2", "r1"]);
    let mut whole_r1 = r1.clone();
    for (name, value) in
        [("account_id", "acme"), ("position", "*"), ("recorded_at", BEGUN), ("available", "35")]
    {
        whole_r1[name] = json!(value);
    }
    ensure_is(&story.get("/reservations/r1").await?.body, &whole_r1)?;

    let member = whole.keyed("member", &["acme"], Some("bo")).await?;
    reserve(&whole, BEGUN, hold("r4", Some("bo"), "chat", "1", 30)).await?.expect(201)?;
    let own = read(&member, "/v1/accounts/acme/reservations").await?;
    ensure!(ids(own.body["items"].as_array().context("items")?) == ["r4"], "{}", own.text);
    let own = read(&member, "/v1/accounts/acme/reservations/r4").await?;
    ensure!(own.body["state"] == "held" && own.body["available"].is_null(), "{}", own.text);
    for others in ["?user=ana", "/r1", "/r3"] {
        let refused = read(&member, &format!("/v1/accounts/acme/reservations{others}")).await?;
        refused.expect_problem(403, "forbidden")?;
    }
    let producer = whole.keyed("producer", &["acme"], None).await?;
    read(&producer, "/v1/accounts/acme/reservations").await?.expect_problem(403, "forbidden")?;
    let operator = whole.operator();
    read(&operator, "/v1/accounts/acme/reservations/r9")
        .await?
        .expect_problem(404, "reservation_not_found")?;
    read(&operator, "/v1/accounts/acme/reservations?cursor=x").await?.expect_problem(422, "invalid")?;

    operator.post_nothing("/v1/accounts/acme/reservations/r3/release").await?.expect(200)?;
    expect_state(&operator, "r3", json!({"state": "released", "available": "64"})).await?;
    let usage =
        json!({"id": "u2", "occurred_at": BEGUN, "user_id": "ana", "feature": "chat", "credits": "22"});
    operator.at(BEGUN).post("/v1/accounts/acme/reservations/r1/settle", usage).await?.expect(200)?;
    let settled = json!({"state": "settled", "amount": "20", "event_id": "u2", "source": "/v1/usage", "available": "62"});
    expect_state(&operator, "r1", settled).await?;
    story.clock("2026-01-06T10:00:59Z").await?;
    expect_state(&operator, "r2", json!({"state": "held", "available": "63"})).await?;
    ensure!(ids(&story.items("/reservations").await?) == ["r2"]);
    story.clock("2026-01-06T10:01:00Z").await?;
    expect_state(&operator, "r2", json!({"state": "expired", "amount": "5", "available": "68"})).await?;
    ensure!(story.items("/reservations").await?.is_empty());
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_settling_until_the_usage_that_ends_it_is_projected() -> Result<()> {
    let whole = Whole::start().await?;
    let story = tell(&whole).await?;
    hold_three(&whole).await?;
    // The state between a settle and its record: charged more than was held, expired, and not in the journal yet.
    let settling = "with hold as (
            update control.hold set state = 'settling', counts = 25, event_id = 'u2', source = '/v1/usage', settlement = content
            where account_id = 'acme' and reservation_id = 'r1'
        ), gate as (
            update control.gate set held = held + 5 where account_id = 'acme'
        )
        update control.user_hold set held = held + 5 where account_id = 'acme' and user_id = 'ana' and feature = 'chat'";
    sqlx::query(settling).execute(&whole.pool).await?;
    story.clock("2026-01-06T12:00:00Z").await?;
    check_balance(&story, "", "90 25 65 active").await?;
    ensure!(story.items("/users").await?[0]["held"] == "25");
    let open = story.items("/reservations").await?;
    ensure!(open.len() == 1 && open[0]["state"] == "settling" && open[0]["event_id"] == "u2", "{open:?}");
    // Once the usage is projected, the same rows are a settled hold.
    sqlx::query("insert into read_model_1.ended_hold values ('acme', 'r1', 'u2')")
        .execute(&whole.pool)
        .await?;
    check_balance(&story, "", "90 0 90 active").await?;
    ensure!(story.items("/users").await?[0]["held"] == "0" && story.items("/reservations").await?.is_empty());
    expect_state(&whole.operator(), "r1", json!({"state": "settled", "amount": "20"})).await?;
    sqlx::query("delete from read_model_1.ended_hold").execute(&whole.pool).await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_that_ended_a_hold_says_what_was_held() -> Result<()> {
    let whole = Whole::start().await?;
    let story = tell(&whole).await?;
    hold_three(&whole).await?;
    for (hold, id, credits) in [("r1", "u2", "22.5"), ("r2", "u3", "4")] {
        let usage = json!({"id": id, "occurred_at": BEGUN, "user_id": "ana", "feature": "chat", "credits": credits,
            "message_id": "m1"});
        let path = format!("/v1/accounts/acme/reservations/{hold}/settle");
        whole.operator().at(BEGUN).post(&path, usage).await?.expect(200)?;
    }
    let expect = async |path: &str, expected: [Value; 3]| -> Result<()> {
        let body = story.get(path).await?.body;
        let found = ["reservation_id", "held", "over_hold"].map(|field| body[field].clone());
        ensure!(found == expected, "{path}: {body}");
        anyhow::Ok(())
    };
    expect("/events/u2", [json!("r1"), json!("20"), json!("2.5")]).await?;
    expect("/events/u3", [json!("r2"), json!("5"), json!("0")]).await?;
    expect("/events/u1", [Value::Null, Value::Null, Value::Null]).await?;
    expect("/messages/m1", [Value::Null, json!("25"), json!("2.5")]).await?;
    story.post(BEGUN, "/usage/u2/reversal", json!({"reason": "wrong"})).await?;
    expect("/messages/m1", [Value::Null, json!("5"), json!("0")]).await?;
    whole.replay_and_stop().await
}

/// Decisions as `kind user amount code`, newest first.
fn summary(decisions: &[Value]) -> Vec<String> {
    let one = |decision: &Value| {
        ["kind", "user_id", "amount", "code"].map(|field| decision[field].as_str().unwrap_or("-")).join(" ")
    };
    decisions.iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_kept_with_the_figures_that_it_was_decided_from() -> Result<()> {
    let whole = Whole::start_with(&["--decisions-keep-allowed"]).await?;
    let story = tell(&whole).await?;
    let operator = whole.operator();
    let (at_1, at_2, at_3) = ("2026-01-06T10:04:00Z", "2026-01-06T10:05:00Z", "2026-01-06T10:06:00Z");
    reserve(&whole, BEGUN, hold("r1", Some("ana"), "chat", "30", 3_600)).await?.expect(201)?;
    reserve(&whole, at_1, hold("r2", Some("ana"), "chat", "11", 3_600)).await?.expect(402)?;
    let extend = json!({"amount": "41"});
    operator.at(at_2).patch("/v1/accounts/acme/reservations/r1", extend).await?.expect(402)?;
    let work = json!({"user_id": "bo", "amount": "60.5"});
    operator.at(at_3).post("/v1/accounts/acme/check", work).await?.expect(200)?;
    reserve(&whole, at_3, hold("r3", None, "chat", "60.1", 60)).await?.expect(402)?;

    let all = [
        "reserve - 60.1 credits_exhausted",
        "check bo 60.5 user_limit_reached",
        "extend ana 11 user_limit_reached",
        "reserve ana 11 user_limit_reached",
        "reserve ana 30 -",
    ];
    for limit in [1, 2, 50] {
        let found = summary(&story.pages("/decisions", limit).await?);
        ensure!(found == all, "{found:?}");
    }
    // Was Ana rightly blocked at 10:04? `from` is inclusive, `to` exclusive.
    let window = format!("/decisions?user=ana&from={at_1}&to={at_2}");
    let found = story.items(&window).await?;
    let expected = json!({
        "id": "*", "decided_at": at_1, "kind": "reserve", "allowed": false, "code": "user_limit_reached",
        "message": "You have used 10 of your 50 credits, and 30 are held for work in progress; your limit resets on 1 February.",
        "reservation_id": "r2", "user_id": "ana", "feature": "chat", "amount": "11", "settled": "90", "available": "60",
        "floor": "0", "limit": "50", "used": "10", "held": "30", "period_index": 0, "resets_at": "2026-02-01T00:00:00Z",
        "position": "*", "actor": "*",
    });
    ensure_is(&json!(found), &json!([expected]))?;
    let until = summary(&story.pages(&format!("/decisions?to={at_3}"), 2).await?);
    ensure!(until == all[2..], "{until:?}");
    let grant = story.items(&format!("/decisions?to={at_1}")).await?;
    ensure!(grant.len() == 1 && grant[0]["allowed"] == true && grant[0]["message"].is_null(), "{grant:?}");

    let member = whole.keyed("member", &["acme"], Some("ana")).await?;
    let own = read(&member, "/v1/accounts/acme/decisions").await?;
    for field in ["settled", "available", "floor", "actor"] {
        ensure!(own.body["items"][0].get(field).is_none(), "the account's own: {}", own.text);
    }
    let own = summary(own.body["items"].as_array().context("items")?);
    ensure!(own == all[2..], "{own:?}");
    read(&member, "/v1/accounts/acme/decisions?user=bo").await?.expect_problem(403, "forbidden")?;
    let producer = whole.keyed("producer", &["acme"], None).await?;
    read(&producer, "/v1/accounts/acme/decisions").await?.expect_problem(403, "forbidden")?;
    read(&operator, "/v1/accounts/acme/decisions?from=yesterday")
        .await?
        .expect_fields(&["from not_a_time"])?;
    whole.replay_and_stop().await
}
