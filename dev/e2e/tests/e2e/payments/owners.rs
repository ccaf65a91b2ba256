//! Whose card is charged: only that of the account's own customer at the provider, and only what can be paid.

use std::sync::Arc;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::stripe::{Shared, fake, paying_at};
use super::webhooks::{SIGNED, report, session};
use super::{Account, count, until_count};
use e2e::Whole;

/// Returns how many charges the fake has made.
fn charges(book: &Shared) -> usize {
    book.lock().unwrap_or_else(std::sync::PoisonError::into_inner).charged.len()
}

fn gives_to(book: &Shared, method: &str, customer: &str) {
    let mut book = book.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    book.owners.insert(method.to_owned(), customer.to_owned());
}

/// The next attempt of this number has failed, and nothing was credited.
async fn ensure_failed(whole: &Whole, account: &Account, number: u32, settled: &str) -> Result<()> {
    let id = account.path.trim_start_matches("/v1/accounts/").to_owned();
    let ended = format!("control.top_up where account_id = '{id}' and number = {number} and state = 'ended'");
    until_count(whole, &ended, 1).await?;
    ensure!(account.figure("settled").await? == settled);
    let reply = "select reply from control.top_up where account_id = $1 and number = $2";
    let reply: String =
        sqlx::query_scalar(reply).bind(&id).bind(i32::try_from(number)?).fetch_one(&whole.pool).await?;
    ensure!(reply.contains("another customer"), "{reply}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_of_another_customer_is_neither_taken_nor_charged() -> Result<()> {
    let book = Shared::default();
    let url = fake(Arc::clone(&book)).await?;
    let whole = Whole::start_with(&paying_at(&url)).await?;
    let (a, b) =
        (Account::open_for(&whole, "a", "cus_1").await?, Account::open_for(&whole, "b", "cus_b").await?);
    let none = Account::open(&whole, "none").await?;
    b.try_set("pm_of_a", json!({})).await?.expect_fields(&["payment_method of_another_customer"])?;
    none.try_set("pm_of_a", json!({})).await?.expect_fields(&["payment_method no_payment_customer"])?;
    // Who switches it off charges nobody.
    b.set("pm_of_a", json!({"enabled": false})).await?;
    ensure!(charges(&book) == 0 && b.figure("settled").await? == "0");
    a.set("pm_of_a", json!({})).await?;
    a.until("settled", "50").await?;
    // It changes hands after it was saved.
    gives_to(&book, "pm_of_a", "cus_b");
    a.spend("u1", "45").await?;
    ensure_failed(&whole, &a, 2, "5").await?;
    ensure!(charges(&book) == 1);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_knows_owners_too_and_the_operator_and_the_first_checkout_set_the_customer() -> Result<()>
{
    let whole = Whole::start_with(&SIGNED).await?;
    let acme = Account::open(&whole, "acme").await?;
    acme.try_set("pm_ok@cus_other", json!({}))
        .await?
        .expect_fields(&["payment_method no_payment_customer"])?;
    let shown = async || -> Result<Value> {
        Ok(whole.operator().get("/v1/accounts/acme").await?.expect(200)?.body["payment_customer"].clone())
    };
    ensure!(shown().await?.is_null());
    // The first paid checkout sets it, and no later one.
    for (payment, customer) in [("pi_1", "cus_mine"), ("pi_2", "cus_later")] {
        let mut paid = session("acme", payment);
        paid["customer"] = json!(customer);
        report(&whole, "checkout.session.completed", paid).await?;
    }
    ensure!(shown().await? == "cus_mine");
    acme.try_set("pm_ok@cus_other", json!({}))
        .await?
        .expect_fields(&["payment_method of_another_customer"])?;
    let admin = whole.keyed("admin", &["acme"], None).await?;
    let theirs = json!({"payment_customer": "cus_other"});
    admin.patch(&acme.path, theirs.clone()).await?.expect_problem(403, "forbidden")?;
    let seen = admin.get(&acme.path).await?;
    ensure!(seen.expect(200)?.body.get("payment_customer").is_none(), "{}", seen.text);
    for bad in [json!(""), json!("cus 1"), json!(5)] {
        let answer = whole.operator().patch(&acme.path, json!({"payment_customer": bad})).await?;
        ensure!(answer.status == 422, "{}", answer.text);
    }
    let set = whole.operator().patch(&acme.path, theirs).await?;
    ensure!(
        set.expect(200)?.body == json!({"account_id": "acme", "payment_customer": "cus_other"}),
        "{}",
        set.text
    );
    acme.spend("u1", "195").await?;
    acme.set("pm_ok@cus_other", json!({})).await?;
    acme.until("settled", "55").await?;
    let both = json!({"payment_customer": "cus_mine", "name": "Acme"});
    ensure!(whole.operator().patch(&acme.path, both).await?.expect(200)?.body["outcome"] == "applied");
    acme.spend("u2", "50").await?;
    ensure_failed(&whole, &acme, 2, "5").await?;
    ensure!(count(&whole, "control.sandbox_charge").await? == 1);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_would_refuse_the_sandbox_refuses() -> Result<()> {
    let whole = Whole::start().await?;
    let operator = whole.operator();
    let free = json!({"account_id": "free", "plan": {"cycle": "monthly", "allowance": "0"}});
    operator.post("/v1/accounts", free).await?.expect(200)?;
    let free = Account::again(&whole, "free");
    free.try_set("pm_ok", json!({})).await?.expect_problem(422, "no_price")?;
    free.set("pm_ok", json!({"enabled": false})).await?;
    operator
        .post("/v1/accounts/free/checkout", json!({"amount": "100"}))
        .await?
        .expect_problem(422, "no_price")?;
    let acme = Account::open(&whole, "acme").await?;
    for (amount, code) in [("49", "too_small"), ("0.1", "too_small"), ("50.5", "too_fine")] {
        let expected = format!("amount {code}");
        let more = json!({"amount": amount, "threshold": "0"});
        acme.try_set("pm_ok", more).await?.expect_fields(&[&expected])?;
        let bought = operator.post("/v1/accounts/acme/checkout", json!({"amount": amount})).await?;
        bought.expect_fields(&[&expected])?;
    }
    ensure!(count(&whole, "control.sandbox_charge").await? == 0);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ledgers_on_one_provider_account_charge_and_credit_apart() -> Result<()> {
    let book = Shared::default();
    let url = fake(Arc::clone(&book)).await?;
    let settings = [&paying_at(&url)[..], &SIGNED].concat();
    let wholes = [Whole::start_with(&settings).await?, Whole::start_with(&settings).await?];
    for whole in &wholes {
        // The second would find the first one's charge under the same attempt's id.
        let acme = Account::open_for(whole, "acme", "cus_1").await?;
        acme.set("pm_drop", json!({})).await?;
        sqlx::query("update control.top_up set next_ask_at = clock_timestamp() where state = 'started'")
            .execute(&whole.pool)
            .await?;
        acme.until("settled", "50").await?;
    }
    ensure!(charges(&book) == 2, "each is charged for itself");
    // Each receives the other's webhooks too.
    let log_id: String = sqlx::query_scalar("select log_id::text from control.log_identity")
        .fetch_one(&wholes[0].pool)
        .await?;
    let mut paid = session("acme", "pi_1");
    paid["metadata"]["log_id"] = json!(log_id);
    for whole in &wholes {
        report(whole, "checkout.session.completed", paid.clone()).await?;
    }
    for (whole, expected) in wholes.into_iter().zip(["150", "50"]) {
        ensure!(Account::again(&whole, "acme").figure("settled").await? == expected);
        whole.replay_and_stop().await?;
    }
    Ok(())
}
