//! Alerts from an admin's view: set over HTTP, fired by usage, mailed, read back, replayed.

mod notify;
mod rules;
pub(crate) mod stream;
mod trial;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use e2e::{Caller, Whole};

/// An account on a test clock, with a monthly plan from the first of January 2026.
pub struct Account {
    operator: Caller,
    path: String,
    written: std::sync::atomic::AtomicU64,
}

impl Account {
    /// Opens it on the fifth of January.
    pub async fn open(whole: &Whole, id: &str, mut body: Value) -> Result<Account> {
        body["account_id"] = json!(id);
        body["clock"] = json!("test");
        body["plan"]["cycle"] = json!("monthly");
        body["plan"]["anchor"] = json!("2026-01-01T00:00:00Z");
        let operator = whole.operator();
        operator.at("2026-01-05T00:00:00Z").post("/v1/accounts", body).await?.expect(200)?;
        let path = format!("/v1/accounts/{id}");
        Ok(Account { operator, path, written: std::sync::atomic::AtomicU64::new(0) })
    }

    fn once(&self) -> String {
        format!("write-{}", self.written.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }

    /// Sets something; `at` is a day of January, at noon, or a time.
    pub async fn put(&self, at: &str, what: &str, body: Value) -> Result<()> {
        let answer = self.operator.at(&time(at)).put(&format!("{}/{what}", self.path), body).await?;
        answer.expect(200).map(drop)
    }

    pub async fn delete(&self, at: &str, what: &str) -> Result<()> {
        let answer = self.operator.at(&time(at)).delete(&format!("{}/{what}", self.path)).await?;
        answer.expect(200).map(drop)
    }

    pub async fn post(&self, at: &str, what: &str, body: Value) -> Result<Value> {
        let caller = self.operator.at(&time(at)).with("Idempotency-Key", &self.once());
        let answer = caller.post(&format!("{}/{what}", self.path), body).await?;
        answer.expect(200)?;
        ensure!(answer.body["outcome"] == "applied", "{}", answer.text);
        Ok(answer.body)
    }

    /// Records usage of a user and returns its id.
    pub async fn uses(&self, at: &str, user: &str, credits: &str) -> Result<String> {
        self.uses_for(at, user, credits, "chat").await
    }

    /// Records usage of a user in a feature.
    pub async fn uses_for(&self, at: &str, user: &str, credits: &str, feature: &str) -> Result<String> {
        let (id, at) = (self.once(), time(at));
        let body =
            json!({"id": id, "occurred_at": at, "user_id": user, "credits": credits, "feature": feature});
        self.post(&at, "usage", body).await?;
        Ok(id)
    }

    /// Reads, with everything that was written before.
    pub async fn get(&self, what: &str) -> Result<Value> {
        let answer = self.operator.get(&format!("{}/{what}", self.path)).await?;
        answer.expect(200)?;
        Ok(answer.body)
    }

    /// Returns what fired, oldest first, as `kind subject figure/threshold v<version> @period`.
    pub async fn fired(&self) -> Result<Vec<String>> {
        let body = self.get("firings?limit=500").await?;
        let items = body["items"].as_array().context("items")?;
        Ok(items.iter().rev().map(shown).collect())
    }
}

fn shown(firing: &Value) -> String {
    let text = |name: &str| firing[name].as_str().unwrap_or_default().to_owned();
    let alert = firing["alert_id"].as_str().map(|id| format!(" {id}")).unwrap_or_default();
    format!(
        "{}{alert} {} {}/{} v{} @{}",
        text("kind"),
        text("subject"),
        text("figure"),
        text("threshold"),
        firing["threshold_version"],
        firing["period_index"]
    )
}

/// A day of January 2026 at noon, or a time unchanged.
fn time(at: &str) -> String {
    if at.len() > 2 { at.to_owned() } else { format!("2026-01-{at}T12:00:00Z") }
}
