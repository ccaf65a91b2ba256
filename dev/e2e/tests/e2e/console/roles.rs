//! Roles: every page shows a key what the API answers it, and nothing else.

use anyhow::{Context, Result, ensure};
use e2e::{Caller, Whole};
use serde_json::json;

use super::{Browser, tell};

/// Pages below an account, each beside the read that it is made of.
const OF_ACCOUNT: [(&str, &str); 13] = [
    ("", "/balance"),
    ("/usage", "/usage"),
    ("/people", "/users"),
    ("/people/ana", "/usage?user=ana"),
    ("/messages", "/events/secret"),
    ("/history", "/periods"),
    ("/billing", "/entries"),
    ("/grants", "/grants"),
    ("/free-credits", "/referrals"),
    ("/limits", "/limits"),
    ("/notifications", "/notifications"),
    ("/audit", "/entries"),
    ("/settings", "/plan"),
];
const OF_NONE: [(&str, &str); 4] = [
    ("/", "/v1/accounts"),
    ("/keys", "/v1/keys"),
    ("/rate-cards", "/v1/rate-cards"),
    ("/audit-log", "/v1/audit/checkpoints"),
];
/// What only who may read the account `beta` may see: a user, an event, an amount.
const SECRETS: [&str; 3] = ["zoe", "secret", "77.77"];

/// Opens two accounts; only `beta` has the secrets.
async fn open_both(whole: &Whole) -> Result<()> {
    for account in ["acme", "beta"] {
        tell(whole, account, "1000").await?;
    }
    let usage = json!({"id": "secret", "user_id": "zoe", "category": "chat", "model": "m9", "credits": "77.77",
                       "occurred_at": "2026-01-09T12:00:00Z", "message_id": "secret-message"});
    let operator = whole.operator().at("2026-01-11T00:00:00Z");
    operator.post("/v1/accounts/beta/usage?wait=true", usage).await?.expect(200)?;
    Ok(())
}

/// Compares a page with the read that it is made of.
async fn check(browser: &mut Browser, caller: &Caller, page: &str, read: &str, path: &str) -> Result<()> {
    let answered = caller.get(read).await?;
    browser.get(page).await?;
    // A member's list of people is the own page.
    if browser.status == 303 && browser.location.starts_with("/accounts/") {
        browser.follow().await?;
    }
    let what = format!("{page}: {}; {read}: {}", browser.status, answered.status);
    ensure!(browser.status < 500 && answered.status < 500, "{what}");
    if answered.status == 200 {
        ensure!(browser.status == 200, "the page refuses what the API answers: {what}");
        return Ok(());
    }
    // The page's own address is on it.
    let shown = browser.html.replace(path, "");
    for secret in SECRETS {
        ensure!(!shown.contains(secret), "{secret} is on a page that the API refuses: {what}: {shown}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_shows_each_role_what_the_api_answers_it() -> Result<()> {
    let whole = Whole::start().await?;
    open_both(&whole).await?;
    let callers = [
        whole.operator(),
        whole.keyed("auditor", &["*"], None).await?,
        whole.keyed("admin", &["acme"], None).await?,
        whole.keyed("admin", &["beta"], None).await?,
        whole.keyed("member", &["beta"], Some("ana")).await?,
        whole.keyed("producer", &["beta"], None).await?,
    ];
    for (number, caller) in callers.iter().enumerate() {
        let mut browser = Browser::signed_in(&whole, caller).await?;
        for account in ["acme", "beta", "nobody"] {
            for (below, read) in OF_ACCOUNT {
                let (page, read) =
                    (format!("/accounts/{account}{below}"), format!("/v1/accounts/{account}{read}"));
                let checked = check(&mut browser, caller, &page, &read, &page).await;
                checked.with_context(|| format!("caller {number}"))?;
            }
        }
        for (page, read) in OF_NONE {
            let checked = check(&mut browser, caller, page, read, page).await;
            checked.with_context(|| format!("caller {number}"))?;
        }
    }
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_answers_without_a_session() -> Result<()> {
    let whole = Whole::start().await?;
    let mut browser = Browser::new(&whole);
    let of_account = OF_ACCOUNT.iter().map(|(below, _)| format!("/accounts/acme{below}"));
    let pages = of_account.chain(OF_NONE.iter().map(|(page, _)| (*page).to_owned()));
    for page in pages.chain(["/search?q=a".to_owned(), "/promo-codes".to_owned(), "/open".to_owned()]) {
        browser.get(&page).await?;
        ensure!(
            browser.status == 303 && browser.location.starts_with("/login"),
            "{page}: {}",
            browser.status
        );
    }
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_sees_amounts_in_the_unit_of_the_account() -> Result<()> {
    let whole = Whole::start().await?;
    let opened = json!({"account_id": "acme", "unit": "usd", "clock": "test",
                        "plan": {"cycle": "monthly", "anchor": "2026-01-01T00:00:00Z", "allowance": "100"}});
    let at = whole.operator().at("2026-01-05T00:00:00Z");
    at.post("/v1/accounts", opened).await?.expect(200)?;
    let usage = json!({"id": "u1", "occurred_at": "2026-01-05T00:00:00Z", "credits": "2.5", "user_id": "ana",
                       "category": "chat", "message_id": "m1"});
    at.post("/v1/accounts/acme/usage?wait=true", usage).await?.expect(200)?;
    let member = whole.keyed("member", &["acme"], Some("ana")).await?;
    let mut browser = Browser::signed_in(&whole, &member).await?;
    for page in ["", "/usage", "/people/ana", "/messages/m1"] {
        browser.get(&format!("/accounts/acme{page}")).await?.shows(200, &["$2.5"])?;
    }
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_does_not_exist_is_a_page_to_browsers_and_a_problem_to_programs() -> Result<()> {
    let whole = Whole::start().await?;
    for path in ["/nothing", "/accounts/acme/nothing/here", "/v1/nothing"] {
        let of = |accept: &'static str| {
            let request = platform::http_client::plain().get(format!("{}{path}", whole.console()));
            async move { anyhow::Ok(request.header("accept", accept).send().await?) }
        };
        let page = of("text/html,application/xhtml+xml,*/*;q=0.8").await?;
        ensure!(
            page.status() == 404 && page.headers()["content-type"] == "text/html; charset=utf-8",
            "{path}"
        );
        ensure!(page.headers().contains_key("content-security-policy"), "{path}");
        ensure!(page.text().await?.contains("There is nothing here"), "{path}");
        for accept in ["*/*", "application/json"] {
            let problem = of(accept).await?;
            ensure!(problem.status() == 404, "{path}");
            ensure!(problem.headers()["content-type"] == "application/problem+json", "{path} {accept}");
        }
    }
    whole.replay_and_stop().await
}
