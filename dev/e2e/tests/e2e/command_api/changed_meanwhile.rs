//! Two people change one setting: the second learns that it is no longer what they read.

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::open_live;
use e2e::{Answer, Caller, Whole};

fn tag(answer: &Answer) -> Result<String> {
    let tag = answer.headers.get("etag").with_context(|| format!("{} has no ETag", answer.asked))?;
    Ok(tag.to_str()?.to_owned())
}

/// Reads a setting's state, or takes the one that its first `PUT` answers with.
async fn state(caller: &Caller, path: &str, readable: bool, first: &Value) -> Result<String> {
    if readable {
        return tag(caller.get(path).await?.expect(200)?);
    }
    tag(caller.put(path, first.clone()).await?.expect(200)?)
}

async fn check(caller: &Caller, path: &str, readable: bool, bodies: [Value; 3]) -> Result<()> {
    let [first, second, third] = bodies;
    let read = state(caller, path, readable, &first).await?;
    let mine = caller.with("If-Match", &read).put(path, second.clone()).await?;
    mine.expect(200)?;
    let late = caller.with("If-Match", &read).put(path, third.clone()).await?;
    late.expect_problem(412, "changed_meanwhile")?;
    // The same again is no change, whatever its condition; and what a PUT answers with is the state to go on from.
    // Auto top-up counts as saved each time, so there it is one.
    let again = if path.ends_with("/auto-top-up") { 412 } else { 200 };
    caller.with("If-Match", &read).put(path, second).await?.expect(again)?;
    let now = tag(&mine)?;
    ensure!(now != read, "{path}");
    if readable {
        ensure!(tag(&caller.get(path).await?)? == now, "{path}");
    }
    caller.with("If-Match", &now).put(path, third).await?.expect(200).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_has_changed_since_it_was_read_is_not_overwritten() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open_live(&operator, "acme", "10").await?;
    let at = |what: &str| format!("/v1/accounts/acme{what}");
    let plan = |allowance: &str| json!({"plan": {"cycle": "monthly", "allowance": allowance}});
    check(&operator, &at("/plan"), false, [plan("11"), plan("12"), plan("13")]).await?;
    let limits = |limit: &str| json!({"default_limit": limit});
    check(&operator, &at("/limits"), false, [limits("1"), limits("2"), limits("3")]).await?;
    let alert = |threshold: &str| json!({"threshold": threshold});
    check(&operator, &at("/user-alert"), true, [alert("1"), alert("2"), alert("3")]).await?;
    let top_up = |most: u32| json!({"enabled": false, "max_per_period": most});
    check(&operator, &at("/auto-top-up"), true, [top_up(1), top_up(2), top_up(3)]).await?;
    let org_alert = |threshold: &str| json!({"basis": "percent_used", "threshold": threshold});
    operator.put(&at("/alerts/a1"), org_alert("5")).await?.expect(200)?;
    check(&operator, &at("/alerts/a1"), true, [org_alert("5"), org_alert("6"), org_alert("7")]).await?;
    let contacts = |id: &str| json!({"admins": [{"id": id}]});
    check(&operator, &at("/contacts"), true, [contacts("ana"), contacts("bo"), contacts("cy")]).await?;
    let card = |credits: &str| json!({"meters": [{"category": "c", "prices": {"x": {"credits": credits, "per": "1"}}}]});
    operator.put("/v1/rate-cards/card", card("1")).await?.expect(200)?;
    check(&operator, "/v1/rate-cards/card", true, [card("1"), card("2"), card("3")]).await?;

    let read = tag(operator.get(&at("")).await?.expect(200)?)?;
    let rename =
        async |name: &str| operator.with("If-Match", &read).patch(&at(""), json!({"name": name})).await;
    rename("Mine").await?.expect(200)?;
    rename("Late").await?.expect_problem(412, "changed_meanwhile")?;
    let gone = operator.with("If-Match", "\"0\"");
    gone.delete(&at("/alerts/a1")).await?.expect_problem(412, "changed_meanwhile")?;
    operator.with("If-Match", "*").delete(&at("/alerts/a1")).await?.expect(200)?;
    cards_are_listed(&operator).await?;
    whole.replay_and_stop().await
}

async fn cards_are_listed(operator: &Caller) -> Result<()> {
    let listed = operator.get("/v1/rate-cards").await?;
    let item = &listed.expect(200)?.body["items"][0];
    ensure!((item["card"].as_str(), item["version"].as_i64()) == (Some("card"), Some(3)), "{}", listed.text);
    let first = operator.get("/v1/rate-cards/card?version=1").await?;
    ensure!(first.expect(200)?.body["meters"][0]["prices"]["x"]["credits"] == "1", "{}", first.text);
    ensure!(first.body["actor"] == "operator", "{}", first.text);
    operator.get("/v1/rate-cards/card?version=4").await?.expect_problem(404, "rate_card_unknown").map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_have_read_the_same_one_changes_it() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open_live(&operator, "acme", "10").await?;
    let path = "/v1/accounts/acme/user-alert";
    for round in 0..3 {
        let read = tag(operator.get(path).await?.expect(200)?)?;
        let caller = operator.with("If-Match", &read);
        let put = |at: usize| {
            let request = caller.request(Method::PUT, path);
            caller.send(request.json(&json!({"threshold": format!("{}", 1 + round * 100 + at)})))
        };
        let answers: Vec<Answer> = join_all((0..8).map(put)).await.into_iter().collect::<Result<_>>()?;
        let changed: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 200).collect();
        let refused = answers.iter().filter(|answer| answer.status == 412).count();
        // Who comes too late again and again is told to come later; nobody is told that they changed it but one.
        ensure!(changed.len() == 1 && refused > 0, "{answers:?}");
        ensure!(tag(changed[0])? == tag(&operator.get(path).await?)?, "{answers:?}");
    }
    whole.replay_and_stop().await
}
