//! Story: an account on a test clock, written by its operator.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::described;
use e2e::{Answer, Caller, Whole};

/// Longest key; a story's writes differ within that length.
const IDEMPOTENCY_KEY_MAX: usize = 128;

pub struct Story {
    operator: Caller,
    account: String,
}

impl Story {
    /// Opens an account on a test clock; `body` has its plan and any other fields.
    pub async fn open(whole: &Whole, account: &str, at: &str, mut body: Value) -> Result<Story> {
        body["account_id"] = json!(account);
        body["clock"] = json!("test");
        let story = Story { operator: whole.operator(), account: account.to_owned() };
        story.operator.at(at).post("/v1/accounts", body).await?.expect(200)?;
        Ok(story)
    }

    /// Opens an account by a plan that is monthly from the first of January 2026.
    pub async fn monthly(whole: &Whole, account: &str, mut plan: Value) -> Result<Story> {
        plan["cycle"] = json!("monthly");
        plan["anchor"] = json!("2026-01-01T00:00:00Z");
        Story::open(whole, account, "2026-01-05T00:00:00Z", json!({"plan": plan})).await
    }

    fn path(&self, what: &str) -> String {
        format!("/v1/accounts/{}{what}", self.account)
    }

    /// Writes, waits until it is projected, and expects that it applied.
    pub async fn post(&self, at: &str, what: &str, body: Value) -> Result<Answer> {
        let key: String =
            format!("{at} {body}").chars().filter(char::is_ascii).take(IDEMPOTENCY_KEY_MAX).collect();
        let caller = self.operator.at(at).with("Idempotency-Key", &key);
        let answer = caller.post(&self.path(what), body).await?;
        answer.expect(200)?;
        ensure!(answer.body["outcome"] == "applied", "{}", answer.text);
        Ok(answer)
    }

    /// Records usage that occurred when it was recorded, unless it says otherwise.
    pub async fn usage(&self, at: &str, id: &str, mut body: Value) -> Result<Answer> {
        body["id"] = json!(id);
        if body["occurred_at"].is_null() {
            body["occurred_at"] = json!(at);
        }
        self.post(at, "/usage", body).await
    }

    pub async fn clock(&self, to: &str) -> Result<Answer> {
        let answer = self.operator.post(&self.path("/clock"), json!({"advance_to": to})).await?;
        answer.expect(200)?;
        Ok(answer)
    }

    pub async fn patch(&self, at: &str, body: Value) -> Result<()> {
        self.operator.at(at).patch(&self.path(""), body).await?.expect(200).map(drop)
    }

    pub async fn plan(&self, at: &str, body: Value) -> Result<()> {
        self.operator.at(at).put(&self.path("/plan"), body).await?.expect(200).map(drop)
    }

    pub async fn limits(&self, at: &str, body: Value) -> Result<()> {
        self.operator.at(at).put(&self.path("/limits"), body).await?.expect(200).map(drop)
    }

    pub async fn void(&self, at: &str, grant: &str) -> Result<()> {
        self.operator.at(at).delete(&self.path(&format!("/grants/{grant}"))).await?.expect(200).map(drop)
    }

    /// Reads, as the operator.
    pub async fn get(&self, what: &str) -> Result<Answer> {
        let answer = described::read(&self.operator, &self.path(what)).await?;
        answer.expect(200)?;
        Ok(answer)
    }

    /// Reads a list's items.
    pub async fn items(&self, what: &str) -> Result<Vec<Value>> {
        items_of(&self.get(what).await?)
    }

    pub async fn csv(&self, what: &str) -> Result<Answer> {
        let answer = described::read(&self.operator.with("Accept", "text/csv"), &self.path(what)).await?;
        answer.expect(200)?;
        ensure!(answer.content_type == "text/csv", "{}", answer.content_type);
        // The list's own path for it answers alike, whatever is accepted.
        let (list, query) = what.split_once('?').unwrap_or((what, ""));
        let by_path = self.get(&format!("{list}.csv?{query}")).await?;
        ensure!(
            by_path.content_type == answer.content_type && by_path.text == answer.text,
            "{}",
            by_path.text
        );
        ensure!(by_path.headers.get("next-cursor") == answer.headers.get("next-cursor"), "{list}.csv");
        Ok(answer)
    }

    /// Reads a list page by page, each of at most so many rows, and checks that every page but the last is full.
    pub async fn pages(&self, what: &str, limit: usize) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let sign = if what.contains('?') { '&' } else { '?' };
            let answer = self.get(&format!("{what}{sign}limit={limit}{cursor}")).await?;
            let page = items_of(&answer)?;
            let next = answer.body["next_cursor"].as_str();
            ensure!(page.len() == limit || next.is_none(), "a page is short: {}", answer.text);
            all.extend(page);
            match next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(all),
            }
        }
    }
}

/// Returns the items of a list.
pub fn items_of(answer: &Answer) -> Result<Vec<Value>> {
    answer.body["items"].as_array().cloned().with_context(|| answer.text.clone())
}
