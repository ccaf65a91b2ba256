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

/// A state in which no setting ever is.
const NO_STATE: &str = "\"0\"";

/// Puts the first body, and the others on conditions.
async fn check(caller: &Caller, path: &str, bodies: [Value; 3]) -> Result<()> {
    let [first, second, third] = bodies;
    let made = tag(caller.put(path, first).await?.expect(200)?)?;
    let read = tag(caller.get(path).await?.expect(200)?)?;
    ensure!(made == read, "{path}");
    let wrong = caller.with("If-Match", NO_STATE).put(path, second.clone()).await?;
    wrong.expect_problem(412, "changed_meanwhile")?;
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
    ensure!(tag(&caller.get(path).await?)? == now, "{path}");
    caller.with("If-Match", &now).put(path, third).await?.expect(200).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_has_changed_since_it_was_read_is_not_overwritten() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open_live(&operator, "acme", "10").await?;
    let at = |what: &str| format!("/v1/accounts/acme{what}");
    let plan = |allowance: &str| json!({"plan": {"cycle": "monthly", "allowance": allowance}});
    check(&operator, &at("/plan"), [plan("11"), plan("12"), plan("13")]).await?;
    let limits = |limit: &str| json!({"default_limit": limit});
    check(&operator, &at("/limits"), [limits("1"), limits("2"), limits("3")]).await?;
    let own = |limit: &str| json!({"limit": limit});
    check(&operator, &at("/limits/users/ana"), [own("1"), own("2"), own("unlimited")]).await?;
    let alert = |threshold: &str| json!({"threshold": threshold});
    check(&operator, &at("/user-alert"), [alert("1"), alert("2"), alert("3")]).await?;
    let top_up = |most: u32| json!({"enabled": false, "max_per_period": most});
    check(&operator, &at("/auto-top-up"), [top_up(1), top_up(2), top_up(3)]).await?;
    let org_alert = |threshold: &str| json!({"basis": "percent_used", "threshold": threshold});
    check(&operator, &at("/alerts/a1"), [org_alert("5"), org_alert("6"), org_alert("7")]).await?;
    let contacts = |id: &str| json!({"admins": [{"id": id}]});
    check(&operator, &at("/contacts"), [contacts("ana"), contacts("bo"), contacts("cy")]).await?;
    let card = |credits: &str| json!({"meters": [{"category": "c", "prices": {"x": {"credits": credits, "per": "1"}}}]});
    check(&operator, "/v1/rate-cards/card", [card("1"), card("2"), card("3")]).await?;

    let read = tag(operator.get(&at("")).await?.expect(200)?)?;
    let rename =
        async |name: &str| operator.with("If-Match", &read).patch(&at(""), json!({"name": name})).await;
    rename("Mine").await?.expect(200)?;
    rename("Late").await?.expect_problem(412, "changed_meanwhile")?;
    remove_on_conditions(&operator).await?;
    cards_are_listed(&operator).await?;
    whole.replay_and_stop().await
}

/// What is removed is a setting as well.
async fn remove_on_conditions(operator: &Caller) -> Result<()> {
    let code = json!({"code": "SPRING", "amount": "5"});
    let made = tag(operator.post("/v1/promo-codes", code).await?.expect(201)?)?;
    ensure!(made == tag(operator.get("/v1/promo-codes/SPRING").await?.expect(200)?)?);
    for path in
        ["/v1/accounts/acme/alerts/a1", "/v1/accounts/acme/limits/users/ana", "/v1/promo-codes/SPRING"]
    {
        let read = tag(operator.get(path).await?.expect(200)?)?;
        let late = operator.with("If-Match", NO_STATE).delete(path).await?;
        late.expect_problem(412, "changed_meanwhile")?;
        ensure!(tag(operator.get(path).await?.expect(200)?)? == read, "{path}");
        let gone = tag(operator.with("If-Match", &read).delete(path).await?.expect(200)?)?;
        ensure!(gone != read, "{path}");
        // The same again is no change, whatever its condition.
        let again = operator.with("If-Match", &read).delete(path).await?;
        ensure!(tag(again.expect(200)?)? == gone, "{path}");
    }
    ensure!(operator.get("/v1/promo-codes/SPRING").await?.body["ended_at"].is_string());
    operator
        .get("/v1/accounts/acme/limits/users/ana")
        .await?
        .expect_problem(404, "user_limit_unknown")
        .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_own_limit_is_also_changed_by_who_has_read_the_list() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open_live(&operator, "acme", "10").await?;
    let (list, ana, bo) = (
        "/v1/accounts/acme/limits/users",
        "/v1/accounts/acme/limits/users/ana",
        "/v1/accounts/acme/limits/users/bo",
    );
    let empty = tag(operator.get(list).await?.expect(200)?)?;
    let own = |limit: &str| json!({"limit": limit});
    operator.with("If-Match", &empty).put(ana, own("5")).await?.expect(200)?;
    operator
        .with("If-Match", &empty)
        .put(bo, own("5"))
        .await?
        .expect(200)
        .context("its own state is still that of the empty list: unset")?;
    let both = tag(operator.get(list).await?.expect(200)?)?;
    ensure!(both != empty);
    let shown = operator.get(ana).await?;
    let shown = &shown.expect(200)?.body;
    ensure!(shown["user_id"] == "ana" && shown["limit"] == "5", "{shown}");
    operator.with("If-Match", &both).delete(ana).await?.expect(200)?;
    operator.with("If-Match", &both).put(ana, own("7")).await?.expect_problem(412, "changed_meanwhile")?;
    // The limits change with them: `PUT` with `custom` would replace all.
    let limits = tag(operator.get("/v1/accounts/acme/limits").await?.expect(200)?)?;
    operator.put(bo, own("6")).await?.expect(200)?;
    let late =
        operator.with("If-Match", &limits).put("/v1/accounts/acme/limits", json!({"custom": {}})).await?;
    late.expect_problem(412, "changed_meanwhile")?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_as_changed_meanwhile_changes_nothing_beside_it() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    open_live(&operator, "acme", "10").await?;
    let path = "/v1/accounts/acme";
    let read = tag(operator.get(path).await?.expect(200)?)?;
    for body in [json!({"payment_customer": "cus_1"}), json!({"payment_customer": "cus_1", "name": "Late"})] {
        let late = operator.with("If-Match", NO_STATE).patch(path, body).await?;
        late.expect_problem(412, "changed_meanwhile")?;
        ensure!(operator.get(path).await?.body["payment_customer"].is_null());
    }
    let both = json!({"payment_customer": "cus_1", "name": "Mine"});
    operator.with("If-Match", &read).patch(path, both).await?.expect(200)?;
    let now = operator.get(path).await?;
    ensure!(now.body["payment_customer"] == "cus_1" && now.body["name"] == "Mine", "{}", now.text);
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
