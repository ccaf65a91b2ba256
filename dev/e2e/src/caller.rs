//! Caller: HTTP requests and answers, each held to the OpenAPI document.

use anyhow::{Context, Result, ensure};
use platform::kafka::Position;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

use crate::described;

/// Somebody who calls the API.
#[derive(Clone)]
pub struct Caller {
    client: Client,
    url: String,
    key: Option<String>,
    headers: Vec<(String, String)>,
}

impl Caller {
    pub(crate) fn new(client: Client, url: String, key: Option<String>) -> Caller {
        Caller { client, url, key, headers: Vec::new() }
    }

    /// Adds a header to each of this caller's requests.
    pub fn with(&self, name: &str, value: &str) -> Caller {
        let mut caller = self.clone();
        caller.headers.push((name.to_owned(), value.to_owned()));
        caller
    }

    /// Adds the recording time to each write.
    pub fn at(&self, ledger_time: &str) -> Caller {
        self.with("Ledger-Time", ledger_time)
    }

    /// Returns a request to be completed and given to [`Caller::send`].
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request
    }

    /// Sends a request, and fails where the answer is none that the OpenAPI document describes.
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

    /// Sends a body under a content type.
    pub async fn send_as(&self, method: Method, path: &str, media_type: &str, body: &str) -> Result<Answer> {
        let request = self.request(method, path).header("content-type", media_type);
        self.send(request.body(body.to_owned())).await
    }

    /// `GET`
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(self.request(Method::GET, path)).await
    }

    /// `POST` with JSON
    pub async fn post(&self, path: &str, body: Value) -> Result<Answer> {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// `POST` without a body
    pub async fn post_nothing(&self, path: &str) -> Result<Answer> {
        self.send(self.request(Method::POST, path)).await
    }

    /// `PUT` with JSON
    pub async fn put(&self, path: &str, body: Value) -> Result<Answer> {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    /// `PATCH` with JSON
    pub async fn patch(&self, path: &str, body: Value) -> Result<Answer> {
        self.send(self.request(Method::PATCH, path).json(&body)).await
    }

    /// `DELETE`
    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.send(self.request(Method::DELETE, path)).await
    }
}

/// What the API answered.
#[derive(Debug)]
pub struct Answer {
    /// The request, for messages.
    pub asked: String,
    /// The status.
    pub status: u16,
    /// The content type.
    pub content_type: String,
    /// `Retry-After`, empty where there is none.
    pub retry_after: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body as JSON; null where it is none.
    pub body: Value,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// Fails unless the status is this one.
    pub fn expect(&self, status: u16) -> Result<&Answer> {
        ensure!(
            self.status == status,
            "{} answered {}, not {status}: {}",
            self.asked,
            self.status,
            self.text
        );
        Ok(self)
    }

    /// Fails unless it is a problem of this status and code.
    pub fn expect_problem(&self, status: u16, code: &str) -> Result<&Answer> {
        self.expect(status)?;
        let said = (self.content_type.as_str(), self.body["code"].as_str(), self.body["status"].as_u64());
        let expected = ("application/problem+json", Some(code), Some(u64::from(status)));
        ensure!(said == expected, "{} answered {said:?}, not {expected:?}: {}", self.asked, self.text);
        Ok(self)
    }

    /// Fails unless it is 422 and names exactly these fields, as `field code` in alphabetic order.
    pub fn expect_fields(&self, expected: &[&str]) -> Result<&Answer> {
        self.expect(422)?;
        let errors = self.body["errors"].as_array().with_context(|| self.text.clone())?;
        let text = |error: &Value, name: &str| error[name].as_str().unwrap_or("?").to_owned();
        let mut named: Vec<String> =
            errors.iter().map(|error| format!("{} {}", text(error, "field"), text(error, "code"))).collect();
        named.sort();
        ensure!(named == expected, "{} named {named:?}, not {expected:?}: {}", self.asked, self.text);
        Ok(self)
    }

    /// Returns the position that the answer names.
    pub fn position(&self) -> Result<Position> {
        serde_json::from_value(self.body["position"].clone()).with_context(|| self.text.clone())
    }
}
