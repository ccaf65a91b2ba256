//! People: the list, one user, the own limit, and why somebody was refused.

use anyhow::{Result, ensure};
use e2e::Whole;
use serde_json::json;

use super::{Browser, tell};

#[tokio::test(flavor = "multi_thread")]
async fn people_are_listed_by_use_or_name_and_by_who_is_over() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let limits = json!({"default_limit": "10"});
    whole.operator().put("/v1/accounts/acme/limits", limits).await?.expect(200)?;
    let own = json!({"limit": "50"});
    whole.operator().put("/v1/accounts/acme/limits/users/ana", own).await?.expect(200)?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("auditor", &[], None).await?).await?;
    let page = "/accounts/acme/people";
    browser.get(page).await?.shows(200, &[r#"href="/accounts/acme/people/ana""#, "60.2 %", "Blocked"])?;
    let at = |browser: &Browser, user: &str| browser.html.find(&format!("/people/{user}"));
    ensure!(at(&browser, "ana") < at(&browser, "bo"), "the largest first: {}", browser.html);
    browser.get(&format!("{page}?over_budget=true")).await?.shows(200, &["/people/bo"])?;
    ensure!(at(&browser, "ana").is_none(), "ana has an own limit: {}", browser.html);
    browser.get(&format!("{page}?q=b")).await?.shows(200, &["/people/bo"])?;
    ensure!(at(&browser, "ana").is_none(), "{}", browser.html);
    browser.get(&format!("{page}?q=zz")).await?.shows(200, &["No id begins so"])?;
    browser.get(&format!("{page}.csv?sort=user")).await?.shows(200, &["user_id,used", "ana,30.123456789"])?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_explained_with_its_figures() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let operator = whole.operator();
    let own = json!({"limit": "32"});
    operator.put("/v1/accounts/acme/limits/users/ana", own).await?.expect(200)?;
    let work = json!({"reservation_id": "r1", "user_id": "ana", "feature": "search", "amount": "5", "ttl_seconds": 60});
    operator.post("/v1/accounts/acme/reservations", work).await?.expect(402)?;
    let decisions = operator.get("/v1/accounts/acme/decisions?user=ana").await?;
    let at =
        decisions.expect(200)?.body["items"][0]["decided_at"].as_str().unwrap_or_default()[..16].to_owned();
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    let page = "/accounts/acme/people/ana";
    let figures = [
        "Refused: the limit of this user is reached",
        "Held for work in progress",
        "Asked for",
        // 30.12 + 5 are 3.12 more than 32.
        r#"<dt>Too much by</dt><dd><data class="amount" value="3.123456789""#,
        "<code>r1</code>",
    ];
    browser.get(&format!("{page}?at={at}")).await?.shows(200, &figures)?;
    browser
        .get(&format!("{page}?at=2020-01-01T00:00"))
        .await?
        .shows(200, &["Nothing was refused until then"])?;
    browser.get(&format!("{page}?at=noon")).await?.shows(200, &["not a day and a time"])?;
    browser.get("/accounts/acme/people/bo").await?.shows(200, &["Never refused"])?;

    let member = whole.keyed("member", &["acme"], Some("ana")).await?;
    let mut browser = Browser::signed_in(&whole, &member).await?;
    browser.get("/accounts/acme/people").await?;
    ensure!(browser.location == page, "{}", browser.location);
    browser.follow().await?.shows(200, &["Too much by"])?;
    ensure!(!browser.html.contains(r#"action="/accounts/acme/people/ana/limit""#), "{}", browser.html);
    browser.get("/accounts/acme/people/bo").await?.shows(403, &["forbidden"])?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_limit_is_changed_in_place() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    let (page, form) = ("/accounts/acme/people/ana", "/accounts/acme/people/ana/limit");
    browser.get(page).await?.submit(form, &[("mode", "own"), ("limit", "lots")]).await?;
    browser.shows(422, &[r#"value="lots""#, r#"class="wrong" id="h-limit""#])?;
    browser.submit(form, &[("mode", "own"), ("limit", "30")]).await?.follow().await?;
    browser.shows(200, &["Saved.", r#"title="30 credits""#, "Blocked", r#"name="limit" value="30""#])?;
    browser.submit(form, &[("mode", "unlimited")]).await?.follow().await?.shows(200, &["no limit"])?;
    browser.submit(form, &[("mode", "default")]).await?.follow().await?.shows(200, &["there is none"])?;
    let auditor = whole.keyed("auditor", &[], None).await?;
    let mut browser = Browser::signed_in(&whole, &auditor).await?;
    browser.get(page).await?.shows(200, &["Admins change it"])?;
    let token = browser.token()?;
    let fields = [("csrf", token.as_str()), ("mode", "own"), ("limit", "1")];
    browser.send(form, &fields, &[]).await?.shows(403, &["forbidden"])?;
    whole.replay_and_stop().await
}
