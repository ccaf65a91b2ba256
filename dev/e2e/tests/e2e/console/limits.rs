//! Limits and alerts: each is tried before it is saved, and says which field is wrong.

use anyhow::{Result, ensure};
use e2e::Whole;
use serde_json::json;

use super::{Browser, tell};

const PAGE: &str = "/accounts/acme/limits";

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_tried_saved_edited_and_removed() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    browser.get(PAGE).await?.shows(200, &["No alert yet", "/accounts/acme/limits/alert"])?;
    let form = "/accounts/acme/limits/alert";
    let mut fields = [
        ("new", "yes"),
        ("alert_id", "a-third"),
        ("basis", "percent_used"),
        ("threshold", "300"),
        ("to", "all"),
        ("channel", "in_app"),
    ];
    browser.get(form).await?.submit(form, &[&fields[..], &[("do", "preview")]].concat()).await?;
    browser.shows(422, &[r#"value="300""#, r#"class="wrong" id="h-threshold""#])?;
    fields[3] = ("threshold", "33");
    browser.submit(form, &[&fields[..], &[("do", "preview")]].concat()).await?;
    // 40.123456789 of 100 are used, in two events: the second takes it from 30.1 to 40.1.
    browser.shows(200, &["It would have fired once", "would have fired on", "40.1 %", r#"value="33""#])?;
    let alerts = whole.operator().get("/v1/accounts/acme/alerts").await?;
    ensure!(alerts.body["items"].as_array().is_some_and(Vec::is_empty), "a preview saves nothing");
    browser.submit(form, &[&fields[..], &[("do", "save")]].concat()).await?.follow().await?;
    browser.shows(200, &["Saved.", "a-third", "33 % used", "all admins"])?;

    browser.get(form).await?.submit(form, &[&fields[..], &[("do", "save")]].concat()).await?;
    browser.shows(422, &["is the name of another alert"])?;
    browser.get("/accounts/acme/limits/alert?id=a-third").await?.shows(200, &[r#"value="33""#])?;
    let edited =
        [("alert_id", "a-third"), ("basis", "absolute_remaining"), ("threshold", "5"), ("to", "some")];
    let more = [("others", "ana, carl"), ("channel", "email"), ("do", "save")];
    browser.submit(form, &[&edited[..], &more[..]].concat()).await?.follow().await?;
    browser.shows(200, &["5 credits left", "ana, carl"])?;
    browser.submit("/accounts/acme/limits/alert/remove", &[("alert_id", "a-third")]).await?.follow().await?;
    browser.shows(200, &["Removed.", "No alert yet"])?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_the_alert_on_each_user_are_set_by_forms() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    let form = "/accounts/acme/limits/default";
    let limits = [
        ("enabled", "on"),
        ("default_limit", "20"),
        ("excluded_features", "search, deep work"),
        ("to", "nobody"),
    ];
    browser.get(PAGE).await?;
    // The token stands in the form that goes to this place and its part of the page.
    let token = browser.token()?;
    let with =
        |more: (&'static str, &'static str)| [&[("csrf", token.as_str())], &limits[..], &[more]].concat();
    browser.send(form, &with(("do", "preview")), &[]).await?;
    browser.shows(200, &["It would have fired once", "<b>ana</b>", r#"value="search, deep work""#])?;
    browser.send(form, &with(("do", "save")), &[]).await?.follow().await?.shows(200, &["Saved."])?;
    let stored = whole.operator().get("/v1/accounts/acme/limits").await?;
    ensure!(
        stored.body["default_limit"] == "20"
            && stored.body["excluded_features"] == json!(["deep work", "search"]),
        "{}",
        stored.text
    );
    ensure!(stored.body["notify"].as_array().is_some_and(Vec::is_empty), "{}", stored.text);

    let form = "/accounts/acme/limits/user-alert";
    let alert = [("csrf", token.as_str()), ("enabled", "on"), ("notify_user", "on"), ("to", "all")];
    browser.send(form, &alert, &[]).await?.shows(422, &[r#"class="wrong" id="h-threshold""#])?;
    let alert = [&alert[..], &[("threshold", "25")]].concat();
    let preview = [&alert[..], &[("do", "preview")]].concat();
    browser.send(form, &preview, &[]).await?.shows(200, &["<b>ana</b>", "30.12"])?;
    browser.send(form, &alert, &[]).await?.follow().await?.shows(200, &["Saved."])?;
    let stored = whole.operator().get("/v1/accounts/acme/user-alert").await?;
    ensure!(stored.body["notify_user"] == true && stored.body["threshold"] == "25", "{}", stored.text);

    let form = "/accounts/acme/limits/own";
    let own = [("csrf", token.as_str()), ("user", "bo"), ("limit", "-1")];
    browser.send(form, &own, &[]).await?.shows(422, &[r#"value="-1""#, r#"class="wrong""#])?;
    let own = [("csrf", token.as_str()), ("user", "bo"), ("limit", "7")];
    browser.send(form, &own, &[]).await?.follow().await?;
    browser.shows(200, &[r#"href="/accounts/acme/people/bo""#, r#"title="7 credits""#])?;
    browser.submit("/accounts/acme/limits/own/remove", &[("user", "bo")]).await?.follow().await?;
    browser.shows(200, &["Nobody has an own limit"])?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_set_reads() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("auditor", &[], None).await?).await?;
    browser.get(PAGE).await?.shows(200, &["<fieldset class=\"plain\" disabled>"])?;
    ensure!(!browser.html.contains("/limits/own\""), "{}", browser.html);
    browser.get("/accounts/acme/limits/alert").await?.shows(403, &["forbidden"])?;
    let member = whole.keyed("member", &["acme"], Some("ana")).await?;
    let mut browser = Browser::signed_in(&whole, &member).await?;
    browser.get(PAGE).await?.shows(403, &["forbidden"])?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_own_limits_are_saved_as_csv() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let operator = whole.operator();
    operator.put("/v1/accounts/acme/limits/users/ana", json!({"limit": "7"})).await?.expect(200)?;
    let alert = json!({"basis": "percent_used", "threshold": "75"});
    operator.put("/v1/accounts/acme/alerts/a75", alert).await?.expect(200)?;
    whole.all_evaluated().await?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("auditor", &[], None).await?).await?;
    for (below, name, row) in
        [("alerts.csv", "alerts.csv", "a75,percent_used,75,"), ("own.csv", "limits.csv", "ana,7\n")]
    {
        let link = format!("{PAGE}/{below}");
        browser.get(PAGE).await?.shows(200, &[&format!(r#"href="{link}""#)])?;
        browser.get(&link).await?.shows(200, &[row])?;
        ensure!(browser.header("content-type").starts_with("text/csv"), "{link}");
        ensure!(browser.header("content-disposition").contains(name), "{link}");
    }
    whole.replay_and_stop().await
}
