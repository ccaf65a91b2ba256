//! Billing: what may be spent, buying, auto top-up, payments made elsewhere and refunds.

use anyhow::{Result, ensure};
use e2e::Whole;
use serde_json::json;

use super::Browser;
use crate::payments::Account;
use crate::payments::webhooks::{SIGNED, report, session};

/// Opens an account whose credits cost a cent, with 100 of its plan and 500 bought.
async fn shop(whole: &Whole) -> Result<()> {
    let plan = json!({"cycle": "monthly", "allowance": "100"});
    let account =
        json!({"account_id": "acme", "usd_per_unit": "0.01", "plan": plan, "low_balance_threshold": "600"});
    whole.operator().post("/v1/accounts", account).await?.expect(200)?;
    let bought =
        json!({"payment_id": "pi_1", "amount": "500", "price": {"amount": "4.5", "currency": "usd"}});
    whole.operator().post("/v1/accounts/acme/purchases", bought).await?.expect(200).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_sees_what_may_be_spent_and_buys_more() -> Result<()> {
    let whole = Whole::start().await?;
    shop(&whole).await?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    browser.get("/accounts/acme/billing").await?.shows(
        200,
        &[
            "Low Balance",
            r#"Rollover</dt><dd><data class="amount" value="0""#,
            r#"Total available</dt><dd><data class="amount" value="600""#,
            r#"Added in all</dt><dd><data class="amount" value="500""#,
            "One costs $0.01. A purchase costs $0.50 to $999,999.99.",
            r#"data-label="Paid"><span>$4.50<"#,
            r#"href="/accounts/acme/audit?view=entries""#,
            "Nothing was given back",
        ],
    )?;
    ensure!(!browser.html.contains("Refund<span") && !browser.html.contains("/billing/record"), "an admin's");
    browser.submit("/accounts/acme/billing/checkout", &[("amount", "1")]).await?;
    browser.shows(
        422,
        &[r#"class="wrong" id="h-amount""#, r#"name="amount" value="1""#, "costs less than the least"],
    )?;
    browser.submit("/accounts/acme/billing/checkout", &[("amount", "1000"), ("once", "one")]).await?;
    browser.shows(200, &["The checkout for", "value=\"1000\"", "nobody can pay there", "sandbox_"])?;
    let first = browser.html.clone();
    browser.get("/accounts/acme/billing").await?;
    browser.submit("/accounts/acme/billing/checkout", &[("amount", "1000"), ("once", "one")]).await?;
    let id = |html: &str| super::between(html, "Checkout <code>", "<").map(str::to_owned);
    ensure!(id(&browser.html).is_some() && id(&browser.html) == id(&first), "a form counts once");
    browser.get("/accounts/acme/billing/record").await?.shows(403, &["forbidden"])?;

    let mut browser = Browser::signed_in(&whole, &whole.keyed("auditor", &[], None).await?).await?;
    browser.get("/accounts/acme/billing").await?.shows(200, &["Admins and operators buy credits"])?;
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_top_up_is_enabled_changed_and_turned_off() -> Result<()> {
    let whole = Whole::start().await?;
    shop(&whole).await?;
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    let (page, form) = ("/accounts/acme/billing", "/accounts/acme/billing/auto-top-up");
    browser.get(page).await?.shows(200, &["Enable auto top-up", ">Off<"])?;
    browser
        .get(form)
        .await?
        .shows(200, &["at most 100,000 at once", "1 to 1,000; 10 without", "0 up to the amount"])?;
    let typed =
        [("enabled", "true"), ("basis", "credit_balance"), ("threshold", "200"), ("max_per_period", "few")];
    browser.submit(form, &typed).await?;
    browser.shows(
        422,
        &[r#"value="few""#, r#"id="h-amount">is required"#, r#"class="wrong" id="h-max_per_period""#],
    )?;
    let typed = [
        ("enabled", "true"),
        ("basis", "credit_balance"),
        ("threshold", "200"),
        ("amount", "1000"),
        ("payment_method", "pm_1"),
        ("max_per_period", "3"),
    ];
    browser.submit(form, &typed).await?.follow().await?;
    browser.shows(200, &["Saved.", ">On<", "<code>pm_1</code>", "3 times", "Manage"])?;
    browser.get(form).await?.shows(200, &[r#"name="threshold" value="200""#, "Turn off"])?;
    let off = [("enabled", "false"), ("basis", "credit_balance"), ("threshold", "200"), ("amount", "1000")];
    browser.submit(form, &off).await?.follow().await?.shows(200, &[">Off<"])?;
    let now = whole.operator().get("/v1/accounts/acme/auto-top-up").await?;
    ensure!(now.expect(200)?.body["enabled"] == false, "{}", now.text);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_records_a_payment_and_gives_it_back() -> Result<()> {
    let whole = Whole::start().await?;
    shop(&whole).await?;
    let mut browser = Browser::signed_in(&whole, &whole.operator()).await?;
    let (page, record) = ("/accounts/acme/billing", "/accounts/acme/billing/record");
    browser.get(record).await?;
    browser.submit(record, &[("payment_id", "inv <7>"), ("amount", "-1")]).await?;
    browser.shows(422, &[r#"value="inv &#60;7&#62;""#, r#"class="wrong" id="h-amount""#])?;
    let typed = [("payment_id", "inv-7"), ("amount", "50"), ("price", "40"), ("currency", "eur")];
    browser.submit(record, &typed).await?.follow().await?.shows(200, &["Saved.", "inv-7", "40 EUR"])?;

    browser
        .get(&format!("{page}/refund?payment=inv-7&amount=50"))
        .await?
        .shows(200, &[r#"value="inv-7""#])?;
    let refund = format!("{page}/refund");
    browser.submit(&refund, &[("payment_id", "inv-7"), ("amount", "51"), ("once", "a")]).await?;
    browser.shows(422, &["refund_exceeds_payment", r#"value="51""#])?;
    let typed = [("payment_id", "inv-7"), ("amount", "20"), ("reason", "broken"), ("once", "b")];
    browser
        .submit(&refund, &typed)
        .await?
        .follow()
        .await?
        .shows(200, &["Saved.", "\u{2212}20", ">Refunded<"])?;
    let balance = whole.operator().get("/v1/accounts/acme/balance").await?;
    ensure!(balance.expect(200)?.body["available"] == "630", "{}", balance.text);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_decides_about_what_was_paid_and_came_to_nothing() -> Result<()> {
    let whole = Whole::start_with(&SIGNED).await?;
    let acme = Account::open(&whole, "acme").await?;
    for payment in ["pi_1", "pi_2"] {
        let mut paid = session("acme", payment);
        paid["amount_total"] = 1.into();
        paid["currency"] = "usd".into();
        report(&whole, "checkout.session.completed", paid).await?;
    }
    let page = "/accounts/acme/billing";
    let mut browser = Browser::signed_in(&whole, &whole.keyed("admin", &["acme"], None).await?).await?;
    browser.get(page).await?;
    ensure!(!browser.html.contains("Waits for your decision"), "an operator's");
    let mut browser = Browser::signed_in(&whole, &whole.operator()).await?;
    let shown = ["Waits for your decision", "pi_1", "the provider reports $0.01", "Amount differs"];
    browser.get(page).await?.shows(200, &shown)?;
    let [first, second] = ["pi_1", "pi_2"].map(|payment| format!("{page}/parked/payments/{payment}"));
    let credit = [("act", "credit"), ("id", "pi_1"), ("amount", "0"), ("reason", "agreed")];
    let shown = [r#"value="agreed""#, "must be above 0", r#"<details class="confirm" open>"#];
    browser.submit(&first, &credit).await?.shows(422, &shown)?;
    let credit = credit.map(|(name, value)| (name, if name == "amount" { "90" } else { value }));
    browser.submit(&first, &credit).await?.follow().await?.shows(200, &["Decided.", "pi_2"])?;
    ensure!(!browser.html.contains("/parked/payments/pi_1"), "it is decided");
    acme.until("settled", "90").await?;
    let dismiss = [("act", "dismissed"), ("id", "pi_2"), ("reason", "a trial")];
    browser.submit(&second, &dismiss).await?.follow().await?.shows(200, &["Decided."])?;
    ensure!(!browser.html.contains("Waits for your decision"), "nothing waits");
    whole.replay_and_stop().await
}
