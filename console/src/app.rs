//! App: what all pages share, and its settings.

use std::sync::Arc;

use axum::http::HeaderMap;
use clap::Args;
use url::Url;
use web::http::Peer;
use web::quota::Attempts;

use crate::api::Api;
use crate::cookie;
use crate::seal::{Seal, Session};
use crate::sign_in::SignInLinks;

/// Settings of the console.
#[derive(Debug, Clone, Default, Args)]
pub struct ConsoleConfig {
    /// Sends cookies over TLS only, also where no proxy says that the browser uses it (X-Forwarded-Proto)
    #[arg(long, env = "LEDGER_SECURE_COOKIES")]
    pub secure_cookies: bool,
    /// Address of your product's sign-up page: the link that refers an account leads there, with the account's code as
    /// referred_by; without it the console shows the code alone
    #[arg(long, env = "LEDGER_REFERRAL_URL")]
    pub referral_url: Option<String>,
}

#[derive(Clone)]
pub struct App {
    pub api: Api,
    pub seal: Arc<Seal>,
    pub links: SignInLinks,
    /// Wrong keys of each peer.
    pub attempts: Arc<Attempts<Peer>>,
    pub is_secure: bool,
    pub referral_url: Option<Arc<Url>>,
}

impl App {
    /// Returns the session of these headers, unless it has ended.
    pub fn session_of(&self, headers: &HeaderMap, now_seconds: i64) -> Option<Session> {
        self.seal.open(cookie::cookie(headers, cookie::SESSION)?, now_seconds)
    }
}
