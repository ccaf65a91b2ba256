//! The console over HTTP, as a browser without scripts uses it.

mod accounts;
mod audit;
mod audit_log;
mod billing;
mod embed;
mod explain;
mod free_credits;
mod grants;
mod history;
mod keys;
mod limits;
mod messages;
mod notifications;
mod overview;
mod people;
mod promo_codes;
mod rate_cards;
mod roles;
mod search;
mod settings;
mod sign_in;
pub mod story;
mod usage;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use e2e::{Caller, Whole};
use platform::http_client;
use reqwest::Client;
use reqwest::header::HeaderMap;

pub use story::tell;

/// A browser without scripts: it keeps cookies, and reads forms before it sends them.
pub struct Browser {
    client: Client,
    url: String,
    cookies: BTreeMap<String, String>,
    /// The last page.
    pub status: u16,
    pub headers: HeaderMap,
    pub html: String,
    /// Where the last answer leads, empty where it leads nowhere.
    pub location: String,
}

impl Browser {
    pub fn new(whole: &Whole) -> Browser {
        Browser {
            client: http_client::plain(),
            url: whole.console().to_owned(),
            cookies: BTreeMap::new(),
            status: 0,
            headers: HeaderMap::new(),
            html: String::new(),
            location: String::new(),
        }
    }

    /// Opens a browser that has signed in with a caller's key.
    pub async fn signed_in(whole: &Whole, caller: &Caller) -> Result<Browser> {
        let mut browser = Browser::new(whole);
        browser.send("/login", &[("key", caller.key())], &[]).await?;
        ensure!(browser.status == 303, "{} {}", browser.status, browser.html);
        Ok(browser)
    }

    /// Reads a page.
    pub async fn get(&mut self, path: &str) -> Result<&mut Browser> {
        let request = self.client.get(format!("{}{path}", self.url));
        self.answer(request).await
    }

    /// Sends fields with headers, without a token of its own.
    pub async fn send(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Result<&mut Browser> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let mut request = self.client.post(format!("{}{path}", self.url)).body(body);
        request = request.header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.answer(request).await
    }

    /// Fills the fields of a form that is on the last page, and sends it with its token.
    pub async fn submit(&mut self, path: &str, fields: &[(&str, &str)]) -> Result<&mut Browser> {
        let token = self.token()?;
        ensure!(self.html.contains(&format!(r#"action="{path}""#)), "no form goes to {path}: {}", self.html);
        let fields: Vec<(&str, &str)> =
            [("csrf", token.as_str())].into_iter().chain(fields.iter().copied()).collect();
        self.send(path, &fields, &[]).await
    }

    /// Follows where the last answer leads.
    pub async fn follow(&mut self) -> Result<&mut Browser> {
        ensure!(self.status == 303, "{} leads nowhere: {}", self.status, self.html);
        let to = self.location.clone();
        self.get(&to).await
    }

    pub fn token(&self) -> Result<String> {
        let token = between(&self.html, r#"name="csrf" value=""#, "\"").context("a form with a token")?;
        Ok(token.to_owned())
    }

    /// Fails unless the last page has this status, and all of these texts.
    pub fn shows(&self, status: u16, texts: &[&str]) -> Result<&Browser> {
        ensure!(self.status == status, "{}, not {status}: {}", self.status, self.html);
        for text in texts {
            ensure!(self.html.contains(text), "{text} is not on the page: {}", self.html);
        }
        Ok(self)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Opens a stream.
    pub async fn open(&self, path: &str) -> Result<reqwest::Response> {
        Ok(self.client.get(format!("{}{path}", self.url)).header("cookie", self.cookies()).send().await?)
    }

    fn cookies(&self) -> String {
        let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    async fn answer(&mut self, request: reqwest::RequestBuilder) -> Result<&mut Browser> {
        let answer = request.header("cookie", self.cookies()).send().await?;
        self.status = answer.status().as_u16();
        self.headers = answer.headers().clone();
        self.location = self.header("location").to_owned();
        for set in answer.headers().get_all("set-cookie") {
            let pair = set.to_str()?.split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').context("a cookie")?;
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        self.html = answer.text().await?;
        Ok(self)
    }
}

/// Returns what is between two texts.
pub fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    text.split_once(from)?.1.split_once(to).map(|(between, _)| between)
}
