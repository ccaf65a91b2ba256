//! Top-ups: a wallet that tops itself up, and one whose card fails. At the sandbox: no money moves.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use comfy_table::Table;
use ledger_core::credits::Credits;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::client::{Client, Write};
use super::prices::Unit;
use super::read_back::amount;
use super::tables;

/// When both wallets open, and stand still.
const OPENING: &str = "2023-11-16T18:00:00Z";
/// Longest wait for what comes of a top-up.
const CAME_WAIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What each of them uses, in dollars.
const WORK: [&str; 3] = ["12", "9", "12"];

/// A wallet of the demo.
struct Wallet {
    id: String,
    title: &'static str,
    payment_method: &'static str,
    /// What its work must have fired.
    fires: &'static str,
    times: usize,
}

/// Lets both wallets live, and prints what came of it.
pub async fn show(client: &Client, name: &str, out: &mut impl std::io::Write) -> Result<()> {
    let wallets = [
        Wallet {
            id: format!("{name}-auto"),
            title: "tops itself up",
            payment_method: "pm_ok",
            fires: "credit_auto_recharge_triggered",
            times: 3,
        },
        Wallet {
            id: format!("{name}-declined"),
            title: "its card fails",
            payment_method: "pm_fail",
            fires: "credit_purchase_failed",
            times: 1,
        },
    ];
    let mut table = Table::new();
    for wallet in &wallets {
        table.add_row(live(client, wallet).await?);
    }
    let header = ["Account", "Wallet", "Used", "Topped up", "Balance", "Told"];
    let table = tables::laid_out(table, &header, 2..5);
    writeln!(out, "\nAuto top-up: $20 when $10 or less is left (by the sandbox: no money moves)\n\n{table}")?;
    Ok(())
}

/// Opens a wallet, uses it, and tells what came of it.
async fn live(client: &Client, wallet: &Wallet) -> Result<[String; 6]> {
    let path = format!("/v1/accounts/{}", wallet.id);
    let opening = json!({"account_id": wallet.id, "name": wallet.title, "unit": "usd", "clock": "test",
                         "plan": {"cycle": "monthly", "anchor": OPENING, "allowance": "0"}});
    let opening = Write::new(Method::POST, "/v1/accounts".to_owned(), opening).at(OPENING.parse()?);
    client.write(&opening).await?;
    let settings =
        json!({"enabled": true, "threshold": "10", "amount": "20", "payment_method": wallet.payment_method});
    client.write(&Write::new(Method::PUT, format!("{path}/auto-top-up"), settings)).await?;
    if wallet.times > 1 {
        fired(client, &path, wallet.fires, 1).await?;
    }
    for (number, credits) in WORK.iter().enumerate() {
        let usage = json!({"id": format!("work-{number}"), "occurred_at": OPENING, "credits": credits});
        client.write(&Write::new(Method::POST, format!("{path}/usage?wait=true"), usage)).await?;
        sleep(LOOK_EVERY * 5).await;
    }
    fired(client, &path, wallet.fires, wallet.times).await?;
    let balance = settled(client, &path).await?;
    let dollars =
        |field: &str| Ok::<String, anyhow::Error>(tables::money(amount(&balance, field)?, Unit::Usd));
    let told = format!("{} x {}", wallet.times, wallet.fires);
    let topped_up = amount(&balance, "lifetime_added")?;
    let expected =
        if wallet.times > 1 { Credits::whole(20 * i64::try_from(wallet.times)?) } else { Credits::ZERO };
    ensure!(topped_up == expected, "{}: topped up by {topped_up}, not {expected}", wallet.id);
    let (used, settled) = (dollars("used")?, dollars("settled")?);
    Ok([wallet.id.clone(), wallet.title.to_owned(), used, dollars("lifetime_added")?, settled, told])
}

/// Waits until something has fired so often.
async fn fired(client: &Client, path: &str, kind: &str, times: usize) -> Result<()> {
    let deadline = Instant::now() + CAME_WAIT;
    while Instant::now() < deadline {
        let firings = client.list(&format!("{path}/firings?kind={kind}")).await?;
        if firings.len() >= times {
            return Ok(());
        }
        sleep(LOOK_EVERY).await;
    }
    bail!("{path}: {kind} has not fired {times} times after {CAME_WAIT:?}")
}

/// Reads the balance once the read model has what fired.
async fn settled(client: &Client, path: &str) -> Result<Value> {
    let newest = client.list(&format!("{path}/firings")).await?;
    newest.first().with_context(|| format!("{path}: nothing has fired"))?;
    sleep(LOOK_EVERY * 5).await;
    client.read(&format!("{path}/balance")).await
}
