//! What was paid stands with the credits that it bought: told by the provider, recorded by hand, or the list price.

use anyhow::{Result, ensure};
use command_api::manual_resolution::{Decision, Signed, resolve};
use ledger_core::value::id::{PaymentId, Text};
use serde_json::{Value, json};

use super::webhooks::{SIGNED, report, session};
use super::{Account, until_count};
use e2e::Whole;

/// Returns the price of the paid lot with this id, or of the only one.
async fn price(account: &Account, grant: Option<&str>) -> Result<Value> {
    let grants = account.read("grants").await?;
    let items = grants["items"].as_array().cloned().unwrap_or_default();
    let paid = items.iter().filter(|lot| lot["category"] == "paid");
    let mut found = paid.filter(|lot| grant.is_none_or(|grant| lot["grant_id"] == grant));
    let lot = found.next();
    ensure!(lot.is_some() && found.next().is_none(), "{grants}");
    Ok(lot.map_or(Value::Null, |lot| lot["price"].clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_lot_shows_what_was_paid() -> Result<()> {
    let whole = Whole::start_with(&SIGNED).await?;
    let operator = whole.operator();
    let acme = Account::open(&whole, "acme").await?;
    let mut paid = session("acme", "pi_usd");
    paid["currency"] = json!("USD");
    report(&whole, "checkout.session.completed", paid).await?;
    ensure!(price(&acme, Some("pi_usd")).await? == json!({"amount": "1", "currency": "usd"}));
    // A webhook that names no currency: the list price.
    report(&whole, "checkout.session.completed", session("acme", "pi_bare")).await?;
    ensure!(price(&acme, Some("pi_bare")).await? == json!({"amount": "1", "currency": "usd"}));
    // Other money, as a person has decided.
    let mut euros = session("acme", "pi_euro");
    (euros["currency"], euros["amount_total"]) = (json!("eur"), json!(95));
    report(&whole, "checkout.session.completed", euros).await?;
    let signed = Signed { by: Text::new("olga")?, note: Text::new("agreed")?, actor: None };
    let credit = Decision::Credit { amount: "100".parse()?, journal_id: None };
    resolve(&whole.pool, &PaymentId::new("pi_euro")?, credit, signed).await?;
    acme.until("settled", "300").await?;
    ensure!(price(&acme, Some("pi_euro")).await? == json!({"amount": "0.95", "currency": "eur"}));
    // A top-up.
    let wallet = Account::open(&whole, "wallet").await?;
    wallet.set("pm_ok", json!({})).await?;
    wallet.until("settled", "50").await?;
    ensure!(price(&wallet, None).await? == json!({"amount": "0.5", "currency": "usd"}));
    // Recorded by hand, without a price, for an account whose unit has none.
    let body = json!({"account_id": "bare", "plan": {"cycle": "monthly", "allowance": "0"}});
    operator.post("/v1/accounts", body).await?.expect(200)?;
    let bare = Account::again(&whole, "bare");
    let purchase = json!({"payment_id": "p1", "amount": "100"});
    operator.post("/v1/accounts/bare/purchases", purchase).await?.expect(200)?;
    let shown = bare.read("grants").await?;
    let lot = shown["items"].as_array().into_iter().flatten().find(|lot| lot["grant_id"] == "p1").cloned();
    ensure!(lot.is_some_and(|lot| lot.get("price").is_none()), "{shown}");
    until_count(&whole, "control.payment_effect where state <> 'decided'", 0).await?;
    whole.replay_and_stop().await
}
