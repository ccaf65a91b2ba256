//! Lists: accounts, users, grants, periods, and their pages.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::described::{ensure_is, read};
use super::story::{Story, items_of};
use e2e::{Caller, Whole};

async fn check(story: &Story, what: &str, expected: Value) -> Result<()> {
    ensure_is(&Value::Array(story.items(what).await?), &expected).with_context(|| what.to_owned())?;
    for limit in [1, 2] {
        let pages = Value::Array(story.pages(what, limit).await?);
        ensure_is(&pages, &expected).with_context(|| format!("{what} in pages of {limit}"))?;
    }
    Ok(())
}

fn user(user: &str, used: &str) -> Value {
    json!({"user_id": user, "used": used, "counted": used, "held": "0", "limit": null, "blocked": false})
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_the_open_period_are_listed_with_what_they_used() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "acme", json!({"allowance": "100"})).await?;
    story.usage("2026-01-06T00:00:00Z", "old", json!({"credits": "7", "user_id": "old"})).await?;
    story.clock("2026-02-01T00:00:00Z").await?;
    check(&story, "/users", json!([])).await?;
    for (number, (who, feature, credits)) in [
        ("cy", "chat", "1"),
        ("ana", "chat", "2.5"),
        ("ana", "flow", "0.5"),
        ("bo", "chat", "0"),
        ("di", "chat", "9"),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({"credits": credits, "user_id": who, "feature": feature});
        story.usage("2026-02-02T00:00:00Z", &format!("u{number}"), body).await?;
    }
    story.usage("2026-02-02T00:00:00Z", "nobody", json!({"credits": "3"})).await?;
    story.post("2026-02-03T00:00:00Z", "/usage/u4/reversal", json!({"reason": "wrong"})).await?;
    // All usage of di was reversed.
    let users = json!([user("ana", "3"), user("bo", "0"), user("cy", "1"), user("di", "0")]);
    check(&story, "/users", users.clone()).await?;
    check(&story, "/users?over_budget=false", users).await?;
    // No user has a limit.
    check(&story, "/users?over_budget=true", json!([])).await?;

    let csv = story.csv("/users").await?;
    let expected = "user_id,used,counted,held,limit,blocked\nana,3,3,0,,false\nbo,0,0,0,,false\ncy,1,1,0,,false\ndi,0,0,0,,false\n";
    ensure!(csv.text == expected, "{}", csv.text);
    let first = story.csv("/users?limit=2").await?;
    let cursor = first.headers["next-cursor"].to_str()?;
    let rest = story.csv(&format!("/users?limit=2&cursor={cursor}")).await?;
    ensure!(
        rest.text.ends_with("blocked\ncy,1,1,0,,false\ndi,0,0,0,,false\n")
            && !rest.headers.contains_key("next-cursor")
    );
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_grant_that_ever_was_is_listed_newest_first() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "acme", json!({"allowance": "5"})).await?;
    let spring = json!({"grant_id": "g1", "source": "promo", "amount": "500.5", "priority": 7, "reason": "spring",
                        "effective_at": "2026-01-20T00:00:00Z", "expires_at": "2026-01-25T00:00:00Z"});
    story.post("2026-01-06T00:00:00Z", "/grants", spring).await?;
    let welcome = json!({"grant_id": "g2", "source": "welcome", "amount": "10"});
    story.post("2026-01-07T00:00:00Z", "/grants", welcome).await?;
    story.post("2026-01-08T00:00:00Z", "/purchases", json!({"payment_id": "pay_1", "amount": "100"})).await?;
    let adjusted =
        story.post("2026-01-09T00:00:00Z", "/adjustments", json!({"amount": "3", "reason": "sorry"})).await?;
    story.usage("2026-01-10T00:00:00Z", "u1", json!({"credits": "6"})).await?;
    story.void("2026-01-11T00:00:00Z", "g2").await?;

    let plan = json!({"grant_id": "plan:0", "source": "plan", "category": "promotional", "amount": "5", "remaining": "0",
        "priority": 20, "effective_at": "2026-01-05T00:00:00Z", "expires_at": "2026-02-01T00:00:00Z",
        "voided_at": null, "granted_at": "2026-01-05T00:00:00Z", "reason": null});
    let mut spring = json!({"grant_id": "g1", "source": "promo", "category": "promotional", "amount": "500.5",
        "remaining": "500.5", "priority": 7, "effective_at": "2026-01-20T00:00:00Z",
        "expires_at": "2026-01-25T00:00:00Z", "voided_at": null, "granted_at": "2026-01-06T00:00:00Z",
        "reason": "spring"});
    let welcome = json!({"grant_id": "g2", "source": "welcome", "category": "promotional", "amount": "10",
        "remaining": "0", "priority": 30, "effective_at": "2026-01-07T00:00:00Z", "expires_at": null,
        "voided_at": "2026-01-11T00:00:00Z", "granted_at": "2026-01-07T00:00:00Z", "reason": null});
    let bought = json!({"grant_id": "pay_1", "source": "purchase", "category": "paid", "amount": "100",
        "remaining": "100", "priority": 40, "effective_at": "2026-01-08T00:00:00Z", "expires_at": null,
        "voided_at": null, "granted_at": "2026-01-08T00:00:00Z", "reason": null});
    let sorry = json!({"grant_id": adjusted.body["event_id"], "source": "adjustment", "category": "promotional",
        "amount": "3", "remaining": "3", "priority": 30, "effective_at": "2026-01-09T00:00:00Z", "expires_at": null,
        "voided_at": null, "granted_at": "2026-01-09T00:00:00Z", "reason": "sorry"});
    check(&story, "/grants", json!([sorry, bought, welcome, spring, plan])).await?;

    // Lots stay in the list after they have ended; the new allowance comes first.
    story.clock("2026-02-01T00:00:00Z").await?;
    spring["remaining"] = json!("0");
    let next = json!({"grant_id": "plan:1", "source": "plan", "category": "promotional", "amount": "5", "remaining": "5",
        "priority": 20, "effective_at": "2026-02-01T00:00:00Z", "expires_at": "2026-03-01T00:00:00Z",
        "voided_at": null, "granted_at": "2026-02-01T00:00:00Z", "reason": null});
    check(&story, "/grants", json!([next, sorry, bought, welcome, spring, plan])).await?;
    let lots = story.get("/balance").await?.body["lots"].clone();
    let burnt: Vec<&Value> = lots.as_array().context("lots")?.iter().map(|lot| &lot["grant_id"]).collect();
    ensure_is(&json!(burnt), &json!(["plan:1", adjusted.body["event_id"], "pay_1"]))?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_period_has_its_row_with_the_open_one_on_top() -> Result<()> {
    let whole = Whole::start().await?;
    let plan = json!({"allowance": "5", "rollover": {"mode": "capped", "cap": null}});
    let story = Story::monthly(&whole, "acme", plan).await?;
    let row = |index: i64, figures: [&str; 4], by_category: Value| {
        let [used, granted, expired, rolled_over] = figures;
        json!({"index": index, "starts_at": format!("2026-0{}-01T00:00:00Z", index + 1),
               "ends_at": format!("2026-0{}-01T00:00:00Z", index + 2), "used": used, "by_category": by_category,
               "granted": granted, "expired": expired, "rolled_over": rolled_over})
    };
    check(&story, "/periods", json!([row(0, ["0", "5", "0", "0"], json!({}))])).await?;
    story.usage("2026-01-10T00:00:00Z", "u1", json!({"credits": "1.5", "category": "ai_usage"})).await?;
    story.usage("2026-01-10T00:00:00Z", "u2", json!({"credits": "0.5"})).await?;
    story.usage("2026-02-10T00:00:00Z", "u3", json!({"credits": "2", "category": "ai_usage"})).await?;
    story.clock("2026-03-10T00:00:00Z").await?;
    let brief =
        json!({"grant_id": "g1", "source": "promo", "amount": "4", "expires_at": "2026-03-12T00:00:00Z"});
    story.post("2026-03-11T00:00:00Z", "/grants", brief).await?;
    story.clock("2026-03-12T00:00:00Z").await?;
    // A late reversal leaves the closed period unchanged.
    story.post("2026-03-13T00:00:00Z", "/usage/u3/reversal", json!({"reason": "late"})).await?;
    let expected = json!([
        row(2, ["0", "14", "4", "0"], json!({})),
        row(1, ["2", "8", "1", "5"], json!({"ai_usage": "2"})),
        row(0, ["2", "5", "0", "3"], json!({"": "0.5", "ai_usage": "1.5"})),
    ]);
    check(&story, "/periods", expected).await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_listed_by_id_with_plan_and_settings_and_each_key_sees_its_own() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    let full = json!({"account_id": "acme", "name": "Acme", "unit": "usd", "usd_per_unit": "1", "clock": "test",
        "overdraft": "forgive_at_reset", "low_balance_threshold": "50", "referred_by": null,
        "plan": {"name": "team", "cycle": "monthly", "anchor": "2026-01-31T00:00:00Z", "timezone": "Europe/Berlin",
                 "allowance": "10000", "rollover": {"mode": "capped", "cap": "7"}, "pack_expiry": "period_end",
                 "on_exhausted": "allow", "overage_limit": "3", "rate_card": null}});
    let at = "2026-02-05T00:00:00Z";
    let opened = operator.at(at).post("/v1/accounts", full.clone()).await?;
    opened.expect(200)?;
    let mut expected = full;
    expected["position"] = opened.body["position"].clone();
    expected["recorded_at"] = json!(at);
    expected["opened_at"] = json!(at);
    expected["status"] = json!("open");
    expected["closed_at"] = Value::Null;
    for unset in ["next_plan", "next_at", "limits", "user_alert", "auto_top_up", "alerts_halted"] {
        expected[unset] = Value::Null;
    }
    // The 31st in Berlin begins an hour before UTC's, and February's period ends with its last day.
    let period = json!({"index": 0, "starts_at": "2026-01-31T00:00:00Z", "ends_at": "2026-02-28T00:00:00Z"});
    expected["period"] = period;
    ensure_is(&read(&operator, "/v1/accounts/acme").await?.expect(200)?.body, &expected)?;

    let story =
        Story::open(&whole, "beta", at, json!({"plan": {"cycle": "daily", "allowance": "1"}})).await?;
    let brief = |allowance: &str, cycle: &str| {
        json!({"name": null, "cycle": cycle, "anchor": at, "timezone": "UTC", "allowance": allowance,
               "rollover": {"mode": "none"}, "pack_expiry": "never", "on_exhausted": "block",
               "overage_limit": null, "rate_card": null})
    };
    let mut beta = json!({"account_id": "beta", "position": "*", "recorded_at": at, "name": null, "unit": "credits",
        "usd_per_unit": null, "clock": "test", "overdraft": "carry", "low_balance_threshold": null,
        "limits": null, "user_alert": null, "auto_top_up": null, "referred_by": null, "opened_at": at,
        "status": "open", "closed_at": null, "plan": brief("1", "daily"), "next_plan": null, "next_at": null,
        "alerts_halted": null,
        "period": {"index": 0, "starts_at": at, "ends_at": "2026-02-06T00:00:00Z"}});
    ensure_is(&story.get("").await?.body, &beta)?;
    let monthly = json!({"cycle": "monthly", "allowance": "2"});
    story.plan(at, json!({"plan": monthly, "at": "next_period"})).await?;
    beta["next_plan"] = brief("2", "monthly");
    beta["next_at"] = json!("2026-02-06T00:00:00Z");
    ensure_is(&story.get("").await?.body, &beta)?;

    for account in ["Zeta", "gamma"] {
        Story::monthly(&whole, account, json!({"allowance": "1"})).await?;
    }
    let list = read(&operator, "/v1/accounts").await?;
    let items = items_of(list.expect(200)?)?;
    let ids: Vec<&Value> = items.iter().map(|item| &item["account_id"]).collect();
    ensure_is(&json!(ids), &json!(["Zeta", "acme", "beta", "gamma"]))?;
    // Whether alerts are halted is looked up for one account only.
    beta.as_object_mut().context("an object")?.remove("alerts_halted");
    ensure_is(&items[2], &beta)?;
    ensure!(list.body["next_cursor"].is_null(), "{}", list.text);

    let (mut cursor, mut seen) = (String::new(), Vec::new());
    for number in 0..4 {
        let page = read(&operator, &format!("/v1/accounts?limit=1{cursor}")).await?;
        seen.extend(items_of(page.expect(200)?)?);
        let next = page.body["next_cursor"].as_str();
        ensure!(next.is_some() == (number < 3), "{}", page.text);
        cursor = format!("&cursor={}", next.unwrap_or_default());
    }
    let seen: Vec<&Value> = seen.iter().map(|item| &item["account_id"]).collect();
    ensure_is(&json!(seen), &json!(["Zeta", "acme", "beta", "gamma"]))?;

    let admin = whole.keyed("admin", &["gamma", "acme", "nowhere"], None).await?;
    let own = items_of(read(&admin, "/v1/accounts").await?.expect(200)?)?;
    let own: Vec<&Value> = own.iter().map(|item| &item["account_id"]).collect();
    ensure_is(&json!(own), &json!(["acme", "gamma"]))?;
    whole.replay_and_stop().await
}

/// Ids of the accounts that a caller finds, which are the same by pages of any size.
async fn found(caller: &Caller, filters: &str) -> Result<String> {
    let ids = |items: &[Value]| -> Vec<String> {
        items.iter().filter_map(|item| item["account_id"].as_str().map(str::to_owned)).collect()
    };
    let whole = read(caller, &format!("/v1/accounts?limit=500{filters}")).await?;
    let whole = ids(&items_of(whole.expect(200)?)?);
    for limit in [1, 2] {
        let (mut paged, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = read(caller, &format!("/v1/accounts?limit={limit}{filters}{cursor}")).await?;
            paged.extend(ids(&items_of(page.expect(200)?)?));
            let Some(next) = page.body["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        ensure!(paged == whole, "{filters} in pages of {limit}: {paged:?}, not {whole:?}");
    }
    Ok(whole.join(" "))
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_found_by_how_their_id_or_name_begins_and_by_their_status() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    for (account, name) in [
        ("acme-1", json!("Zebra")),
        ("acme-2", Value::Null),
        ("Acme-3", json!("50%_off\\")),
        ("beta", json!("Acme GmbH")),
        ("gamma", json!("ÉCLAIR ΟΔΟΣ")),
        ("zeta", json!("éclat")),
    ] {
        let plan = json!({"cycle": "monthly", "allowance": "1"});
        let mut body = json!({"account_id": account, "clock": "test", "plan": plan});
        if !name.is_null() {
            body["name"] = name;
        }
        operator.post("/v1/accounts", body).await?.expect(200)?;
    }
    for account in ["acme-2", "zeta"] {
        let path = format!("/v1/accounts/{account}/close");
        operator.post(&path, json!({"reason": "moved"})).await?.expect(200)?;
    }
    for (filters, expected) in [
        // An id is found in its own case, a name in any.
        ("&q=acme", "acme-1 acme-2 beta"),
        ("&q=Acme", "Acme-3 beta"),
        ("&q=ACME%20g", "beta"),
        ("&q=acme%20gmbh%20", ""),
        ("&q=cme", ""),
        ("&q=%C3%A9CL", "gamma zeta"),
        ("&q=%C3%A9clair%20%CE%BF%CE%B4%CE%BF%CF%83", "gamma"),
        // Every character stands for itself.
        ("&q=%25", ""),
        ("&q=_", ""),
        ("&q=50%25_OFF%5C", "Acme-3"),
        ("&q=50%25%25", ""),
        ("&q=acme_", ""),
        ("&q=%F4%8F%BF%BF", ""),
        ("&status=closed", "acme-2 zeta"),
        ("&status=open", "Acme-3 acme-1 beta gamma"),
        ("&status=open&q=acme", "acme-1 beta"),
        ("&status=closed&q=acme", "acme-2"),
        ("&status=closed&q=%C3%A9", "zeta"),
    ] {
        let found = found(&operator, filters).await.with_context(|| filters.to_owned())?;
        ensure!(found == expected, "{filters}: {found}, not {expected}");
    }
    // A key finds its own accounts and no others.
    let admin = whole.keyed("admin", &["acme-2", "gamma", "zeta", "nowhere"], None).await?;
    for (filters, expected) in [
        ("", "acme-2 gamma zeta"),
        ("&q=acme", "acme-2"),
        ("&q=%C3%A9", "gamma zeta"),
        ("&q=%C3%A9&status=open", "gamma"),
        ("&q=b", ""),
        ("&status=closed", "acme-2 zeta"),
    ] {
        let found = found(&admin, filters).await?;
        ensure!(found == expected, "{filters}: {found}, not {expected}");
    }
    // A new name counts from where it is projected.
    operator.patch("/v1/accounts/acme-1", json!({"name": "Yak"})).await?.expect(200)?;
    ensure!(found(&operator, "&q=zeb").await?.is_empty());
    ensure!(found(&operator, "&q=yAK").await? == "acme-1");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn own_limits_and_alerts_are_read_as_csv_without_formulas() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "acme", json!({"allowance": "100"})).await?;
    let operator = whole.operator();
    for (user, limit) in [("ana", "12.5"), ("bo", "unlimited"), ("%3D1%2B1", "3")] {
        let path = format!("/v1/accounts/acme/limits/users/{user}");
        operator.put(&path, json!({"limit": limit})).await?.expect(200)?;
    }
    let csv = story.csv("/limits/users").await?;
    ensure!(csv.text == "user_id,limit\n'=1+1,3\nana,12.5\nbo,unlimited\n", "{}", csv.text);
    ensure!(csv.headers.contains_key("etag"), "{:?}", csv.headers);
    let first = story.csv("/limits/users?limit=1").await?;
    let cursor = first.headers["next-cursor"].to_str()?;
    let rest = story.csv(&format!("/limits/users?cursor={cursor}")).await?;
    ensure!(rest.text == "user_id,limit\nana,12.5\nbo,unlimited\n", "{}", rest.text);

    let alert = json!({"basis": "percent_used", "threshold": "75", "recipients": ["@ana", "bo"],
                       "channels": ["email", "in_app"]});
    operator.put("/v1/accounts/acme/alerts/a75", alert).await?.expect(200)?;
    let alert = json!({"basis": "absolute_remaining", "threshold": "5"});
    operator.put("/v1/accounts/acme/alerts/low", alert).await?.expect(200)?;
    whole.all_evaluated().await?;
    let csv = story.csv("/alerts").await?;
    let lines: Vec<&str> = csv.text.lines().collect();
    let header = "alert_id,basis,threshold,threshold_version,recipients,channels,state,fired_at";
    ensure!(lines[0] == header, "{}", csv.text);
    ensure!(lines[1] == "a75,percent_used,75,1,'@ana bo,email in_app,armed,", "{}", csv.text);
    ensure!(lines[2].starts_with("low,absolute_remaining,5,1,all_admins,"), "{}", csv.text);
    whole.replay_and_stop().await
}
