//! Top-ups: a wallet that tops itself up, and one whose card fails. Both use the sandbox: no money moves.

use std::time::Duration;

use anyhow::{Result, bail};
use comfy_table::Table;
use ledger_core::value::credits::Credits;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::{Client, Write};
use crate::prices::Unit;
use crate::read_back::amount;
use crate::tables;

/// When both wallets open; their clocks stay there.
const OPENING: &str = "2023-11-16T18:00:00Z";
/// Longest wait for the outcome of a top-up.
const CAME_WAIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The event that reports a successful top-up.
const TOPPED_UP: &str = "credit_auto_recharge_triggered";
/// The amount of one top-up.
const TOP_UP_DOLLARS: i64 = 20;
/// The usage of each wallet, in dollars.
const WORK: [&str; 3] = ["12", "9", "12"];

struct Wallet {
    id: String,
    title: &'static str,
    payment_method: &'static str,
    /// The event that its usage must fire.
    fires: &'static str,
    times: usize,
}

impl Wallet {
    /// The sum of its top-ups in the end.
    fn tops_up(&self) -> Result<Credits> {
        let times = if self.fires == TOPPED_UP { self.times } else { 0 };
        Ok(Credits::whole(TOP_UP_DOLLARS * i64::try_from(times)?))
    }
}

/// Runs both wallets, and prints their results.
pub async fn show(client: &Client, name: &str, out: &mut impl std::io::Write) -> Result<()> {
    let wallets = [
        Wallet {
            id: format!("{name}-auto"),
            title: "tops itself up",
            payment_method: "pm_ok",
            fires: TOPPED_UP,
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
    let header = ["Account", "Wallet", "Used", "Topped up", "Balance", "Notified"];
    let table = tables::laid_out(table, &header, 2..5);
    writeln!(out, "\nAuto top-up: $20 when $10 or less is left (by the sandbox: no money moves)\n\n{table}")?;
    Ok(())
}

/// Opens a wallet, uses it, and returns its row of the table.
async fn live(client: &Client, wallet: &Wallet) -> Result<[String; 6]> {
    let path = format!("/v1/accounts/{}", wallet.id);
    let opening = json!({"account_id": wallet.id, "name": wallet.title, "unit": "usd", "clock": "test",
                         "plan": {"cycle": "monthly", "anchor": OPENING, "allowance": "0"}});
    let opening = Write::new(Method::POST, "/v1/accounts".to_owned(), opening).at(OPENING.parse()?);
    client.write(&opening).await?;
    let settings = json!({"enabled": true, "threshold": "10", "amount": Credits::whole(TOP_UP_DOLLARS), "payment_method": wallet.payment_method});
    client.write(&Write::new(Method::PUT, format!("{path}/auto-top-up"), settings)).await?;
    if wallet.fires == TOPPED_UP {
        // The first top-up, of an empty wallet, comes before the usage.
        fired(client, &path, wallet.fires, 1).await?;
    }
    // A late top-up repays the next usage's overdraft: in any order the figures are the same.
    let mut last = Value::Null;
    for (number, credits) in WORK.iter().enumerate() {
        let usage = json!({"id": format!("work-{number}"), "occurred_at": OPENING, "credits": credits});
        last = client.write(&Write::new(Method::POST, format!("{path}/usage?wait=true"), usage)).await?;
    }
    client.reach(&wallet.id, &last["position"]).await?;
    fired(client, &path, wallet.fires, wallet.times).await?;
    let balance = topped_up(client, &path, wallet.tops_up()?).await?;
    let dollars =
        |field: &str| Ok::<String, anyhow::Error>(tables::money(amount(&balance, field)?, Unit::Usd));
    let notified = format!("{} x {}", wallet.times, wallet.fires);
    let (used, settled) = (dollars("used")?, dollars("settled")?);
    Ok([wallet.id.clone(), wallet.title.to_owned(), used, dollars("lifetime_added")?, settled, notified])
}

/// Waits until this kind has fired that many times.
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

/// Reads the balance once it includes the expected top-ups: a fired event may not be projected yet.
async fn topped_up(client: &Client, path: &str, expected: Credits) -> Result<Value> {
    let deadline = Instant::now() + CAME_WAIT;
    loop {
        let balance = client.read(&format!("{path}/balance")).await?;
        let shown = amount(&balance, "lifetime_added")?;
        if shown == expected {
            return Ok(balance);
        }
        // The sum never decreases.
        if shown > expected || Instant::now() >= deadline {
            bail!("{path}: topped up by {shown}, not {expected}");
        }
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use axum::extract::State;
    use axum::routing::get;
    use axum::{Json, Router};
    use tokio::net::TcpListener;

    use super::*;

    /// A read model that lags: each read shows one top-up more.
    async fn lags(State(looks): State<Arc<AtomicI64>>) -> Json<Value> {
        let shown = Credits::whole(TOP_UP_DOLLARS * looks.fetch_add(1, Ordering::Relaxed));
        Json(json!({"lifetime_added": shown}))
    }

    #[tokio::test]
    async fn a_read_model_that_lags_is_waited_for_and_one_that_shows_too_much_is_wrong() -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let client = Client::new(&format!("http://{}", listener.local_addr()?), "key")?;
        let routes = Router::new().route("/a/balance", get(lags)).with_state(Arc::default());
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await });
        let sixty = Credits::whole(60);
        assert_eq!(amount(&topped_up(&client, "/a", sixty).await?, "lifetime_added")?, sixty);
        assert!(topped_up(&client, "/a", sixty).await.is_err(), "80 is more than 60");
        serving.abort();
        Ok(())
    }
}
