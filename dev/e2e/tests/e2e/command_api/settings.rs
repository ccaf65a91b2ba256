//! Settings of an account: its name, plan and test clock.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{expect_applied, expect_balance, expect_same, expect_written, open, open_live};
use e2e::{Caller, Whole};

fn plan(allowance: &str) -> Value {
    json!({"cycle": "monthly", "allowance": allowance})
}

#[tokio::test]
async fn settings_hold_until_others_are_accepted() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    a_change_keeps_what_it_does_not_name(&operator).await?;
    equal_settings_get_the_first_answer(&operator).await?;
    a_plan_changes_now_or_at_the_boundary(&operator).await?;
    a_new_schedule_waits_with_its_allowance(&operator).await?;
    bad_settings_change_nothing(&operator).await?;
    whole.replay_and_stop().await
}

async fn a_change_keeps_what_it_does_not_name(operator: &Caller) -> Result<()> {
    open(operator, "acme", "10").await?;
    let path = "/v1/accounts/acme";
    let all = json!({"name": "Acme", "overdraft": "forgive_at_reset", "low_balance_threshold": "3"});
    expect_applied(&operator.patch(path, all).await?)?;
    expect_balance(operator, "acme", "status=low").await?;
    expect_applied(&operator.patch(path, json!({"name": "Ajax"})).await?)?;
    let shown = operator.get(path).await?.body;
    let said = [&shown["name"], &shown["overdraft"], &shown["low_balance_threshold"]];
    ensure!(said == ["Ajax", "forgive_at_reset", "3"], "{shown}");
    expect_applied(&operator.patch(path, json!({"low_balance_threshold": null})).await?)?;
    expect_balance(operator, "acme", "status=active").await?;
    let accepted = operator.patch("/v1/accounts/acme?wait=false", json!({"name": "Acme"})).await?;
    accepted.expect(202)?;
    expect_written(&accepted, None)
}

async fn equal_settings_get_the_first_answer(operator: &Caller) -> Result<()> {
    open(operator, "same", "10").await?;
    let path = "/v1/accounts/same";
    let first = operator.patch(path, json!({"name": "A"})).await?;
    expect_same(&first, &operator.patch(path, json!({"name": "A"})).await?)?;
    let other = operator.patch(path, json!({"name": "B"})).await?;
    let back = operator.patch(path, json!({"name": "A"})).await?;
    ensure!(back.body["position"] != first.body["position"], "A after B is a new setting: {}", back.text);
    ensure!(other.body["event_id"] != back.body["event_id"], "{}", back.text);
    ensure!(operator.get(path).await?.body["name"] == "A");

    let path = "/v1/accounts/same/plan";
    let first = operator.put(path, json!({"plan": plan("12"), "at": "now"})).await?;
    expect_applied(&first)?;
    expect_same(&first, &operator.put(path, json!({"plan": plan("12"), "at": "now"})).await?)?;
    expect_balance(operator, "same", "settled=12").await
}

async fn a_plan_changes_now_or_at_the_boundary(operator: &Caller) -> Result<()> {
    open(operator, "planned", "10").await?;
    let path = "/v1/accounts/planned/plan";
    expect_applied(&operator.put(path, json!({"plan": plan("15")})).await?)?;
    expect_balance(operator, "planned", "settled=15 allowance=15").await?;
    expect_applied(&operator.put(path, json!({"plan": plan("20"), "at": "next_period"})).await?)?;
    expect_balance(operator, "planned", "settled=15 allowance=15").await?;
    let shown = operator.get("/v1/accounts/planned").await?.body;
    ensure!(shown["next_plan"]["allowance"] == "20", "{shown}");
    // A write with a time moves the clock over the boundary.
    let later = operator.at("2026-03-02T00:00:00Z");
    expect_applied(&later.patch("/v1/accounts/planned", json!({"name": "P"})).await?)?;
    expect_balance(operator, "planned", "settled=20 allowance=20").await
}

async fn a_new_schedule_waits_with_its_allowance(operator: &Caller) -> Result<()> {
    open(operator, "yearly", "1000").await?;
    let path = "/v1/accounts/yearly/plan";
    let yearly = json!({"plan": {"name": "yearly", "cycle": "yearly", "allowance": "12000"}, "at": "now"});
    let changed = operator.put(path, yearly).await?;
    expect_applied(&changed)?;
    ensure!(changed.body.get("replaced").is_none(), "{}", changed.text);
    expect_balance(operator, "yearly", "settled=1000 allowance=1000").await?;
    let shown = operator.get(path).await?.body;
    let said = [
        &shown["plan"]["cycle"],
        &shown["plan"]["allowance"],
        &shown["next"]["cycle"],
        &shown["next"]["allowance"],
    ];
    ensure!(said == ["monthly", "1000", "yearly", "12000"], "{shown}");
    let account = operator.get("/v1/accounts/yearly").await?.body;
    ensure!(shown["next_at"] == account["period"]["ends_at"] && !shown["next_at"].is_null(), "{shown}");
    for (one, other) in [("plan", "plan"), ("next_plan", "next"), ("next_at", "next_at")] {
        ensure!(account[one] == shown[other], "{account} {shown}");
    }
    // Another change replaces what waits, and says so.
    let replacing = operator.put(path, json!({"plan": plan("900"), "at": "now"})).await?;
    replacing.expect(200)?;
    let replaced = &replacing.body["replaced"];
    ensure!(replaced["name"] == "yearly" && replaced["allowance"] == "12000", "{}", replacing.text);
    let shown = operator.get(path).await?.body;
    ensure!(shown["next"].is_null() && shown["next_at"].is_null(), "{shown}");
    ensure!(shown["replaced"]["by"] == replacing.body["event_id"], "{shown}");
    ensure!(shown["replaced"]["plan"]["name"] == "yearly", "{shown}");
    expect_balance(operator, "yearly", "settled=900 allowance=900").await
}

async fn bad_settings_change_nothing(operator: &Caller) -> Result<()> {
    open(operator, "still", "10").await?;
    let account = "/v1/accounts/still";
    operator.patch(account, json!({})).await?.expect_fields(&["body empty"])?;
    let bad = json!({"name": 1, "overdraft": "no", "low_balance_threshold": "x", "plan": {}});
    let fields = [
        "low_balance_threshold not_an_amount",
        "name wrong_type",
        "overdraft not_one_of",
        "plan unknown_field",
    ];
    operator.patch(account, bad).await?.expect_fields(&fields)?;
    let bad = json!({"plan": {"cycle": "monthly", "allowance": "-1", "rollover": {"mode": "none", "cap": "1"}}, "at": "soon"});
    let fields = ["at not_one_of", "plan.allowance negative", "plan.rollover.cap not_allowed"];
    operator.put("/v1/accounts/still/plan", bad).await?.expect_fields(&fields)?;
    operator.put("/v1/accounts/still/plan", json!({})).await?.expect_fields(&["plan required"])?;
    for path in ["/v1/accounts/nobody", "/v1/accounts/nobody/plan", "/v1/accounts/nobody/clock"] {
        let answer = match path.rsplit('/').next() {
            Some("plan") => operator.put(path, json!({"plan": plan("1")})).await?,
            Some("clock") => operator.post(path, json!({"advance_to": "2026-03-01T00:00:00Z"})).await?,
            _ => operator.patch(path, json!({"name": "N"})).await?,
        };
        answer.expect_problem(404, "account_not_found")?;
    }
    expect_balance(operator, "still", "settled=10 allowance=10").await
}

#[tokio::test]
async fn a_test_clock_moves_by_writes_and_forward_only() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    a_clock_crosses_boundaries_as_it_is_advanced(&operator).await?;
    a_write_may_carry_its_time(&operator).await?;
    a_refused_write_moves_nothing(&operator).await?;
    one_move_crosses_so_much_and_no_more(&operator).await?;
    a_live_clock_is_nobodys_to_move(&operator).await?;
    whole.replay_and_stop().await
}

async fn period(operator: &Caller, account: &str) -> Result<(i64, Value)> {
    let balance = super::balance(operator, account).await?;
    Ok((balance["period"]["index"].as_i64().unwrap_or(i64::MIN), balance["recorded_at"].clone()))
}

async fn a_clock_crosses_boundaries_as_it_is_advanced(operator: &Caller) -> Result<()> {
    open(operator, "acme", "5").await?;
    let clock = "/v1/accounts/acme/clock";
    let advanced = operator.post(clock, json!({"advance_to": "2026-04-01T00:00:00Z"})).await?;
    expect_applied(&advanced)?;
    ensure!(period(operator, "acme").await? == (2, json!("2026-04-01T00:00:00Z")));
    expect_same(&advanced, &operator.post(clock, json!({"advance_to": "2026-04-01T00:00:00Z"})).await?)?;
    // A move back is ignored, not refused.
    expect_applied(&operator.post(clock, json!({"advance_to": "2026-03-01T00:00:00Z"})).await?)?;
    ensure!(period(operator, "acme").await?.0 == 2);
    operator.post(clock, json!({"advance_to": 1})).await?.expect_fields(&["advance_to not_a_time"])?;
    operator.post(clock, json!({})).await?.expect_fields(&["advance_to required"])?;
    Ok(())
}

async fn a_write_may_carry_its_time(operator: &Caller) -> Result<()> {
    open(operator, "timed", "5").await?;
    let grant = |id: &str| json!({"grant_id": id, "source": "promo", "amount": "1"});
    let path = "/v1/accounts/timed/grants";
    expect_applied(&operator.post(path, grant("g1")).await?)?;
    ensure!(period(operator, "timed").await?.1 == super::OPENED, "without a time the clock stands still");
    expect_applied(&operator.at("2026-02-10T00:00:00.500Z").post(path, grant("g2")).await?)?;
    ensure!(period(operator, "timed").await?.1 == "2026-02-10T00:00:00.500Z");
    expect_applied(&operator.at("2026-02-09T00:00:00Z").post(path, grant("g3")).await?)?;
    ensure!(period(operator, "timed").await?.1 == "2026-02-10T00:00:00.500Z", "never back");
    // With a time usage waits by default; without one it does not.
    let usage = |id: &str| json!({"id": id, "occurred_at": "2026-02-11T00:00:00Z", "credits": "1"});
    let path = "/v1/accounts/timed/usage";
    expect_applied(&operator.at("2026-02-11T00:00:00Z").post(path, usage("u1")).await?)?;
    let free = operator.post(path, usage("u2")).await?;
    free.expect(202)?;
    let shown = operator.at("2026-02-11T00:00:00Z").post(&format!("{path}?wait=false"), usage("u3")).await?;
    shown.expect(202)?;
    expect_written(&shown, None)?;
    operator.at("yesterday").post(path, usage("u4")).await?.expect_fields(&["Ledger-Time not_a_time"])?;
    let twice = operator.at("2026-02-11T00:00:00Z").at("2026-02-11T00:00:00Z");
    twice.post(path, usage("u4")).await?.expect_fields(&["Ledger-Time duplicate"])?;
    Ok(())
}

async fn a_refused_write_moves_nothing(operator: &Caller) -> Result<()> {
    open(operator, "calm", "5").await?;
    let later = operator.at("2026-05-01T00:00:00Z");
    let bad = json!({"grant_id": "g", "source": "promo", "amount": "0"});
    later.post("/v1/accounts/calm/grants", bad).await?.expect(422)?;
    let old = json!({"id": "u", "occurred_at": "2026-02-03T10:00:00Z", "credits": "1"});
    later.post("/v1/accounts/calm/usage", old).await?.expect_problem(422, "too_old")?;
    let nobody = json!({"id": "u", "occurred_at": "2026-05-01T00:00:00Z", "quantities": {"x": 1}});
    later.post("/v1/accounts/calm/usage", nobody).await?.expect_problem(422, "unpriced_usage")?;
    ensure!(period(operator, "calm").await? == (0, json!(super::OPENED)));
    Ok(())
}

async fn one_move_crosses_so_much_and_no_more(operator: &Caller) -> Result<()> {
    let daily = json!({"cycle": "daily", "anchor": "2026-02-03T00:00:00Z", "allowance": "1"});
    let body = json!({"account_id": "daily", "clock": "test", "plan": daily});
    operator.at(super::OPENED).post("/v1/accounts", body).await?.expect(200)?;
    let far = "2126-01-01T00:00:00Z";
    let clock = operator.post("/v1/accounts/daily/clock", json!({"advance_to": far})).await?;
    clock.expect_problem(422, "clock_jump")?;
    let named = operator.at(far).patch("/v1/accounts/daily", json!({"name": "D"})).await?;
    named.expect_problem(422, "clock_jump")?;
    let usage = json!({"id": "u", "occurred_at": far, "credits": "1"});
    let used = operator.at(far).post("/v1/accounts/daily/usage", usage).await?;
    used.expect_problem(422, "clock_jump")?;
    ensure!(period(operator, "daily").await? == (0, json!(super::OPENED)));
    // 1,000 days are allowed.
    let near = "2028-10-30T00:00:00Z";
    expect_applied(&operator.post("/v1/accounts/daily/clock", json!({"advance_to": near})).await?)?;
    ensure!(period(operator, "daily").await?.0 == 1000);
    Ok(())
}

async fn a_live_clock_is_nobodys_to_move(operator: &Caller) -> Result<()> {
    open_live(operator, "live", "5").await?;
    let clock =
        operator.post("/v1/accounts/live/clock", json!({"advance_to": "2030-01-01T00:00:00Z"})).await?;
    clock.expect_problem(409, "clock_is_live")?;
    let timed = operator.at("2030-01-01T00:00:00Z");
    timed.patch("/v1/accounts/live", json!({"name": "L"})).await?.expect_problem(409, "clock_is_live")?;
    let grant = json!({"grant_id": "g", "source": "promo", "amount": "1"});
    timed.post("/v1/accounts/live/grants", grant).await?.expect_problem(409, "clock_is_live")?;
    let usage = json!({"id": "u", "occurred_at": "2030-01-01T00:00:00Z", "credits": "1"});
    timed.post("/v1/accounts/live/usage", usage).await?.expect_problem(409, "clock_is_live")?;
    expect_balance(operator, "live", "settled=5").await
}
