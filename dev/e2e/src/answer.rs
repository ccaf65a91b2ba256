//! Answer: the API's answer to a request, and a test's expectations of it.

use anyhow::{Context, Result, ensure};
use platform::kafka::Position;
use reqwest::header::HeaderMap;
use serde_json::Value;

#[derive(Debug)]
pub struct Answer {
    /// The request, for messages.
    pub asked: String,
    pub status: u16,
    pub content_type: String,
    /// `Retry-After`, empty where there is none.
    pub retry_after: String,
    pub headers: HeaderMap,
    /// The body as JSON; null where it is not JSON.
    pub body: Value,
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
