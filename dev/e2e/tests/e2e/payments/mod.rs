//! Top-ups from an admin's view: set over HTTP, charged at the sandbox, credited once, replayed.

mod growth;
mod hanging;
mod lost;
mod outcomes;
mod owners;
mod parked;
mod prices;
mod refunds;
mod refused;
mod stripe;
pub(crate) mod webhooks;

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use e2e::{Answer, Caller, Whole};

/// Longest wait for the outcome of a top-up.
const CAME_MAX: Duration = Duration::from_secs(120);

/// An account on a test clock without an allowance.
pub struct Account {
    caller: Caller,
    pub path: String,
}

impl Account {
    /// Opens it on the fifth of January.
    pub async fn open(whole: &Whole, id: &str) -> Result<Account> {
        let body = json!({"account_id": id, "clock": "test", "usd_per_unit": "0.01",
                          "plan": {"cycle": "monthly", "anchor": "2026-01-01T00:00:00Z", "allowance": "0"}});
        let caller = whole.operator();
        caller.at("2026-01-05T00:00:00Z").post("/v1/accounts", body).await?.expect(200)?;
        Ok(Account { caller, path: format!("/v1/accounts/{id}") })
    }

    /// Opens it with a customer at the payment provider.
    pub async fn open_for(whole: &Whole, id: &str, customer: &str) -> Result<Account> {
        let account = Account::open(whole, id).await?;
        account.set_customer(customer).await?;
        Ok(account)
    }

    pub async fn set_customer(&self, customer: &str) -> Result<()> {
        let body = json!({"payment_customer": customer});
        self.caller.patch(&self.path, body).await?.expect(200).map(drop)
    }

    pub fn again(whole: &Whole, id: &str) -> Account {
        Account { caller: whole.operator(), path: format!("/v1/accounts/{id}") }
    }

    /// Sets a top-up of 50 at 10 or less, by this payment method.
    pub async fn set(&self, payment_method: &str, more: Value) -> Result<()> {
        self.try_set(payment_method, more).await?.expect(200).map(drop)
    }

    pub async fn try_set(&self, payment_method: &str, more: Value) -> Result<Answer> {
        let mut body =
            json!({"enabled": true, "threshold": "10", "amount": "50", "payment_method": payment_method});
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        self.caller.put(&format!("{}/auto-top-up", self.path), body).await
    }

    pub async fn spend(&self, id: &str, credits: &str) -> Result<()> {
        let body = json!({"id": id, "occurred_at": "2026-01-05T00:00:00Z", "credits": credits});
        self.caller.post(&format!("{}/usage?wait=true", self.path), body).await?.expect(200).map(drop)
    }

    pub async fn advance(&self, to: &str) -> Result<()> {
        let path = format!("{}/clock", self.path);
        self.caller.post(&path, json!({"advance_to": to})).await?.expect(200).map(drop)
    }

    pub async fn read(&self, what: &str) -> Result<Value> {
        Ok(self.caller.get(&format!("{}/{what}", self.path)).await?.expect(200)?.body.clone())
    }

    /// Returns one figure of the balance.
    pub async fn figure(&self, name: &str) -> Result<String> {
        Ok(self.read("balance").await?[name].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until a figure of the balance has this value.
    pub async fn until(&self, name: &str, expected: &str) -> Result<()> {
        let since = Instant::now();
        loop {
            let found = self.figure(name).await?;
            if found == expected {
                return Ok(());
            }
            if since.elapsed() > CAME_MAX {
                bail!("{}: {name} is {found}, not {expected}", self.path);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Returns the kinds of the firings, oldest first, once there are this many.
    pub async fn fired(&self, count: usize) -> Result<Vec<String>> {
        let since = Instant::now();
        loop {
            let firings = self.read("firings").await?;
            let kinds = firings["items"].as_array().into_iter().flatten();
            let mut kinds: Vec<String> =
                kinds.filter_map(|firing| Some(firing["kind"].as_str()?.to_owned())).collect();
            kinds.reverse();
            if kinds.len() >= count || since.elapsed() > CAME_MAX {
                return Ok(kinds);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

pub async fn count(whole: &Whole, rows: &str) -> Result<i64> {
    let sql = format!("select count(*) from {rows}");
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&whole.pool).await?)
}

/// Waits until there are this many rows.
pub async fn until_count(whole: &Whole, rows: &str, expected: i64) -> Result<()> {
    let since = Instant::now();
    loop {
        let found = count(whole, rows).await?;
        if found == expected {
            return Ok(());
        }
        if since.elapsed() > CAME_MAX {
            bail!("{found} rows of {rows}, not {expected}");
        }
        sleep(Duration::from_millis(50)).await;
    }
}
