//! Settings: the account, its plan, its people and its webhook.

use anyhow::{Context, Result, ensure};
use e2e::Whole;

use super::{Browser, between, tell};
use crate::receiver::{Answer, Receiver};

const PAGE: &str = "/accounts/acme/settings";

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_names_the_account_its_people_and_its_webhook() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    browser.get(PAGE).await?.shows(200, &[r#"value="acme &#38; sons""#, "Nobody is notified yet"])?;
    ensure!(
        !browser.html.contains("Close the account") && !browser.html.contains("settings/plan"),
        "an admin's"
    );
    let form = "/accounts/acme/settings/account";
    browser.submit(form, &[("name", "Acme"), ("low_balance_threshold", "-1")]).await?;
    browser.shows(422, &[r#"class="wrong" id="h-low_balance_threshold""#, r#"value="-1""#])?;
    browser.submit(form, &[("name", "Acme"), ("low_balance_threshold", "20")]).await?.follow().await?;
    browser.shows(200, &["Saved.", r#"name="low_balance_threshold" value="20""#])?;

    let people = "/accounts/acme/settings/people";
    let ana =
        [("person_id", "ana"), ("person_list", "admins"), ("person_name", "Ana"), ("person_email", "ana")];
    browser.submit(people, &ana).await?;
    browser.shows(422, &[r#"class="wrong" id="h-person_email""#, r#"name="person_name" value="Ana""#])?;
    let ana =
        ana.map(|(name, value)| (name, if name == "person_email" { "ana@example.test" } else { value }));
    browser.submit(people, &ana).await?.follow().await?.shows(200, &["ana@example.test", ">Admin<"])?;
    browser.submit(people, &[("person_id", "bo"), ("person_list", "users")]).await?.follow().await?;
    browser.submit("/accounts/acme/settings/people/remove", &[("person_id", "bo")]).await?.follow().await?;
    browser.shows(200, &["Removed.", "ana@example.test"])?;
    ensure!(!browser.html.contains("value=\"bo\""), "bo is gone");

    let webhook = "/accounts/acme/settings/webhook";
    browser.submit(webhook, &[("url", "nowhere")]).await?.shows(422, &["is no URL", r#"value="nowhere""#])?;
    browser
        .submit(webhook, &[("url", "https://hooks.example.test/l")])
        .await?
        .shows(200, &["shown this once"])?;
    let secret = between(&browser.html, "<code class=\"secret\">", "<").context("a secret")?.to_owned();
    ensure!(secret.starts_with("whsec_"), "{secret}");
    browser.get(PAGE).await?.shows(200, &["https://hooks.example.test/l", "ana@example.test"])?;
    ensure!(!browser.html.contains(&secret), "a secret is shown once");
    browser.submit("/accounts/acme/settings/webhook/secret", &[]).await?.shows(200, &["shown this once"])?;
    ensure!(!browser.html.contains(&secret), "another secret");
    let test = "/accounts/acme/settings/webhook/test";
    for _ in 0..10 {
        browser.submit(test, &[]).await?.shows(200, &["The receiver was not reached"])?;
    }
    browser
        .submit(test, &[])
        .await?
        .shows(422, &["at most 10 times a minute", "https://hooks.example.test/l"])?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_changes_the_plan_and_closes_the_account() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::signed_in(&whole, &whole.operator()).await?;
    let form = "/accounts/acme/settings/plan";
    browser.get(form).await?.shows(200, &[r#"name="allowance" value="100""#])?;
    let tag = between(&browser.html, r#"name="tag" value=""#, "\"").context("a tag")?.replace("&#34;", "\"");
    let plan = [
        ("tag", tag.as_str()),
        ("name", "Team"),
        ("cycle", "monthly"),
        ("allowance", "many"),
        ("rollover_mode", "capped"),
        ("rollover_cap", "50"),
        ("at", "next_period"),
    ];
    browser.submit(form, &plan).await?;
    browser.shows(422, &[r#"class="wrong" id="h-allowance""#, r#"value="many""#, r#"value="Team""#])?;
    let plan = plan.map(|(name, value)| (name, if name == "allowance" { "250" } else { value }));
    browser.submit(form, &plan).await?.follow().await?;
    browser.shows(200, &["Waits", "250 credits", "Rolls over, up to 50", "100 credits"])?;

    browser.get("/accounts/acme/settings/close").await?.shows(200, &["Close acme for good"])?;
    browser
        .submit("/accounts/acme/settings/close", &[])
        .await?
        .shows(422, &[r#"class="wrong" id="h-reason""#])?;
    browser.submit("/accounts/acme/settings/close", &[("reason", "moved")]).await?.follow().await?;
    browser.shows(200, &["The account is closed.", "Closed"])?;
    ensure!(!browser.html.contains("settings/plan"), "a closed account has no forms");
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_reads_settings_without_addresses() -> Result<()> {
    let whole = Whole::start().await?;
    tell(&whole, "acme", "100").await?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("auditor", &[], None).await?).await?;
    browser.get(PAGE).await?.shows(200, &["acme &#38; sons", "When credits run out"])?;
    ensure!(
        !browser.html.contains("<h2 id=\"people-title\"") && !browser.html.contains("/settings/account"),
        "no"
    );
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_call_shows_what_the_receiver_answered() -> Result<()> {
    let whole = Whole::start_with(&["--webhook-allow-private"]).await?;
    tell(&whole, "acme", "100").await?;
    let receiver = Receiver::start([Answer::of(204), Answer::of(500).saying("out of paper")]).await?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    browser.get(PAGE).await?;
    ensure!(!browser.html.contains("Send a test call"), "there is nothing to call");
    browser.submit("/accounts/acme/settings/webhook", &[("url", &receiver.url())]).await?;
    let test = "/accounts/acme/settings/webhook/test";
    browser
        .submit(test, &[])
        .await?
        .shows(200, &["The receiver accepted the test call", "with 204 after"])?;
    browser.submit(test, &[]).await?.shows(200, &["The receiver answered 500", "out of paper"])?;
    whole.replay_and_stop().await
}
