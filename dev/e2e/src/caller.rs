//! Caller: HTTP requests and answers, each checked against the OpenAPI document.

use anyhow::{Context, Result};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

use crate::answer::Answer;
use crate::described;
use crate::services::Addresses;

#[derive(Clone)]
pub struct Caller {
    client: Client,
    addresses: Addresses,
    key: Option<String>,
    headers: Vec<(String, String)>,
}

impl Caller {
    pub(crate) fn new(client: Client, addresses: Addresses, key: Option<String>) -> Caller {
        Caller { client, addresses, key, headers: Vec::new() }
    }

    /// Adds a header to each of this caller's requests.
    pub fn with(&self, name: &str, value: &str) -> Caller {
        let mut caller = self.clone();
        caller.headers.push((name.to_owned(), value.to_owned()));
        caller
    }

    /// Returns the key that it sends; empty without one.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or_default()
    }

    /// Adds the recording time to each write.
    pub fn at(&self, ledger_time: &str) -> Caller {
        self.with("Ledger-Time", ledger_time)
    }

    /// Returns a request to complete and pass to [`Caller::send`].
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.addresses.of(&method, path));
        let mut request = self.client.request(method, url);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request
    }

    /// Sends a request, and fails where the OpenAPI document does not describe the answer.
    pub async fn send(&self, request: RequestBuilder) -> Result<Answer> {
        let request = request.build()?;
        let sent = request.try_clone();
        let asked = format!("{} {}", request.method(), request.url());
        let response = self.client.execute(request).await.with_context(|| asked.clone())?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let header = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (content_type, retry_after) = (header("content-type"), header("retry-after"));
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        let answer = Answer { asked, status, content_type, retry_after, headers, body, text };
        if let Some(sent) = sent {
            described::ensure_described(&sent, &answer)?;
        }
        Ok(answer)
    }

    pub async fn send_as(&self, method: Method, path: &str, media_type: &str, body: &str) -> Result<Answer> {
        let request = self.request(method, path).header("content-type", media_type);
        self.send(request.body(body.to_owned())).await
    }

    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Result<Answer> {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// `POST` without a body
    pub async fn post_nothing(&self, path: &str) -> Result<Answer> {
        self.send(self.request(Method::POST, path)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Result<Answer> {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Result<Answer> {
        self.send(self.request(Method::PATCH, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.send(self.request(Method::DELETE, path)).await
    }
}
