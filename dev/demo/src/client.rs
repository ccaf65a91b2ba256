//! Client: calls the HTTP API as any caller would.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use ledger_core::value::time::Time;
use platform::http_client;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

/// How often a request is sent again while the service is unreachable or unavailable.
const TRIES_MAX: u32 = 30;
/// Wait before the next try, where the answer names none.
const RETRY_WAIT: Duration = Duration::from_millis(500);
/// Longest wait before the next try, whatever the answer says.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest wait for one answer.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Longest wait until the ledger has ingested what Kafka has.
const TAKEN_WAIT: Duration = Duration::from_secs(60);
/// How often to check whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const PAGE_ITEMS: usize = 500;
const PAGES_MAX: usize = 1_000;

/// Calls one ledger with one key.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    key: String,
}

#[derive(Debug)]
pub struct Write<'a> {
    pub method: Method,
    /// The path, from `/v1/` on.
    pub path: String,
    /// The test clock's time.
    pub at: Option<Time>,
    /// For writes without an id of their own.
    pub idempotency_key: Option<&'a str>,
    /// What the body is.
    pub content_type: &'static str,
    pub body: Value,
}

impl<'a> Write<'a> {
    pub fn new(method: Method, path: String, body: Value) -> Write<'a> {
        Write { method, path, at: None, idempotency_key: None, content_type: "application/json", body }
    }

    pub fn at(self, at: Time) -> Write<'a> {
        Write { at: Some(at), ..self }
    }
}

impl Client {
    pub fn new(url: &str, key: &str) -> Result<Client> {
        let http = http_client::builder().timeout(ANSWER_WAIT).build()?;
        Ok(Client { http, url: url.trim_end_matches('/').to_string(), key: key.to_string() })
    }

    /// Sends a write again until it is answered: every write is idempotent.
    pub async fn write(&self, write: &Write<'_>) -> Result<Value> {
        let mut request = self
            .http
            .request(write.method.clone(), self.address(&write.path))
            .header(AUTHORIZATION, self.bearer())
            .header(CONTENT_TYPE, write.content_type)
            .body(serde_json::to_vec(&write.body)?);
        if let Some(at) = write.at {
            request = request.header("ledger-time", at.to_string());
        }
        if let Some(key) = write.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let answer = answer(self.send(request).await?).await?;
        match answer["outcome"].as_str() {
            None | Some("applied" | "duplicate") => Ok(answer),
            Some(outcome) => bail!("{} {}: {outcome}: {answer}", write.method, write.path),
        }
    }

    pub async fn read(&self, path: &str) -> Result<Value> {
        answer(self.get(path).await?).await
    }

    /// Reads a list to its end.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let join = if path.contains('?') { '&' } else { '?' };
        let first = format!("{path}{join}limit={PAGE_ITEMS}");
        let mut items = Vec::new();
        let mut page = first.clone();
        for _ in 0..PAGES_MAX {
            let mut answer = self.read(&page).await?;
            let Value::Array(more) = answer["items"].take() else { bail!("GET {path}: not a list") };
            items.extend(more);
            let Some(cursor) = answer["next_cursor"].as_str() else { return Ok(items) };
            page = format!("{first}&cursor={cursor}");
        }
        bail!("GET {path}: more than {PAGES_MAX} pages")
    }

    /// Moves a test clock, and waits until the read model includes it and everything written before.
    pub async fn advance(&self, account: &str, to: Time) -> Result<()> {
        let path = format!("/v1/accounts/{account}/clock");
        let answer = self.write(&Write::new(Method::POST, path, json!({ "advance_to": to }))).await?;
        self.reach(account, &answer["position"]).await
    }

    /// Waits until the read model reaches a position.
    pub async fn reach(&self, account: &str, position: &Value) -> Result<()> {
        let at_least = format!("{}:{}", position["partition"], position["offset"]);
        self.read(&format!("/v1/accounts/{account}/balance?at_least={at_least}")).await?;
        Ok(())
    }

    /// Returns whether an account exists.
    pub async fn knows(&self, account: &str) -> Result<bool> {
        let response = self.get(&format!("/v1/accounts/{account}")).await?;
        Ok(response.status() != StatusCode::NOT_FOUND)
    }

    /// Waits until the read model has an event that was sent through Kafka.
    pub async fn taken(&self, account: &str, event: &str) -> Result<()> {
        let path = format!("/v1/accounts/{account}/events/{event}");
        let deadline = Instant::now() + TAKEN_WAIT;
        while Instant::now() < deadline {
            let response = self.get(&path).await?;
            if response.status() != StatusCode::NOT_FOUND {
                answer(response).await?;
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("event {event}, sent through Kafka, is not there after {TAKEN_WAIT:?}")
    }

    async fn get(&self, path: &str) -> Result<Response> {
        self.send(self.http.get(self.address(path)).header(AUTHORIZATION, self.bearer())).await
    }

    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.key)
    }

    /// Sends until the answer is another than 503.
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response> {
        let mut tries = 0;
        loop {
            tries += 1;
            let request = request.try_clone().context("a request that can be sent again")?;
            let wait = match request.send().await {
                Ok(response) if response.status() == StatusCode::SERVICE_UNAVAILABLE && tries < TRIES_MAX => {
                    retry_after(&response)
                }
                Ok(response) => return Ok(response),
                Err(error) if (error.is_connect() || error.is_timeout()) && tries < TRIES_MAX => RETRY_WAIT,
                Err(error) => return Err(error.into()),
            };
            tokio::time::sleep(wait).await;
        }
    }
}

fn retry_after(response: &Response) -> Duration {
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    seconds.map_or(RETRY_WAIT, Duration::from_secs).min(RETRY_WAIT_MAX)
}

async fn answer(response: Response) -> Result<Value> {
    let (status, url) = (response.status(), response.url().clone());
    let text = response.text().await?;
    if !status.is_success() {
        bail!("{} answered {status}: {text}", url.path());
    }
    serde_json::from_str(&text).with_context(|| format!("{} answered no JSON: {text}", url.path()))
}
