//! Opening accounts.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{OPENED, expect_applied, expect_balance, expect_same, expect_written};
use e2e::{Caller, Whole};

/// The opening of the contract's example.
fn acme() -> Value {
    json!({
        "account_id": "acme", "name": "Acme", "unit": "credits", "usd_per_unit": "0.01", "clock": "test",
        "overdraft": "carry", "low_balance_threshold": "50",
        "plan": {
            "name": "team", "cycle": "monthly", "anchor": "2026-01-31T00:00:00Z", "timezone": "Europe/Berlin",
            "allowance": "10000", "rollover": {"mode": "capped", "cap": null}, "pack_expiry": "never",
            "on_exhausted": "block", "overage_limit": null, "rate_card": "standard"
        },
        "promo_code": null, "referred_by": null
    })
}

fn minimal(account: &str) -> Value {
    json!({"account_id": account, "plan": {"cycle": "monthly", "allowance": "5"}})
}

#[tokio::test]
async fn an_account_opens_once_with_its_plan_and_settings() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    let meter = json!({"category": "c", "prices": {"x": {"credits": "1", "per": "1"}}});
    operator.put("/v1/rate-cards/standard", json!({"meters": [meter]})).await?.expect(200)?;
    an_opening_is_answered_and_kept(&operator).await?;
    what_is_left_out_takes_its_default(&operator).await?;
    an_opening_may_be_left_to_itself(&operator).await?;
    a_bad_opening_opens_nothing(&operator).await?;
    whole.replay_and_stop().await
}

async fn an_opening_is_answered_and_kept(operator: &Caller) -> Result<()> {
    let opened = operator.at(OPENED).post("/v1/accounts", acme()).await?;
    expect_applied(&opened)?;
    expect_balance(operator, "acme", "settled=10000 allowance=10000 status=low").await?;
    let account = operator.get("/v1/accounts/acme").await?;
    let mut expected = acme();
    for field in ["promo_code", "referred_by", "account_id"] {
        let removed = expected.as_object_mut().and_then(|body| body.remove(field));
        ensure!(removed.is_some(), "{field} is in the example");
    }
    for (field, value) in expected.as_object().into_iter().flatten() {
        let shown = &account.body[field];
        let same = match field.as_str() {
            "plan" => shown["cycle"] == value["cycle"] && shown["timezone"] == value["timezone"],
            _ => shown == value,
        };
        ensure!(same, "{field}: {shown} is not {value}");
    }
    ensure!(account.body["opened_at"] == OPENED, "{}", account.text);

    // The same request again, at any time, gets the first answer.
    expect_same(&opened, &operator.at(OPENED).post("/v1/accounts", acme()).await?)?;
    expect_same(&opened, &operator.post("/v1/accounts", acme()).await?)?;
    let mut other = acme();
    other["name"] = json!("Ajax");
    operator.at(OPENED).post("/v1/accounts", other).await?.expect_problem(409, "conflict")?;
    let account = operator.get("/v1/accounts/acme").await?;
    ensure!(account.body["name"] == "Acme", "{}", account.text);
    Ok(())
}

async fn what_is_left_out_takes_its_default(operator: &Caller) -> Result<()> {
    expect_applied(&operator.post("/v1/accounts", minimal("plain")).await?)?;
    let account = operator.get("/v1/accounts/plain").await?;
    let said = |pointer: &str| account.body.pointer(pointer).cloned().unwrap_or_default();
    let expected = [
        ("/unit", json!("credits")),
        ("/usd_per_unit", Value::Null),
        ("/clock", json!("live")),
        ("/overdraft", json!("carry")),
        ("/plan/anchor", said("/opened_at")),
        ("/plan/timezone", json!("UTC")),
        ("/plan/rollover/mode", json!("none")),
        ("/plan/pack_expiry", json!("never")),
        ("/plan/on_exhausted", json!("block")),
    ];
    for (pointer, value) in expected {
        ensure!(said(pointer) == value, "{pointer} in {}", account.text);
    }
    let dollars =
        json!({"account_id": "wallet", "unit": "usd", "plan": {"cycle": "daily", "allowance": "0"}});
    expect_applied(&operator.post("/v1/accounts", dollars).await?)?;
    let account = operator.get("/v1/accounts/wallet").await?;
    ensure!(account.body["usd_per_unit"] == "1", "{}", account.text);
    Ok(())
}

async fn an_opening_may_be_left_to_itself(operator: &Caller) -> Result<()> {
    let accepted = operator.post("/v1/accounts?wait=false", minimal("later")).await?;
    accepted.expect(202)?;
    expect_written(&accepted, None)?;
    let again = operator.post("/v1/accounts", minimal("later")).await?;
    expect_applied(&again)?;
    ensure!(again.body["position"] == accepted.body["position"], "{}", again.text);
    Ok(())
}

async fn a_bad_opening_opens_nothing(operator: &Caller) -> Result<()> {
    let bad = json!({
        "account_id": "no account", "unit": "euro", "usd_per_unit": "0", "clock": 1, "overdraft": {}, "name": 5,
        "low_balance_threshold": "-1", "referred_by": "?", "extra": 1,
        "plan": {
            "cycle": "hourly", "anchor": "soon", "timezone": "Mars/One", "allowance": 5, "on_exhausted": "stop",
            "rollover": {"mode": "capped", "cap": "1e3"}, "pack_expiry": null, "overage_limit": "x", "colour": 1
        }
    });
    let fields = [
        "account_id bad_id",
        "clock wrong_type",
        "extra unknown_field",
        "low_balance_threshold negative",
        "name wrong_type",
        "overdraft wrong_type",
        "plan.allowance not_an_amount",
        "plan.anchor not_a_time",
        "plan.colour unknown_field",
        "plan.cycle not_one_of",
        "plan.on_exhausted not_one_of",
        "plan.overage_limit not_an_amount",
        "plan.rollover.cap not_an_amount",
        "plan.timezone unknown_time_zone",
        "referred_by bad_id",
        "unit not_one_of",
        "usd_per_unit not_positive",
    ];
    operator.post("/v1/accounts", bad).await?.expect_fields(&fields)?;
    let nothing = ["account_id required", "plan required"];
    operator.post("/v1/accounts", json!({})).await?.expect_fields(&nothing)?;
    let empty_plan = json!({"account_id": "bad", "plan": {}});
    let required = ["plan.allowance required", "plan.cycle required"];
    operator.post("/v1/accounts", empty_plan).await?.expect_fields(&required)?;
    operator.post("/v1/accounts", json!([])).await?.expect_fields(&["body wrong_type"])?;

    let live = operator.at(OPENED).post("/v1/accounts", minimal("bad")).await?;
    live.expect_problem(409, "clock_is_live")?;
    let mut promised = minimal("bad");
    promised["promo_code"] = json!("SPRING");
    operator.post("/v1/accounts", promised).await?.expect_problem(404, "promo_code_unknown")?;
    operator.get("/v1/accounts/bad").await?.expect_problem(404, "account_not_found")?;
    Ok(())
}
