//! Build: puts the pages together over the API's routes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::{Router, middleware};
use platform::http_client;
use url::Url;
use web::quota::Attempts;

use crate::api::Api;
use crate::app::{App, ConsoleConfig};
use crate::login::{self, ATTEMPTS_MAX, ATTEMPTS_WINDOW};
use crate::seal::Seal;
use crate::sign_in::SignInLinks;
use crate::{access, assets, embed, live, pages};

/// How long the address of the writes may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long it may be silent: a write waits for the projection for two seconds, a test call of a webhook for 15.
const SILENT_MAX: Duration = Duration::from_secs(20);

/// Builds the pages over the API's routes. `elsewhere` is the address of the routes that this process does not serve;
/// pages of `origins` may show figures in theirs.
pub fn build(
    routes: Router,
    config: &ConsoleConfig,
    operator_key: Option<&str>,
    elsewhere: Option<&str>,
    links: SignInLinks,
    origins: &[String],
) -> anyhow::Result<Router> {
    let elsewhere = match elsewhere.filter(|url| !url.is_empty()) {
        Some(url) => {
            let url: Url = url.parse().with_context(|| format!("LEDGER_COMMAND_URL is no address: {url}"))?;
            let client = http_client::builder().connect_timeout(CONNECT_MAX).read_timeout(SILENT_MAX);
            Some((url, client.build().context("no client for LEDGER_COMMAND_URL can be built")?))
        }
        None => None,
    };
    let referral_url = match config.referral_url.as_deref().filter(|url| !url.is_empty()) {
        Some(url) => Some(Arc::new(web_address(url)?)),
        None => None,
    };
    let app = App {
        api: Api::new(routes, elsewhere),
        seal: Arc::new(Seal::new(operator_key)),
        links,
        attempts: Arc::new(Attempts::new(ATTEMPTS_MAX, ATTEMPTS_WINDOW)),
        is_secure: config.secure_cookies,
        referral_url,
    };
    let behind = Router::new().merge(pages::routes()).merge(live::routes()).merge(login::signed_in());
    let behind = behind.layer(middleware::from_fn_with_state(app.clone(), access::authenticate));
    let all = behind.merge(login::routes().with_state(app)).merge(assets::router());
    // What is for other products' pages has headers of its own.
    Ok(all.layer(middleware::from_fn(access::protect)).merge(embed::routes(origins)?))
}

/// Reads an address that a browser opens.
fn web_address(text: &str) -> anyhow::Result<Url> {
    let url: Url = text.parse().with_context(|| format!("LEDGER_REFERRAL_URL is no address: {text}"))?;
    ensure!(matches!(url.scheme(), "http" | "https"), "LEDGER_REFERRAL_URL begins with http:// or https://");
    Ok(url)
}
