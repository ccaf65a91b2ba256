//! Rules: what fires when, and only once.

use anyhow::{Result, ensure};
use platform::kafka::Appender;
use serde_json::{Value, json};

use super::Account;
use e2e::Whole;

#[tokio::test(flavor = "multi_thread")]
async fn an_org_alert_fires_once_a_period_and_again_when_its_threshold_is_another() -> Result<()> {
    let whole = Whole::start().await?;
    let acme = Account::open(&whole, "acme", json!({"plan": {"allowance": "10000"}})).await?;
    let alert = |threshold: &str| json!({"basis": "percent_used", "threshold": threshold});
    acme.put("06", "alerts/a75", alert("75")).await?;
    acme.uses("07", "ana", "7000").await?;
    ensure!(acme.fired().await?.is_empty());
    let last = acme.uses("08", "ana", "500").await?;
    let first = "org_alert a75 acme 75/75 v1 @0".to_owned();
    ensure!(acme.fired().await? == std::slice::from_ref(&first));
    let alerts = acme.get("alerts").await?;
    ensure!(alerts["items"][0]["state"] == "fired", "{alerts}");
    ensure!(alerts["items"][0]["fired_at"] == "2026-01-08T12:00:00Z", "{alerts}");
    let firing = &acme.get("firings?kind=org_alert&subject=acme&alert_id=a75").await?["items"][0];
    ensure!(firing["event_id"] == last.as_str(), "{firing}");

    // Back below and up again: nothing.
    acme.post("09", &format!("usage/{last}/reversal"), json!({"reason": "not done"})).await?;
    acme.uses("09", "ana", "600").await?;
    // Other recipients: nothing.
    let others =
        json!({"basis": "percent_used", "threshold": "75", "recipients": ["carl"], "channels": ["in_app"]});
    acme.put("09", "alerts/a75", others).await?;
    ensure!(acme.fired().await? == std::slice::from_ref(&first));
    // A lower threshold fires at once, a higher one when usage reaches it.
    acme.put("10", "alerts/a75", alert("70")).await?;
    acme.put("10", "alerts/a75", alert("90")).await?;
    acme.uses("11", "ana", "1399").await?;
    let second = "org_alert a75 acme 76/70 v2 @0".to_owned();
    ensure!(acme.fired().await? == [first.clone(), second.clone()], "{:?}", acme.fired().await?);
    acme.uses("12", "ana", "1").await?;
    // The next period begins without usage and arms the alert again.
    acme.uses("2026-02-03T00:00:00Z", "ana", "9500").await?;
    let third = "org_alert a75 acme 90/90 v3 @0".to_owned();
    let fourth = "org_alert a75 acme 95/90 v3 @1".to_owned();
    ensure!(acme.fired().await? == [first, second, third, fourth]);
    // A removed alert is silent; set again, it is another version.
    acme.delete("2026-02-04T00:00:00Z", "alerts/a75").await?;
    acme.put("2026-02-05T00:00:00Z", "alerts/a75", alert("90")).await?;
    let fired = acme.fired().await?;
    ensure!(fired.last().map(String::as_str) == Some("org_alert a75 acme 95/90 v4 @1"), "{fired:?}");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_basis_watches_its_own_figure() -> Result<()> {
    let whole = Whole::start().await?;
    let acme = Account::open(&whole, "acme", json!({"plan": {"allowance": "200"}})).await?;
    for (id, basis, threshold) in [
        ("pu", "percent_used", "50"),
        ("au", "absolute_used", "110"),
        ("pr", "percent_remaining", "40"),
        ("ar", "absolute_remaining", "70"),
    ] {
        acme.put("06", &format!("alerts/{id}"), json!({"basis": basis, "threshold": threshold})).await?;
    }
    for credits in ["100", "10", "10", "10"] {
        acme.uses("07", "ana", credits).await?;
    }
    let expected = [
        "org_alert pu acme 50/50 v1 @0",
        "org_alert au acme 110/110 v1 @0",
        "org_alert pr acme 40/40 v1 @0",
        "org_alert ar acme 70/70 v1 @0",
    ];
    ensure!(acme.fired().await? == expected, "{:?}", acme.fired().await?);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn users_have_an_alert_and_limits_of_their_own() -> Result<()> {
    let whole = Whole::start().await?;
    let acme = Account::open(&whole, "acme", json!({"plan": {"allowance": "10000"}})).await?;
    acme.uses("06", "early", "600").await?;
    acme.put("07", "user-alert", json!({"threshold": "500", "notify_user": true})).await?;
    let limits = |bo: &str| json!({"default_limit": "1000", "custom": {"ana": "100", "bo": bo}, "excluded_features": ["workflow"]});
    acme.put("08", "limits", limits("unlimited")).await?;
    acme.uses_for("09", "ana", "300", "workflow").await?;
    acme.uses("09", "ana", "99").await?;
    acme.uses("09", "bo", "2000").await?;
    acme.uses("10", "ana", "1").await?;
    // Bo was unlimited before.
    acme.put("11", "limits", limits("2000")).await?;
    let expected = [
        "user_alert early 600/500 v1 @0",
        "user_alert bo 2000/500 v1 @0",
        "user_limit_reached ana 100/100 v1 @0",
        "user_limit_reached bo 2000/2000 v1 @0",
    ];
    ensure!(acme.fired().await? == expected, "{:?}", acme.fired().await?);
    let over = acme.get("users?over_budget=true").await?;
    let users: Vec<_> = over["items"].as_array().into_iter().flatten().map(|user| &user["user_id"]).collect();
    ensure!(users == ["ana", "bo"], "{over}");
    whole.replay_and_stop().await
}

/// More than one statement writes.
const USERS: usize = 6_000;

#[tokio::test(flavor = "multi_thread")]
async fn the_edit_of_a_rule_that_thousands_are_past_fires_once_for_each_of_them() -> Result<()> {
    let whole = Whole::start().await?;
    let acme = Account::open(&whole, "acme", json!({"plan": {"allowance": "100000"}})).await?;
    append(&whole, "usage.recorded", |user| json!({"user_id": user, "feature": "chat", "credits": "2"}))
        .await?;
    let alert = |notify_user| json!({"threshold": "2", "recipients": ["carl"], "notify_user": notify_user});
    whole.all_projected().await?;
    acme.put("07", "user-alert", alert(false)).await?;
    whole.all_evaluated().await?;
    acme.put("08", "limits", json!({"default_limit": "1", "notify": ["carl"]})).await?;
    whole.all_evaluated().await?;
    // Other recipients are no new threshold.
    acme.put("09", "user-alert", alert(true)).await?;
    whole.all_evaluated().await?;
    for kind in ["user_alert", "user_limit_reached"] {
        ensure_fired_once_for_each(&whole, kind).await?;
    }
    whole.replay_and_stop().await
}

/// Appends an event of each user to the journal.
async fn append(whole: &Whole, kind: &str, data: impl Fn(String) -> Value) -> Result<()> {
    let appender = Appender::new(&whole.kafka, &whole.kafka.topics().events, whole.kafka.partitions)?;
    let at = "2026-01-06T12:00:00Z";
    let event = |n: usize| {
        let event = json!({"specversion": "1.0", "id": format!("{kind} {n}"), "source": "/app", "subject": "acme",
                           "type": format!("ledger.{kind}.v1"), "time": at, "recordedat": at, "actor": "app",
                           "data": data(format!("user{n:05}"))});
        ("acme", event.to_string())
    };
    for appended in appender.append_all(&(0..USERS).map(event).collect::<Vec<_>>()).await {
        appended?;
    }
    Ok(())
}

/// Fails unless the rule fired once for each user, in the order of their ids, and each firing notifies.
async fn ensure_fired_once_for_each(whole: &Whole, kind: &str) -> Result<()> {
    let notified = format!(
        r#"select count(*), count(distinct subject), min(seq), max(seq),
                  bool_and(subject = 'user' || lpad(seq::text, 5, '0')),
                  (select count(*) from delivery.outbox where firing ->> 'kind' = '{kind}')
           from alerting_1.firing
           where kind = '{kind}'"#
    );
    let (fired, users, first, last, are_by_user, queued): (i64, i64, i32, i32, bool, i64) =
        sqlx::query_as(sqlx::AssertSqlSafe(notified)).fetch_one(&whole.pool).await?;
    let all = i64::try_from(USERS)?;
    ensure!((fired, users, queued) == (all, all, all), "{kind}: {fired} {users} {queued}");
    ensure!((first, last, are_by_user) == (0, i32::try_from(USERS)? - 1, true), "{kind}: {first} {last}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_their_own_that_thousands_are_past_fire_once_for_each_of_them() -> Result<()> {
    let whole = Whole::start().await?;
    let acme = Account::open(&whole, "acme", json!({"plan": {"allowance": "100000"}})).await?;
    acme.put("06", "limits", json!({"enabled": false})).await?;
    append(&whole, "usage.recorded", |user| json!({"user_id": user, "feature": "chat", "credits": "2"}))
        .await?;
    append(&whole, "user_limit.set", |user| json!({"user_id": user, "limit": "1"})).await?;
    whole.all_projected().await?;
    acme.put("07", "limits", json!({"notify": ["carl"]})).await?;
    whole.all_evaluated().await?;
    // Off and on again is no new version.
    acme.put("08", "limits", json!({"enabled": false})).await?;
    acme.put("09", "limits", json!({"notify": ["carl", "dora"]})).await?;
    whole.all_evaluated().await?;
    ensure_fired_once_for_each(&whole, "user_limit_reached").await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_is_reported_once_an_episode() -> Result<()> {
    let whole = Whole::start().await?;
    let body = json!({"plan": {"allowance": "100"}, "low_balance_threshold": "50"});
    let acme = Account::open(&whole, "acme", body).await?;
    acme.post("06", "purchases", json!({"payment_id": "p1", "amount": "60"})).await?;
    acme.uses("07", "ana", "105").await?;
    let last = acme.uses("08", "ana", "10").await?;
    // Hovering around the line: nothing more.
    acme.post("09", &format!("usage/{last}/reversal"), json!({"reason": "x"})).await?;
    acme.uses("09", "ana", "10").await?;
    acme.uses("10", "ana", "50").await?;
    acme.post("11", "purchases", json!({"payment_id": "p2", "amount": "100"})).await?;
    let expected = [
        "credit_balance_low acme 45/50 v1 @0",
        "credit_balance_depleted acme -5/0 v1 @0",
        "credits_available_again acme 95/0 v1 @0",
    ];
    ensure!(acme.fired().await? == expected, "{:?}", acme.fired().await?);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_account_never_had_is_not_reported() -> Result<()> {
    let whole = Whole::start().await?;
    let body = json!({"plan": {"allowance": "0"}, "low_balance_threshold": "50"});
    let acme = Account::open(&whole, "acme", body).await?;
    acme.uses("06", "ana", "5").await?;
    ensure!(acme.fired().await?.is_empty(), "{:?}", acme.fired().await?);
    ensure!(acme.get("alerts").await?["items"] == json!([]));
    let nobody = whole.operator().get("/v1/accounts/nobody/firings").await?;
    nobody.expect_problem(404, "account_not_found")?;
    whole.replay_and_stop().await
}
