//! Rules that an account's admins set: limits, org alerts, the user alert.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use ledger_core::account::alert::ORG_ALERTS_MAX;
use serde_json::{Value, json};

use super::{OPENED, expect_applied, expect_same, expect_written, open, open_live};
use e2e::{Caller, Whole};

/// Alerts that are set concurrently.
const AT_ONCE: usize = 32;

/// Returns a setting as the account shows it.
async fn shown(operator: &Caller, account: &str, setting: &str) -> Result<Value> {
    let answer = operator.get(&format!("/v1/accounts/{account}")).await?;
    Ok(answer.expect(200)?.body[setting].clone())
}

async fn expect_shown(operator: &Caller, account: &str, setting: &str, expected: Value) -> Result<()> {
    let found = shown(operator, account, setting).await?;
    ensure!(found == expected, "{account} has {setting} {found}, not {expected}");
    Ok(())
}

/// Returns an account's org alerts as projected.
async fn org_alerts(whole: &Whole, account: &str) -> Result<BTreeMap<String, Value>> {
    let text: Option<String> = sqlx::query_scalar(
        "select (core -> 'org_alerts')::text from read_model_1.account where account_id = $1",
    )
    .bind(account)
    .fetch_one(&whole.pool)
    .await?;
    Ok(serde_json::from_str(text.as_deref().unwrap_or("{}"))?)
}

fn alert(threshold: &str) -> Value {
    json!({"basis": "percent_used", "threshold": threshold})
}

#[tokio::test]
async fn limits_and_alerts_hold_until_others_are_accepted() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    limits_are_read_back_whole(&operator).await?;
    equal_limits_get_the_first_answer(&operator).await?;
    a_user_alert_is_read_back_whole(&operator).await?;
    an_org_alert_is_in_force_until_it_is_removed(&whole).await?;
    set_again_after_its_removal_an_alert_is_new(&whole).await?;
    no_more_alerts_stand_than_an_account_may_have(&whole).await?;
    whole.replay_and_stop().await
}

async fn limits_are_read_back_whole(operator: &Caller) -> Result<()> {
    open(operator, "acme", "10").await?;
    let path = "/v1/accounts/acme/limits";
    expect_shown(operator, "acme", "limits", Value::Null).await?;
    let all = json!({"enabled": true, "default_limit": "1000", "custom": {"ana": "500.50", "bo": "unlimited"},
                     "excluded_features": ["workflow", "external_agent"], "notify": ["carl"]});
    expect_applied(&operator.put(path, all).await?)?;
    let expected = json!({"enabled": true, "default_limit": "1000", "own_limits": 2,
                          "excluded_features": ["external_agent", "workflow"], "notify": ["carl"]});
    expect_shown(operator, "acme", "limits", expected).await?;
    // A setting is replaced whole: a field that is left out takes its default, not its former value. Only users' own
    // limits stay where they are not named.
    expect_applied(&operator.put(path, json!({"enabled": false})).await?)?;
    let expected = json!({"enabled": false, "default_limit": null, "own_limits": 2, "excluded_features": [],
                          "notify": "all_admins"});
    expect_shown(operator, "acme", "limits", expected).await
}

async fn equal_limits_get_the_first_answer(operator: &Caller) -> Result<()> {
    open(operator, "same", "10").await?;
    let path = "/v1/accounts/same/limits";
    let limit = |amount: &str| json!({"default_limit": amount, "custom": null});
    let first = operator.put(path, limit("5")).await?;
    expect_same(&first, &operator.put(path, limit("5.00")).await?)?;
    let unwaited = operator.put(&format!("{path}?wait=false"), limit("5")).await?;
    ensure!(unwaited.body["position"] == first.body["position"], "{}", unwaited.text);
    expect_applied(&operator.put(path, limit("6")).await?)?;
    let back = operator.put(path, limit("5")).await?;
    ensure!(back.body["event_id"] != first.body["event_id"], "5 after 6 is a new setting: {}", back.text);
    ensure!(shown(operator, "same", "limits").await?["default_limit"] == "5");
    let accepted = operator.put(&format!("{path}?wait=false"), limit("7")).await?;
    accepted.expect(202)?;
    expect_written(&accepted, None)
}

async fn a_user_alert_is_read_back_whole(operator: &Caller) -> Result<()> {
    open(operator, "users", "10").await?;
    let path = "/v1/accounts/users/user-alert";
    expect_shown(operator, "users", "user_alert", Value::Null).await?;
    let first = operator.put(path, json!({"threshold": "500"})).await?;
    expect_applied(&first)?;
    expect_same(&first, &operator.put(path, json!({"threshold": "500", "notify_user": null})).await?)?;
    let expected = |enabled: bool, notify_user: bool, recipients: Value| json!({"enabled": enabled, "threshold": "500", "notify_user": notify_user, "recipients": recipients});
    expect_shown(operator, "users", "user_alert", expected(true, false, json!("all_admins"))).await?;
    // Notifies the user alone.
    let alone = json!({"threshold": "500", "notify_user": true, "recipients": []});
    expect_applied(&operator.put(path, alone).await?)?;
    expect_shown(operator, "users", "user_alert", expected(true, true, json!([]))).await?;
    // An alert that is switched off keeps its threshold.
    expect_applied(&operator.put(path, json!({"enabled": false, "recipients": ["carl", "ana"]})).await?)?;
    expect_shown(operator, "users", "user_alert", expected(false, false, json!(["carl", "ana"]))).await
}

async fn an_org_alert_is_in_force_until_it_is_removed(whole: &Whole) -> Result<()> {
    let operator = whole.operator();
    open(&operator, "org", "10").await?;
    let path = "/v1/accounts/org/alerts/a75";
    let body = json!({"basis": "percent_used", "threshold": "75", "recipients": ["carl"], "channels": ["in_app", "email"]});
    let set = operator.put(path, body.clone()).await?;
    expect_applied(&set)?;
    expect_same(&set, &operator.put(path, body).await?)?;
    let other = json!({"basis": "absolute_remaining", "threshold": "0"});
    expect_applied(&operator.put("/v1/accounts/org/alerts/zero", other).await?)?;
    let expected = [
        (
            "a75",
            json!({"basis": "percent_used", "threshold": "75", "recipients": ["carl"], "channels": ["in_app", "email"]}),
        ),
        (
            "zero",
            json!({"basis": "absolute_remaining", "threshold": "0", "recipients": "all_admins", "channels": ["email", "in_app"]}),
        ),
    ];
    let expected = BTreeMap::from(expected.map(|(id, alert)| (id.to_owned(), alert)));
    ensure!(org_alerts(whole, "org").await? == expected);

    expect_applied(&operator.put(path, alert("80")).await?)?;
    ensure!(org_alerts(whole, "org").await?["a75"]["threshold"] == "80");
    let removed = operator.delete(path).await?;
    expect_applied(&removed)?;
    expect_same(&removed, &operator.delete(path).await?)?;
    let left: Vec<String> = org_alerts(whole, "org").await?.into_keys().collect();
    ensure!(left == ["zero"], "{left:?}");
    Ok(())
}

async fn set_again_after_its_removal_an_alert_is_new(whole: &Whole) -> Result<()> {
    let operator = whole.operator();
    open(&operator, "again", "10").await?;
    let path = "/v1/accounts/again/alerts/a75";
    let set = operator.put(path, alert("75")).await?;
    let removed = operator.delete(path).await?;
    expect_applied(&removed)?;
    let anew = operator.put(path, alert("75")).await?;
    expect_applied(&anew)?;
    ensure!(anew.body["event_id"] != set.body["event_id"], "{}", anew.text);
    ensure!(org_alerts(whole, "again").await?.contains_key("a75"));
    let removed_anew = operator.delete(path).await?;
    expect_applied(&removed_anew)?;
    ensure!(removed_anew.body["event_id"] != removed.body["event_id"], "{}", removed_anew.text);
    ensure!(org_alerts(whole, "again").await?.is_empty());
    // An alert of another account or id is another alert.
    open(&operator, "apart", "10").await?;
    expect_applied(&operator.put("/v1/accounts/apart/alerts/a75", alert("75")).await?)?;
    expect_applied(&operator.put("/v1/accounts/apart/alerts/a76", alert("75")).await?)?;
    ensure!(org_alerts(whole, "apart").await?.len() == 2);
    Ok(())
}

async fn no_more_alerts_stand_than_an_account_may_have(whole: &Whole) -> Result<()> {
    let operator = &whole.operator();
    open(operator, "many", "10").await?;
    let path = |number: usize| format!("/v1/accounts/many/alerts/a{number}");
    stream::iter(0..ORG_ALERTS_MAX)
        .map(|number| async move {
            operator.put(&format!("{}?wait=false", path(number)), alert("75")).await?.expect(202).map(drop)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    let over = path(ORG_ALERTS_MAX);
    operator.put(&over, alert("75")).await?.expect_problem(422, "too_many_alerts")?;
    ensure!(org_alerts(whole, "many").await?.len() == ORG_ALERTS_MAX);
    // Existing alerts may change, and a refused one is not stored: once there is room it is accepted.
    expect_applied(&operator.put(&path(0), alert("80")).await?)?;
    operator.put(&over, alert("75")).await?.expect_problem(422, "too_many_alerts")?;
    expect_applied(&operator.delete(&path(1)).await?)?;
    expect_applied(&operator.put(&over, alert("75")).await?)?;
    operator.put(&path(1), alert("75")).await?.expect_problem(422, "too_many_alerts")?;
    operator.delete(&path(1)).await?.expect_problem(404, "alert_unknown").map(drop)
}

#[tokio::test]
async fn what_is_no_rule_is_refused_and_nothing_is_stored() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "10").await?;
    let before = whole.ends().await?;
    every_bad_field_of_limits_is_named(&operator).await?;
    every_bad_field_of_an_alert_is_named(&operator).await?;
    rules_need_an_account_and_removals_an_alert(&operator).await?;
    ensure!(whole.ends().await? == before, "something was stored");
    for setting in ["limits", "user_alert"] {
        expect_shown(&operator, "acme", setting, Value::Null).await?;
    }
    ensure!(org_alerts(&whole, "acme").await?.is_empty());
    whole.replay_and_stop().await
}

async fn every_bad_field_of_limits_is_named(operator: &Caller) -> Result<()> {
    let path = "/v1/accounts/acme/limits";
    let bad = json!({"enabled": "yes", "default_limit": "-1", "custom": {"ana": "-1", "bo": "never", " no id": "1", "cy": 5},
                     "excluded_features": ["a", "a"], "notify": ["carl", "carl"], "users": {}});
    operator.put(path, bad).await?.expect_fields(&[
        "custom. no id bad_id",
        "custom.ana negative",
        "custom.bo not_an_amount",
        "custom.cy not_an_amount",
        "default_limit negative",
        "enabled wrong_type",
        "excluded_features duplicate",
        "notify duplicate",
        "users unknown_field",
    ])?;
    operator.put(path, json!({"notify": ["carl", " no id"]})).await?.expect_fields(&["notify.1 bad_id"])?;
    let users =
        |count: usize| (0..count).map(|n| (format!("u{n}"), json!("1"))).collect::<serde_json::Map<_, _>>();
    operator.put(path, json!({"custom": users(2_001)})).await?.expect_fields(&["custom too_many"])?;
    let long = format!("u{}", "x".repeat(120));
    let long = |count: usize| {
        (0..count).map(|n| (format!("{long}{n}"), json!("1"))).collect::<serde_json::Map<_, _>>()
    };
    operator.put(path, json!({"custom": long(600)})).await?.expect_problem(413, "too_large").map(drop)
}

async fn every_bad_field_of_an_alert_is_named(operator: &Caller) -> Result<()> {
    let org = "/v1/accounts/acme/alerts/a1";
    let user = "/v1/accounts/acme/user-alert";
    for (path, body, fields) in [
        (org, json!({}), &["basis required", "threshold required"][..]),
        (org, alert("0.5"), &["threshold out_of_range"]),
        (org, json!({"basis": "absolute_used", "threshold": "-1"}), &["threshold negative"]),
        (org, json!({"basis": "used", "threshold": 75}), &["basis not_one_of", "threshold not_an_amount"]),
        (
            org,
            json!({"alert_id": "a1", "basis": "percent_used", "threshold": "75", "channels": ["fax"]}),
            &["alert_id unknown_field", "channels.0 not_one_of"],
        ),
        (
            org,
            json!({"basis": "percent_used", "threshold": "75", "recipients": [], "channels": []}),
            &["channels required", "recipients out_of_range"],
        ),
        (user, json!({}), &["threshold required"]),
        (user, json!({"enabled": true, "threshold": null}), &["threshold required"]),
        (
            user,
            json!({"threshold": "-1", "notify_user": 1, "recipients": "everyone", "channels": ["email"]}),
            &[
                "channels unknown_field",
                "notify_user wrong_type",
                "recipients not_one_of",
                "threshold negative",
            ],
        ),
        (user, json!({"threshold": "1", "recipients": []}), &["recipients out_of_range"]),
    ] {
        operator.put(path, body).await?.expect_fields(fields)?;
    }
    let no_id = "/v1/accounts/acme/alerts/no%20id";
    operator.put(no_id, alert("75")).await?.expect_fields(&["alert bad_id"])?;
    operator.delete(no_id).await?.expect_problem(404, "not_found").map(drop)
}

async fn rules_need_an_account_and_removals_an_alert(operator: &Caller) -> Result<()> {
    for (path, body) in [
        ("limits", json!({"default_limit": "1"})),
        ("user-alert", json!({"threshold": "1"})),
        ("alerts/a1", alert("75")),
    ] {
        let answer = operator.put(&format!("/v1/accounts/nobody/{path}"), body).await?;
        answer.expect_problem(404, "account_not_found")?;
    }
    operator.delete("/v1/accounts/nobody/alerts/a1").await?.expect_problem(404, "account_not_found")?;
    operator.delete("/v1/accounts/acme/alerts/a1").await?.expect_problem(404, "alert_unknown").map(drop)
}

#[tokio::test]
async fn a_rule_is_recorded_at_its_ledger_time() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open(&operator, "acme", "5").await?;
    let requests = |caller: &Caller, account: &str| {
        let (caller, at) = (caller.clone(), |what: &str| format!("/v1/accounts/{account}/{what}"));
        let (limits, user_alert, org_alert) = (at("limits"), at("user-alert"), at("alerts/a1"));
        async move {
            anyhow::Ok([
                caller.put(&limits, json!({"default_limit": "1"})).await?,
                caller.put(&user_alert, json!({"threshold": "1"})).await?,
                caller.put(&org_alert, alert("75")).await?,
                caller.delete(&org_alert).await?,
            ])
        }
    };
    for answer in requests(&operator.at("2026-03-01T00:00:00Z"), "acme").await? {
        expect_applied(&answer)?;
        let event = answer.body["event_id"].as_str().context("an id")?;
        let event = operator.get(&format!("/v1/accounts/acme/events/{event}")).await?;
        ensure!(event.expect(200)?.body["recorded_at"] == "2026-03-01T00:00:00Z", "{}", event.text);
    }
    ensure!(super::balance(&operator, "acme").await?["period"]["index"] == 1, "they crossed the boundary");
    // A repeat gets the first answer and moves no clock; without a time the clock does not move.
    let (later, path) = (operator.at("2026-05-01T00:00:00Z"), "/v1/accounts/acme/limits");
    expect_applied(&later.put(path, json!({"default_limit": "1"})).await?)?;
    expect_applied(&operator.put(path, json!({"default_limit": "2"})).await?)?;
    ensure!(shown(&operator, "acme", "recorded_at").await? == "2026-03-01T00:00:00Z");

    open_live(&operator, "live", "5").await?;
    for answer in requests(&operator.at(OPENED), "live").await? {
        answer.expect_problem(409, "clock_is_live")?;
    }
    for answer in requests(&operator, "live").await? {
        expect_applied(&answer)?;
    }
    whole.replay_and_stop().await
}
