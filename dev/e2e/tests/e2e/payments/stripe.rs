//! Stripe: its own stand-in `stripe-mock` accepts our requests; a fake of our own charges and then drops the
//! connection.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, AttemptId, PaymentMethodId};
use payments::{
    Charge, CustomerId, Found, Order, PaymentConfig, Price, Provider, Reply, Stripe, idempotency_key,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Account, until_count};
use e2e::Whole;

struct Mock(Child);

impl Drop for Mock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `stripe-mock` and returns its address.
async fn stripe_mock() -> Result<(Mock, String)> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let home = std::env::var("HOME").unwrap_or_default();
    let candidates = ["stripe-mock".to_owned(), format!("{home}/go/bin/stripe-mock")];
    let started = candidates.iter().find_map(|program| {
        let mut command = Command::new(program);
        command.args(["-http-port", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().ok()
    });
    let Some(child) = started else {
        bail!("stripe-mock is missing: go install github.com/stripe/stripe-mock@v0.203.0");
    };
    let mock = Mock(child);
    for _ in 0..200 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return Ok((mock, format!("http://127.0.0.1:{port}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("stripe-mock does not listen")
}

const LOG_ID: Uuid = Uuid::from_u128(7);

fn stripe(url: String) -> Result<Stripe> {
    let (stripe_url, stripe_api_key) = (url, "sk_test_123".to_owned());
    Ok(Stripe::new(&PaymentConfig { stripe_url, stripe_api_key, ..PaymentConfig::default() }, LOG_ID)?)
}

/// Passes requests on to `stripe-mock`, whose payment methods are nobody's: here they are a customer's.
async fn with_owners(mock: String) -> Result<String> {
    let client = platform::http_client::builder().build()?;
    let pass_on = async move |request: Request| -> Response {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 65_536).await.unwrap_or_default();
        let sent = client.request(parts.method, format!("{mock}{}", parts.uri)).headers(parts.headers);
        match sent.body(body).send().await {
            Ok(answer) => {
                let status = answer.status();
                (status, answer.bytes().await.unwrap_or_default()).into_response()
            }
            Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
        }
    };
    serve(
        Router::new()
            .route("/v1/payment_methods/{id}", get(method))
            .fallback(pass_on)
            .with_state(Shared::default()),
    )
    .await
}

async fn serve(routes: Router) -> Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(url)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "asks Stripe's own stand-in, which needs Go to be installed; `.ci/run` does it"]
async fn our_requests_are_such_as_stripe_takes() -> Result<()> {
    let (_mock, url) = stripe_mock().await?;
    let stripe = stripe(with_owners(url).await?)?;
    let (account, amount): (_, Credits) = (AccountId::new("acme")?, "50".parse()?);
    let attempt = AttemptId::new("7d4e736b-3057-5b35-8a3b-7b02f768660c")?;
    let charge = Charge {
        key: idempotency_key(LOG_ID, attempt.as_str()),
        attempt,
        account: account.clone(),
        amount,
        usd: Some("0.5".parse()?),
        payment_method: PaymentMethodId::new("pm_card_visa")?,
        customer: Some(CustomerId::new("cus_1")?),
        since: "2026-01-05T00:00:00Z".parse()?,
    };
    // The answer is one fixture, a payment without a method; Stripe refuses unknown fields with a message.
    match stripe.charge(&charge).await {
        Ok(Reply::Declined { reason }) => ensure!(!reason.as_str().contains("validation"), "{reason}"),
        other => bail!("not the fixture: {other:?}"),
    }
    ensure!(stripe.look_up(&charge).await == Found::Nothing, "the fixture is another's payment");
    for customer in [None, Some(CustomerId::new("cus_1")?)] {
        let (key, reference) = (idempotency_key(LOG_ID, "c1"), "c1".to_owned());
        let (account, price) = (account.clone(), Price::of(amount, Some("0.01".parse()?))?);
        let checkout = stripe.checkout(&Order { key, reference, account, amount, price, customer }).await?;
        ensure!(checkout.checkout_id.starts_with("cs_") && checkout.url.is_some(), "{checkout:?}");
    }
    Ok(())
}

/// The requests to a fake Stripe, by idempotency key.
#[derive(Default)]
pub struct Book {
    pub asked: BTreeMap<String, u32>,
    /// Paid charges, each with its form.
    pub charged: BTreeMap<String, BTreeMap<String, String>>,
    /// Forms of the opened checkouts, by key.
    pub opened: BTreeMap<String, BTreeMap<String, String>>,
    /// Owners of payment methods that are not those of `cus_1`.
    pub owners: BTreeMap<String, String>,
}

pub type Shared = Arc<Mutex<Book>>;

/// A connection that breaks in the middle of the answer.
fn broken() -> Response {
    let pieces = [Ok::<_, std::io::Error>("{\"id\""), Err(std::io::Error::other("the line drops"))];
    Body::from_stream(futures::stream::iter(pieces)).into_response()
}

fn declined() -> Response {
    let error = json!({"error": {"code": "card_declined", "decline_code": "insufficient_funds"}});
    (StatusCode::PAYMENT_REQUIRED, Json(error)).into_response()
}

fn intent(key: &str, form: &BTreeMap<String, String>) -> Value {
    let said = |name: &str| form.get(&format!("metadata[{name}]"));
    let names = ["account_id", "attempt_id", "log_id", "amount"];
    let metadata: BTreeMap<&str, &String> =
        names.into_iter().filter_map(|name| Some((name, said(name)?))).collect();
    let paid: i64 = form.get("amount").and_then(|amount| amount.parse().ok()).unwrap_or_default();
    json!({"id": format!("pi_{}", key.replace(':', "_")), "status": "succeeded", "metadata": metadata,
           "amount_received": paid, "currency": form.get("currency")})
}

async fn charge(State(book): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let key = headers["idempotency-key"].to_str().unwrap_or_default().to_owned();
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let method = form.get("payment_method").cloned().unwrap_or_default();
    let mut book = book.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let asked = book.asked.entry(key.clone()).or_default();
    *asked += 1;
    let first = *asked == 1;
    if method.contains("declined") {
        return if first && method.contains("drop") { broken() } else { declined() };
    }
    if first && method == "pm_busy" {
        return (StatusCode::CONFLICT, Json(json!({"error": {"code": "idempotency_key_in_use"}})))
            .into_response();
    }
    book.charged.insert(key.clone(), form.clone());
    match method.as_str() {
        "pm_drop" | "pm_detached" | "pm_moved" if first => broken(),
        // Its customer has changed, and so has the form that is sent under the key.
        "pm_moved" => {
            (StatusCode::BAD_REQUEST, Json(json!({"error": {"type": "idempotency_error"}}))).into_response()
        }
        "pm_500" if first => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({}))).into_response(),
        "pm_processing" if first => Json(json!({"id": "pi", "status": "processing"})).into_response(),
        _ => Json(intent(&key, &form)).into_response(),
    }
}

/// A method that is detached once it has been charged; all others stay attached.
async fn method(State(book): State<Shared>, Path(id): Path<String>) -> Response {
    let book = book.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if id == "pm_detached" && book.charged.values().any(|form| form.get("payment_method") == Some(&id)) {
        return (StatusCode::NOT_FOUND, Json(json!({"error": {"code": "resource_missing"}}))).into_response();
    }
    let owner = book.owners.get(&id).map_or("cus_1", String::as_str);
    Json(json!({"id": id, "customer": owner})).into_response()
}

async fn search(State(book): State<Shared>, Query(asked): Query<BTreeMap<String, String>>) -> Json<Value> {
    let book = book.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let wanted = |form: &BTreeMap<String, String>| {
        let attempt = form.get("metadata[attempt_id]");
        attempt.is_some_and(|attempt| asked.get("query").is_some_and(|query| query.contains(attempt)))
    };
    let found = book.charged.iter().filter(|(_, form)| wanted(form));
    Json(json!({"data": found.map(|(key, form)| intent(key, form)).collect::<Vec<_>>()}))
}

/// Opens a checkout; it refuses one account, and is out of order for another.
async fn session(State(book): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let key = headers["idempotency-key"].to_str().unwrap_or_default().to_owned();
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    match form.get("metadata[account_id]").map(String::as_str) {
        Some("refused") => {
            let error = json!({"error": {"type": "invalid_request_error", "code": "amount_too_small"}});
            (StatusCode::BAD_REQUEST, Json(error)).into_response()
        }
        Some("out-of-order") => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => {
            book.lock().unwrap_or_else(std::sync::PoisonError::into_inner).opened.insert(key, form);
            let url = "https://checkout.example.test/cs_1";
            Json(json!({"id": "cs_1", "url": url, "client_secret": null})).into_response()
        }
    }
}

/// Starts a fake Stripe and returns its address.
pub async fn fake(book: Shared) -> Result<String> {
    let routes = Router::new()
        .route("/v1/payment_methods/{id}", get(method))
        .route("/v1/checkout/sessions", post(session))
        .route("/v1/payment_intents", post(charge))
        .route("/v1/payment_intents/search", get(search))
        .with_state(book);
    serve(routes).await
}

/// Settings of a ledger that pays at a fake Stripe.
pub fn paying_at(url: &str) -> [&str; 6] {
    ["--payment-provider", "stripe", "--stripe-api-key", "sk_test", "--stripe-url", url]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_charges_and_drops_the_line_charges_once_and_is_credited_once() -> Result<()> {
    let book = Shared::default();
    let url = fake(Arc::clone(&book)).await?;
    let whole =
        Whole::start_with(&[&paying_at(&url)[..], &["--top-up-first-backoff-ms", "50"]].concat()).await?;
    // The last two are charged, and refused when repeated: the worker looks them up instead of starting a new attempt.
    let paid = ["pm_ok", "pm_drop", "pm_500", "pm_busy", "pm_processing", "pm_detached", "pm_moved"];
    let refused = ["pm_declined", "pm_drop_declined"];
    let mut accounts = Vec::new();
    for method in paid.into_iter().chain(refused) {
        let account = Account::open_for(&whole, method, "cus_1").await?;
        account.set(method, json!({})).await?;
        accounts.push((method, account));
    }
    until_count(&whole, "control.top_up where state = 'ended'", 9).await?;
    for (method, account) in &accounts {
        let expected = if paid.contains(method) { "50" } else { "0" };
        account.until("settled", expected).await.with_context(|| (*method).to_owned())?;
    }
    let (charged, asked) = {
        let book = book.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (book.charged.clone(), book.asked.clone())
    };
    ensure!(charged.len() == 7 && asked.len() == 9, "{charged:?}");
    for (key, form) in &charged {
        let said = |name: &str| form.get(name).map(String::as_str);
        ensure!(
            said("amount") == Some("50") && said("currency") == Some("usd"),
            "50 credits at a cent: {form:?}"
        );
        ensure!(
            said("customer") == Some("cus_1")
                && key.split_once(':') == said("metadata[log_id]").zip(said("metadata[attempt_id]")),
            "{form:?}"
        );
    }
    ensure!(asked.values().filter(|times| **times > 1).count() == 6, "unknown is asked again: {asked:?}");
    let failed = whole.operator().get("/v1/accounts/pm_declined/firings").await?;
    ensure!(failed.expect(200)?.body["items"][0]["kind"] == "credit_purchase_failed", "{}", failed.text);
    whole.replay_and_stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_says_the_price_and_what_its_webhook_will_need() -> Result<()> {
    let book = Shared::default();
    let url = fake(Arc::clone(&book)).await?;
    let whole = Whole::start_with(&paying_at(&url)).await?;
    let operator = whole.operator();
    for (account, more) in [
        ("acme", json!({"usd_per_unit": "0.015"})),
        ("dollars", json!({"unit": "usd"})),
        ("free", json!({})),
        ("refused", json!({"usd_per_unit": "0.01"})),
        ("out-of-order", json!({"usd_per_unit": "0.01"})),
    ] {
        let mut body = json!({"account_id": account, "plan": {"cycle": "monthly", "allowance": "0"}});
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        operator.post("/v1/accounts", body).await?.expect(200)?;
    }
    let buy = async |account: &str, amount: &str| {
        operator.post(&format!("/v1/accounts/{account}/checkout"), json!({"amount": amount})).await
    };
    let checkout = buy("acme", "102").await?;
    let expected =
        json!({"checkout_id": "cs_1", "url": "https://checkout.example.test/cs_1", "client_secret": null});
    ensure!(checkout.expect(201)?.body == expected, "{}", checkout.text);
    buy("dollars", "100001").await?.expect(201)?;
    buy("free", "100").await?.expect_problem(422, "no_price")?;
    buy("acme", "101").await?.expect_fields(&["amount too_fine"])?;
    buy("acme", "32").await?.expect_fields(&["amount too_small"])?;
    buy("refused", "50").await?.expect_problem(422, "payment_refused")?;
    let unavailable = buy("out-of-order", "50").await?;
    ensure!(!unavailable.expect(503)?.retry_after.is_empty(), "{unavailable:?}");
    buy("dollars", "999999999999999999").await?.expect_fields(&["amount out_of_range"])?;
    {
        let book = book.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let of = |account: &str| {
            let is_of = |form: &&BTreeMap<String, String>| form["metadata[account_id]"] == account;
            book.opened.values().find(is_of).context(format!("no checkout of {account}"))
        };
        let (acme, dollars) = (of("acme")?, of("dollars")?);
        let ensure_said = |form: &BTreeMap<String, String>, account: &str, amount: &str, cents: &str| {
            for (name, value) in [
                ("mode", "payment"),
                ("customer_creation", "always"),
                ("line_items[0][price_data][currency]", "usd"),
                ("line_items[0][price_data][unit_amount]", cents),
                ("metadata[account_id]", account),
                ("metadata[amount]", amount),
                ("payment_intent_data[metadata][account_id]", account),
                ("payment_intent_data[metadata][amount]", amount),
            ] {
                ensure!(form.get(name).map(String::as_str) == Some(value), "{name} is not {value}: {form:?}");
            }
            Ok(())
        };
        ensure_said(acme, "acme", "102", "153")?;
        ensure_said(dollars, "dollars", "100001", "10000100")?;
    }
    whole.replay_and_stop().await
}
