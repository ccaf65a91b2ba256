//! Users: how much of their usage counts toward which limit, and who is over budget.

use anyhow::{Context, Result, ensure};
use ledger_core::value::credits::Credits;
use serde_json::{Value, json};

use super::described::{ensure_is, read};
use super::story::Story;
use e2e::Whole;

/// After the usage of every test.
const LATER: &str = "2026-01-10T00:00:00Z";

/// An account with usage: `ana` 30 by chat and 20 by workflow, `bo` 40 by chat, `cy` 5 without a feature, `di` 0.
async fn tell(whole: &Whole) -> Result<Story> {
    let story = Story::monthly(whole, "acme", json!({"allowance": "1000"})).await?;
    for (id, user, feature, credits) in [
        ("u1", "ana", json!("chat"), "30"),
        ("u2", "ana", json!("workflow"), "20"),
        ("u3", "bo", json!("chat"), "40"),
        ("u4", "cy", Value::Null, "5"),
        ("u5", "di", json!("chat"), "0"),
    ] {
        let body = json!({"credits": credits, "user_id": user, "feature": feature});
        story.usage("2026-01-06T00:00:00Z", id, body).await?;
    }
    Ok(story)
}

async fn set(story: &Story, limits: Value) -> Result<()> {
    story.limits(LATER, limits).await
}

/// Users as `ana 50/50 of 60, bo 40/40 of 40!`: used, counted, limit, and a mark where blocked.
fn summary(users: &[Value]) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let one = |user: &Value| {
        let [who, used, counted, limit] =
            ["user_id", "used", "counted", "limit"].map(|field| text(&user[field]));
        let mark = if user["blocked"] == true { "!" } else { "" };
        format!("{who} {used}/{counted} of {limit}{mark}")
    };
    users.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// An amount in units; stable sorting by it keeps equal ones by id.
fn credits(amount: &Value) -> i128 {
    amount.as_str().and_then(|amount| amount.parse::<Credits>().ok()).map_or(0, Credits::units)
}

/// Checks the users under the current limits; those marked as blocked are the ones over budget.
async fn check(story: &Story, expected: &str) -> Result<()> {
    let found = summary(&story.items("/users").await?);
    ensure!(found == expected, "found {found}, not {expected}");
    let over: Vec<&str> = expected.split(", ").filter(|user| user.ends_with('!')).collect();
    for limit in [1, 2, 50] {
        let found = summary(&story.pages("/users?over_budget=true", limit).await?);
        ensure!(found == over.join(", "), "{found} are over budget by pages of {limit}, not {over:?}");
        let mut ranked = story.items("/users?over_budget=true").await?;
        ranked.sort_by_key(|user| std::cmp::Reverse(credits(&user["used"])));
        let (found, expected) =
            (story.pages("/users?over_budget=true&sort=-used", limit).await?, Value::Array(ranked));
        ensure_is(&Value::Array(found), &expected).context("over budget by usage")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_blocked_once_what_counts_reaches_the_limit() -> Result<()> {
    let whole = Whole::start().await?;
    let story = tell(&whole).await?;
    check(&story, "ana 50/50 of -, bo 40/40 of -, cy 5/5 of -, di 0/0 of -").await?;
    set(&story, json!({"default_limit": "40"})).await?;
    check(&story, "ana 50/50 of 40!, bo 40/40 of 40!, cy 5/5 of 40, di 0/0 of 40").await?;
    // Own limits win over the default, above and below it.
    let custom = json!({"ana": "50.000000001", "bo": "unlimited", "cy": "4.5", "nobody": "0"});
    set(&story, json!({"default_limit": "40", "custom": custom})).await?;
    check(&story, "ana 50/50 of 50.000000001, bo 40/40 of -, cy 5/5 of 4.5!, di 0/0 of 40").await?;
    set(&story, json!({"custom": {"ana": "50", "cy": "unlimited", "di": "1"}})).await?;
    check(&story, "ana 50/50 of 50!, bo 40/40 of -, cy 5/5 of -, di 0/0 of 1").await?;
    // A limit of 0 blocks users without usage.
    set(&story, json!({"default_limit": "0", "custom": {"ana": "60"}})).await?;
    check(&story, "ana 50/50 of 60, bo 40/40 of 0!, cy 5/5 of 0!, di 0/0 of 0!").await?;
    set(&story, json!({"enabled": false, "default_limit": "0", "custom": {"ana": "60"}})).await?;
    check(&story, "ana 50/50 of -, bo 40/40 of -, cy 5/5 of -, di 0/0 of -").await?;
    // Without `custom`, own limits stay as they are.
    set(&story, json!({})).await?;
    check(&story, "ana 50/50 of 60, bo 40/40 of -, cy 5/5 of -, di 0/0 of -").await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_counts_is_what_is_not_excluded_now() -> Result<()> {
    let whole = Whole::start().await?;
    let story = tell(&whole).await?;
    set(&story, json!({"default_limit": "35", "excluded_features": ["workflow"]})).await?;
    check(&story, "ana 50/30 of 35, bo 40/40 of 35!, cy 5/5 of 35, di 0/0 of 35").await?;
    // Another exclusion recounts earlier usage; usage without a feature always counts.
    set(&story, json!({"default_limit": "5", "excluded_features": ["chat"]})).await?;
    check(&story, "ana 50/20 of 5!, bo 40/0 of 5, cy 5/5 of 5!, di 0/0 of 5").await?;
    set(&story, json!({"default_limit": "5", "excluded_features": ["chat", "workflow"]})).await?;
    check(&story, "ana 50/0 of 5, bo 40/0 of 5, cy 5/5 of 5!, di 0/0 of 5").await?;
    // Disabled limits still show what would count.
    set(&story, json!({"enabled": false, "default_limit": "5", "excluded_features": ["chat"]})).await?;
    check(&story, "ana 50/20 of -, bo 40/0 of -, cy 5/5 of -, di 0/0 of -").await?;
    set(&story, json!({"default_limit": "35"})).await?;
    check(&story, "ana 50/50 of 35!, bo 40/40 of 35!, cy 5/5 of 35, di 0/0 of 35").await?;
    // A reversal takes it back, and a new period begins at 0.
    story.post(LATER, "/usage/u1/reversal", json!({"reason": "wrong"})).await?;
    check(&story, "ana 20/20 of 35, bo 40/40 of 35!, cy 5/5 of 35, di 0/0 of 35").await?;
    story.clock("2026-02-01T00:00:00Z").await?;
    ensure!(
        story.items("/users").await?.is_empty() && story.items("/users?over_budget=true").await?.is_empty()
    );
    story.usage("2026-02-02T00:00:00Z", "u6", json!({"credits": "35", "user_id": "bo"})).await?;
    check(&story, "bo 35/35 of 35!").await?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn users_over_budget_come_as_csv_and_a_member_sees_himself() -> Result<()> {
    let whole = Whole::start().await?;
    let story = tell(&whole).await?;
    set(&story, json!({"default_limit": "40", "custom": {"cy": "5"}, "excluded_features": ["workflow"]}))
        .await?;
    let csv = story.csv("/users?over_budget=true&limit=1").await?;
    ensure!(csv.text == "user_id,used,counted,held,limit,blocked\nbo,40,40,0,40,true\n", "{}", csv.text);
    let cursor = csv.headers["next-cursor"].to_str()?;
    let rest = story.csv(&format!("/users?over_budget=true&limit=1&cursor={cursor}")).await?;
    ensure!(
        rest.text.ends_with("\ncy,5,5,0,5,true\n") && !rest.headers.contains_key("next-cursor"),
        "{}",
        rest.text
    );
    let all = story.csv("/users").await?;
    ensure!(all.text.contains("\nana,50,30,0,40,false\n"), "{}", all.text);

    for (user, row) in [
        (
            "ana",
            json!({"user_id": "ana", "used": "50", "counted": "30", "held": "0", "limit": "40", "blocked": false}),
        ),
        (
            "cy",
            json!({"user_id": "cy", "used": "5", "counted": "5", "held": "0", "limit": "5", "blocked": true}),
        ),
    ] {
        let member = whole.keyed("member", &["acme"], Some(user)).await?;
        let own = read(&member, "/v1/accounts/acme/users").await?;
        ensure_is(&own.expect(200)?.body["items"], &json!([row]))?;
        let over = read(&member, "/v1/accounts/acme/users?over_budget=true").await?;
        let expected = if row["blocked"] == true { json!([row]) } else { json!([]) };
        ensure_is(&over.expect(200)?.body["items"], &expected).context(user)?;
    }
    // With own limits alone the query finds a member among them, or not at all.
    set(&story, json!({"custom": {"cy": "5"}})).await?;
    for (user, rows) in [("ana", 0), ("cy", 1)] {
        let member = whole.keyed("member", &["acme"], Some(user)).await?;
        let over = read(&member, "/v1/accounts/acme/users?over_budget=true").await?;
        let items = over.expect(200)?.body["items"].as_array().map(Vec::len);
        ensure!(items == Some(rows), "{user}: {}", over.text);
    }
    whole.replay_and_stop().await
}

/// Users as `ana 50, bo 40`.
fn ranked(users: &[Value]) -> String {
    let one = |user: &Value| {
        let [who, used] = ["user_id", "used"].map(|field| user[field].as_str().unwrap_or("?").to_owned());
        format!("{who} {used}")
    };
    users.iter().map(one).collect::<Vec<_>>().join(", ")
}

async fn members_see_their_own(whole: &Whole) -> Result<()> {
    for (user, query, expected) in [
        ("ana", "sort=-used", "ana 50"),
        ("ana", "sort=-used&q=a", "ana 50"),
        ("ana", "sort=-used&q=b", ""),
        ("bea", "sort=-used", "bea 0"),
        ("bea", "q=b", "bea 0"),
    ] {
        let member = whole.keyed("member", &["acme"], Some(user)).await?;
        let own = read(&member, &format!("/v1/accounts/acme/users?{query}")).await?;
        let found = ranked(own.expect(200)?.body["items"].as_array().context("items")?);
        ensure!(found == expected, "{user} {query}: {found}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_listed_by_usage_and_by_how_their_id_begins() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "acme", json!({"allowance": "1000"})).await?;
    let at = "2026-01-06T00:00:00Z";
    for (number, (user, feature, credits)) in [
        ("ana", "chat", "30"),
        ("ana", "workflow", "20"),
        ("Ana", "chat", "9"),
        ("bo", "chat", "50"),
        ("b_o", "chat", "0.38"),
        ("b%o", "chat", "0"),
        ("b\\o", "chat", "60"),
        ("émile", "chat", "7"),
        ("éva", "chat", "7.000000001"),
        ("\u{10ffff}z", "chat", "1"),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({"credits": credits, "user_id": user, "feature": feature});
        story.usage(at, &format!("u{number}"), body).await?;
    }
    // They have no usage; ana's hold changes no place.
    for (number, user) in ["bea", "ana", "aaa"].into_iter().enumerate() {
        let hold = json!({"reservation_id": format!("r{number}"), "user_id": user, "feature": "chat",
                          "amount": "5", "ttl_seconds": 3_600});
        whole.operator().at(at).post("/v1/accounts/acme/reservations", hold).await?.expect(201)?;
    }
    let last = "\u{10ffff}z 1, b_o 0.38";
    for (query, expected) in [
        (
            "sort=-used",
            format!("b\\o 60, ana 50, bo 50, Ana 9, éva 7.000000001, émile 7, {last}, aaa 0, b%o 0, bea 0"),
        ),
        ("sort=-used&q=b", "b\\o 60, bo 50, b_o 0.38, b%o 0, bea 0".to_owned()),
        ("sort=user&q=b", "b%o 0, b\\o 60, b_o 0.38, bea 0, bo 50".to_owned()),
        ("q=b_", "b_o 0.38".to_owned()),
        ("q=b%25", "b%o 0".to_owned()),
        ("q=b%5C&sort=-used", "b\\o 60".to_owned()),
        ("q=an", "ana 50".to_owned()),
        ("q=An&sort=-used", "Ana 9".to_owned()),
        ("q=%C3%A9&sort=-used", "éva 7.000000001, émile 7".to_owned()),
        ("q=%C3%A9", "émile 7, éva 7.000000001".to_owned()),
        ("q=%F4%8F%BF%BF&sort=-used", "\u{10ffff}z 1".to_owned()),
        ("q=zz&sort=-used", String::new()),
    ] {
        for limit in [1, 2, 3, 50] {
            let found = ranked(&story.pages(&format!("/users?{query}"), limit).await?);
            ensure!(found == expected, "{query} in pages of {limit}: {found}, not {expected}");
        }
    }
    let csv = story.csv("/users?sort=-used&limit=2&q=b").await?;
    ensure!(csv.text.ends_with("\nb\\o,60,60,0,,false\nbo,50,50,0,,false\n"), "{}", csv.text);
    let cursor = csv.headers["next-cursor"].to_str()?;
    let rest = story.csv(&format!("/users?sort=-used&q=b&cursor={cursor}")).await?;
    ensure!(rest.text.ends_with("\nb%o,0,0,0,,false\nbea,0,0,5,,false\n"), "{}", rest.text);

    members_see_their_own(&whole).await?;
    // A reversal takes the usage back, and what is held no more is listed no more.
    story.post(at, "/usage/u6/reversal", json!({"reason": "wrong"})).await?;
    story.clock("2026-01-06T02:00:00Z").await?;
    let found = ranked(&story.items("/users?sort=-used").await?);
    let expected = format!("ana 50, bo 50, Ana 9, éva 7.000000001, émile 7, {last}, b%o 0, b\\o 0");
    ensure!(found == expected, "{found}");
    whole.replay_and_stop().await
}

/// Users as a projector would have written them: few different amounts, many of them in one bucket, by one event and by many.
const MANY: [&str; 5] = [
    "set local search_path = read_model_1",
    "insert into user_usage
     select 'many', 0, 'm' || lpad((n * 7919 % 3001)::text, 4, '0'), 'chat',
            case n % 5 when 0 then 1.0 when 1 then 100 + n % 90 else 120 + n * 37 % 1000 * 0.009 end, 1 + n % 23
       from generate_series(1, 3000) as n",
    "insert into user_total
     select account_id, period_index, user_id, used, events from user_usage where account_id = 'many'",
    // As for more than there are, so that pages are read by their totals.
    "insert into user_usage_count values ('many', 0, 5001)",
    r#"insert into usage_rollup
       select account_id, 0, date '2026-01-06', user_id, '', '', '', feature, '', used, events,
              '{"tokens": "2"}'::jsonb
         from user_usage where account_id = 'many'
        union all
       select 'many', 0, date '2026-01-06', '', '', '', '', 'chat', '', 121.5, 3, '{}'"#,
];

/// Own limits of most of them: none, low and high, below and above what they have used; those of the last are void.
const OWN: &str = "
    insert into read_model_1.own_limit
    select 'many', 'm' || lpad(n::text, 4, '0'), case when n < 2500 then 0 else 1 end,
           case when n >= 2500 then 0
                when n % 5 = 0 then null
                when n % 5 = 1 then n % 130
                when n % 5 = 2 then 200
                else 119 end
      from generate_series(0, 3000) as n";

/// With so many low limits that not all of them are looked up apart, with few, and without a default.
async fn over_budget_is_exact_with_own_limits(whole: &Whole, story: &Story) -> Result<()> {
    sqlx::query(OWN).execute(&whole.pool).await?;
    for default_limit in [json!("124"), json!("40"), Value::Null] {
        story.limits(LATER, json!({"default_limit": default_limit})).await?;
        let mut expected = story.pages("/users", 500).await?;
        expected.retain(|user| user["blocked"] == true);
        ensure!(expected.len() > 500, "{} over budget of {default_limit}", expected.len());
        let found = story.pages("/users?over_budget=true", 100).await?;
        ensure!(found == expected, "{} over budget of {default_limit} by id", found.len());
        expected.sort_by_key(|user| std::cmp::Reverse(credits(&user["used"])));
        for limit in [70, 500] {
            let found = story.pages("/users?over_budget=true&sort=-used", limit).await?;
            ensure!(found == expected, "{} over budget of {default_limit} in pages of {limit}", found.len());
        }
    }
    Ok(())
}

/// The largest groups by user are the first rows of the ranking, and usage without a user among them.
async fn usage_by_user_is_exact(whole: &Whole, story: &Story, everyone: &[Value]) -> Result<()> {
    let group = |user: &Value| (user["user_id"].clone(), credits(&user["used"]));
    let mut expected: Vec<(Value, i128)> = everyone.iter().map(group).collect();
    expected.push((Value::Null, credits(&json!("121.5"))));
    expected.sort_by_key(|(user, used)| (std::cmp::Reverse(*used), user.as_str().map(str::to_owned)));
    let group = |group: &Value| (group["user"].clone(), credits(&group["credits"]));
    for limit in [1, 17, 500] {
        let found = story.items(&format!("/usage?group_by=user&sort=-credits&limit={limit}")).await?;
        ensure!(
            found
                .iter()
                .all(|group| group["user"].is_null() || group["quantities"] == json!({"tokens": "2"}))
        );
        let found: Vec<(Value, i128)> = found.iter().map(group).collect();
        ensure!(found == expected[..limit], "usage by user in pages of {limit}: {found:?}");
    }
    // Where the page reaches users of whom all usage was reversed, these have no group.
    sqlx::raw_sql(
        "delete from read_model_1.user_total where account_id = 'many' and user_id >= 'm0005';
         update read_model_1.user_total set used = 0, events = 0 where account_id = 'many' and user_id = 'm0003';
         update read_model_1.usage_rollup set credits = 0, events = 0 where account_id = 'many' and user_id = 'm0003'",
    )
    .execute(&whole.pool)
    .await?;
    expected.retain(|(user, _)| user != "m0003");
    let found = story.items("/usage?group_by=user&sort=-credits&limit=5").await?;
    let found: Vec<(Value, i128)> = found.iter().map(group).collect();
    ensure!(found == expected[..5], "usage by user down to 0: {found:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_by_usage_are_exact_through_ties_and_buckets() -> Result<()> {
    let whole = Whole::start().await?;
    let story = Story::monthly(&whole, "many", json!({"allowance": "1000"})).await?;
    let mut tx = whole.pool.begin().await?;
    for statement in MANY {
        sqlx::query(statement).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    let mut everyone = story.pages("/users", 500).await?;
    ensure!(everyone.len() == 3_000, "{} users", everyone.len());
    everyone.sort_by_key(|user| std::cmp::Reverse(credits(&user["used"])));
    for limit in [17, 500] {
        let found = story.pages("/users?sort=-used", limit).await?;
        ensure!(found.len() == everyone.len(), "{} users in pages of {limit}", found.len());
        for (at, (found, expected)) in found.iter().zip(&everyone).enumerate() {
            ensure!(found == expected, "row {at} in pages of {limit}: {found} is not {expected}");
        }
    }
    // Some and few of them begin so.
    for q in ["m0", "m12", "m123", "m1234"] {
        let beginning =
            |user: &&Value| user["user_id"].as_str().is_some_and(|user_id| user_id.starts_with(q));
        let expected: Vec<Value> = everyone.iter().filter(beginning).cloned().collect();
        for limit in [7, 500] {
            let found = story.pages(&format!("/users?sort=-used&q={q}"), limit).await?;
            ensure!(!found.is_empty() && found == expected, "{q} in pages of {limit}: {found:?}");
        }
    }
    // Half of them are over budget, and none of those with 1 credit.
    story.limits(LATER, json!({"default_limit": "124", "excluded_features": []})).await?;
    let expected: Vec<String> = everyone
        .iter()
        .filter(|user| credits(&user["used"]) >= Credits::whole(124).units())
        .map(|user| user["user_id"].to_string())
        .collect();
    let found = story.pages("/users?sort=-used&over_budget=true", 100).await?;
    let found: Vec<String> = found.iter().map(|user| user["user_id"].to_string()).collect();
    ensure!(found == expected && found.len() > 500, "{} over budget, not {}", found.len(), expected.len());
    over_budget_is_exact_with_own_limits(&whole, &story).await?;
    usage_by_user_is_exact(&whole, &story, &everyone).await?;
    sqlx::raw_sql(
        "delete from read_model_1.own_limit where account_id = 'many';
         delete from read_model_1.user_usage where account_id = 'many';
         delete from read_model_1.user_total where account_id = 'many';
         delete from read_model_1.usage_rollup where account_id = 'many';
         delete from read_model_1.user_usage_count where account_id = 'many'",
    )
    .execute(&whole.pool)
    .await?;
    whole.replay_and_stop().await
}
