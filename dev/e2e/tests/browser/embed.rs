//! The example page of `docs/embedding.md` in a browser: served by another origin than the ledger's, under a strict
//! policy, with member tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use e2e::{Caller, Whole};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::browser::Browser;
use crate::story::tell;

const EXAMPLE: &str = include_str!("../../../../docs/examples/embed.html");
/// The ledger and the account in the example.
const LEDGER: &str = "http://127.0.0.1:8080";
const ACCOUNT: &str = "studio";
const NOW: &str = "2026-01-11T00:00:00Z";
/// A figure moves in the page so soon after the answer to the usage, at least once: this machine may stall.
const MOVED_MAX: Duration = Duration::from_secs(1);
const FIGURE: &str = "document.querySelector('ledger-credit-bar').shadowRoot.querySelector('[part=figure]')";
const BAR: &str = "document.querySelector('ledger-credit-bar')";
const ALERT: &str = "document.querySelector('ledger-depleted').shadowRoot.querySelector('[role=alert]')";

/// The backend of a product: it serves the example and makes tokens for its user, who is ana.
struct Product {
    page: String,
    policy: String,
    producer: Caller,
    /// Seconds that its tokens hold.
    ttl: AtomicU32,
    /// The next token has ended when the page gets it.
    is_late: AtomicBool,
    made: AtomicU32,
}

impl Product {
    fn new(ledger: &str, producer: Caller) -> Product {
        let page = EXAMPLE.replace(LEDGER, ledger).replace(ACCOUNT, "acme");
        let page = page.replace("<script>", "<script nonce=\"n\">").replace("<style>", "<style nonce=\"n\">");
        let policy = format!(
            "default-src 'none'; script-src 'nonce-n' {ledger}; style-src 'nonce-n'; img-src data:; \
             connect-src 'self' {ledger}; frame-src {ledger}; base-uri 'none'; \
             require-trusted-types-for 'script'"
        );
        let (ttl, is_late, made) = (AtomicU32::new(300), AtomicBool::new(false), AtomicU32::new(0));
        Product { page, policy, producer, ttl, is_late, made }
    }

    async fn token(&self) -> Result<String> {
        let is_late = self.is_late.swap(false, Ordering::Relaxed);
        let ttl = if is_late { 1 } else { self.ttl.load(Ordering::Relaxed) };
        let body = json!({"user_id": "ana", "ttl_seconds": ttl});
        let made = self.producer.post("/v1/accounts/acme/member-tokens", body).await?;
        if is_late {
            sleep(Duration::from_millis(1_200)).await;
        }
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok(made.expect(201)?.body["token"].as_str().context("a token")?.to_owned())
    }
}

async fn page(State(product): State<Arc<Product>>) -> impl IntoResponse {
    let headers = [
        ("content-type", "text/html; charset=utf-8".to_owned()),
        ("content-security-policy", product.policy.clone()),
    ];
    (headers, product.page.clone())
}

async fn token(State(product): State<Arc<Product>>) -> Result<String, (StatusCode, String)> {
    product.token().await.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// A ledger, and a product on another origin that it allows.
struct Both {
    whole: Whole,
    product: Arc<Product>,
    port: u16,
    serving: JoinHandle<()>,
}

impl Both {
    async fn start() -> Result<Both> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let whole = Whole::start_with(&["--allowed-origins", &format!("http://localhost:{port}")]).await?;
        tell(&whole, "acme", "100").await?;
        let limits = json!({"enabled": true, "default_limit": "50"});
        whole.operator().at(NOW).put("/v1/accounts/acme/limits", limits).await?.expect(200)?;
        let producer = whole.keyed("producer", &["acme"], None).await?;
        let product = Arc::new(Product::new(whole.console(), producer));
        let routes = Router::new().route("/", get(page)).route("/credits-token", get(token));
        let routes = routes.with_state(Arc::clone(&product));
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Both { whole, product, port, serving })
    }

    /// Opens a browser on the product's page, under this name of its host.
    async fn open(&self, host: &str) -> Result<Browser> {
        let browser = Browser::start(&format!("http://{host}:{}", self.port)).await?;
        browser.go("/").await?;
        Ok(browser)
    }

    async fn uses(&self, id: &str, credits: &str) -> Result<()> {
        let usage = json!({"id": id, "occurred_at": NOW, "user_id": "ana", "credits": credits});
        let path = "/v1/accounts/acme/usage?wait=true";
        self.whole.operator().at(NOW).post(path, usage).await?.expect(200).map(drop)
    }

    async fn stop(self) -> Result<()> {
        self.serving.abort();
        self.whole.replay_and_stop().await
    }
}

async fn shows(browser: &Browser, figure: &str) -> Result<()> {
    browser.waits_until(&format!("return {FIGURE}.textContent.startsWith({})", json!(figure))).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium"]
async fn a_page_of_another_origin_shows_credits_that_move_until_they_are_gone() -> Result<()> {
    let both = Both::start().await?;
    let browser = both.open("localhost").await?;
    // Of 50, ana has used 30.12.
    shows(&browser, "19.88 of 50 left").await?;
    let spoken = format!("return {BAR}.shadowRoot.querySelector('[role=meter]').ariaValueText");
    ensure!(browser.asks(&spoken).await? == "19.88 of 50 left, 40 %", "{}", browser.asks(&spoken).await?);
    ensure!(browser.asks(&format!("return {FIGURE}.title")).await? == "19.876543211");
    ensure!(browser.asks(&format!("return {ALERT}.textContent")).await? == "");
    let mut soonest = Duration::MAX;
    for (id, left) in [("m1", "18.88"), ("m2", "17.88"), ("m3", "16.88")] {
        both.uses(id, "1").await?;
        let since = Instant::now();
        shows(&browser, left).await?;
        soonest = soonest.min(since.elapsed());
    }
    ensure!(soonest < MOVED_MAX, "{soonest:?}");
    browser.look("embed", "/").await?;

    both.uses("m4", "10").await?;
    browser.waits_until(&format!("return {BAR}.state === 'low'")).await?;
    both.uses("m5", "10").await?;
    browser.waits_until(&format!("return {BAR}.state === 'depleted'")).await?;
    shows(&browser, "0 of 50 left").await?;
    browser
        .waits_until(&format!("return {ALERT}.textContent.includes('You have reached your limit')"))
        .await?;
    let message = browser.asks(&format!("return {ALERT}.querySelector('[part=text]').textContent")).await?;
    ensure!(message.as_str().is_some_and(|said| said.contains("your limit resets on")), "{message}");
    let moves = format!("return getComputedStyle({BAR}.shadowRoot.querySelector('.bar')).animationName");
    ensure!(browser.asks(&moves).await? == "pulse");
    let still = json!({"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]});
    browser.tool("Emulation.setEmulatedMedia", still).await?;
    browser.waits_until(&moves.replace("return ", "return 'none' === ")).await?;
    browser.look("embed-depleted", "/").await?;
    browser.stop().await?;
    both.stop().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium"]
async fn a_token_is_asked_for_before_it_ends_and_again_after() -> Result<()> {
    let both = Both::start().await?;
    both.product.ttl.store(4, Ordering::Relaxed);
    let browser = both.open("localhost").await?;
    shows(&browser, "19.88").await?;
    // Of the elements and of the frame.
    let made = both.product.made.load(Ordering::Relaxed);
    let end = Instant::now() + Duration::from_secs(20);
    while both.product.made.load(Ordering::Relaxed) < made + 4 {
        ensure!(Instant::now() < end, "no token was asked for");
        sleep(Duration::from_millis(100)).await;
    }
    ensure!(browser.asks(&format!("return {BAR}.state")).await? == "ready");
    both.uses("m1", "1").await?;
    shows(&browser, "18.88").await?;
    // One that has ended already when it comes: the refusal is the only sign.
    both.product.ttl.store(300, Ordering::Relaxed);
    browser.said(&[]).await?;
    both.product.is_late.store(true, Ordering::Relaxed);
    browser.go("/").await?;
    shows(&browser, "18.88").await?;
    let said = browser.said(&["401"]).await?;
    ensure!(said.is_empty(), "{said:?}");
    browser.stop().await?;
    both.stop().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium"]
async fn a_hidden_tab_hears_nothing_and_catches_up_when_it_is_back() -> Result<()> {
    let both = Both::start().await?;
    let browser = both.open("localhost").await?;
    shows(&browser, "19.88").await?;
    let turn = |hidden: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }});
             document.dispatchEvent(new Event('visibilitychange')); return true"
        )
    };
    browser.asks(&turn(true)).await?;
    both.uses("m1", "1").await?;
    sleep(Duration::from_millis(1_500)).await;
    shows(&browser, "19.88").await?;
    browser.asks(&turn(false)).await?;
    shows(&browser, "18.88").await?;
    browser.stop().await?;
    both.stop().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium"]
async fn a_frame_shows_the_same_in_pages_of_allowed_origins_only() -> Result<()> {
    let both = Both::start().await?;
    let browser = both.open("localhost").await?;
    browser.enter_frame("iframe").await?;
    shows(&browser, "19.88 of 50 left").await?;
    ensure!(browser.asks("return location.search").await? == "?account=acme");
    both.uses("m1", "1").await?;
    shows(&browser, "18.88").await?;
    browser.leave_frame().await?;
    let said = browser.said(&[]).await?;
    ensure!(said.is_empty(), "{said:?}");
    browser.stop().await?;
    // The same page under another name is of another origin.
    let foreign = both.open("127.0.0.1").await?;
    foreign.waits_until(&format!("return {BAR}.state === 'error'")).await?;
    ensure!(!foreign.asks(&format!("return {FIGURE}.textContent")).await?.to_string().contains("18.88"));
    foreign.waits_until("return document.querySelector('iframe').src.includes('#token=')").await?;
    sleep(Duration::from_millis(500)).await;
    let said = foreign.said(&[]).await?.join("\n");
    ensure!(said.contains("frame-ancestors") && said.contains("CORS"), "{said}");
    foreign.stop().await?;
    both.stop().await
}
