//! Calls a payment provider's HTTP API.

use platform::http_client;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response};
use serde_json::Value;
use url::{Url, form_urlencoded};

use crate::config::SettingError;
use crate::provider::CALL_TIME_MAX;

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Calls one API, each call on a new connection.
#[derive(Clone)]
pub(crate) struct Client {
    base: Url,
    http: reqwest::Client,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Client {
    /// Makes a client that trusts this machine's certificate authorities.
    pub fn new(base: &str, key: &str) -> Result<Client, SettingError> {
        let base = Url::parse(base).map_err(|error| SettingError::BadUrl(error.to_string()))?;
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| SettingError::BadKey)?;
        authorization.set_sensitive(true);
        let http = http_client::builder()
            .user_agent(concat!("credit-ledger/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, authorization)]))
            .timeout(CALL_TIME_MAX)
            // A reused connection that the provider has closed would make an outcome unknown; calls are rare.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| SettingError::Tls(error.to_string()))?;
        Ok(Client { base, http })
    }

    /// Sends a form, with an idempotency key if given. Errors: the outcome is unknown.
    pub async fn post(
        &self,
        path: &str,
        key: Option<&str>,
        form: &[(&str, String)],
    ) -> Result<Answer, String> {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        self.call(Method::POST, path, key, form).await
    }

    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Answer, String> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        self.call(Method::GET, &path, None, String::new()).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        form: String,
    ) -> Result<Answer, String> {
        let url = self.base.join(path).map_err(|error| error.to_string())?;
        let mut request = self
            .http
            .request(method, url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let response = request.send().await.map_err(failure)?;
        let status = response.status().as_u16();
        let body = serde_json::from_slice(&read_to_limit(response).await?)
            .map_err(|error| format!("status {status}: {error}"))?;
        Ok(Answer { status, body })
    }
}

async fn read_to_limit(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failure)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err("the answer is too long".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Returns the first cause of a failed call, which reqwest's own message leaves out.
fn failure(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
