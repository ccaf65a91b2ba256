//! A provider that hangs: a call that does not end delays no other account's top-up.

use anyhow::{Result, ensure};
use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{Account, count, until_count};
use e2e::Whole;

/// Accepts every card at once, except for one that it never answers a charge for.
fn hanging() -> Router {
    let owner = async |Path(method): Path<String>| -> Response {
        Json(json!({"id": method, "customer": "cus_1"})).into_response()
    };
    let pay = async |headers: HeaderMap, body: String| -> Json<Value> {
        if body.contains("pm_hangs") {
            std::future::pending::<()>().await;
        }
        let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
        Json(json!({"id": format!("pi_{key}"), "status": "succeeded"}))
    };
    Router::new().route("/v1/payment_methods/{id}", get(owner)).route("/v1/payment_intents", post(pay))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_holds_up_no_other_top_up() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let provider = tokio::spawn(async move { axum::serve(listener, hanging()).await });
    let stripe = ["--payment-provider", "stripe", "--stripe-api-key", "sk_test_123", "--stripe-url", &url];
    let whole = Whole::start_with(&stripe).await?;
    Account::open_for(&whole, "slow", "cus_1").await?.set("pm_hangs", json!({})).await?;
    until_count(&whole, "control.top_up where asks = 1 and leased_until is not null", 1).await?;
    let quick = Account::open_for(&whole, "quick", "cus_1").await?;
    quick.set("pm_ok", json!({})).await?;
    quick.until("settled", "50").await?;
    // No other worker retries the hanging attempt before its calls have timed out.
    let alone = "control.top_up
                 where account_id = 'slow' and asks = 1
                   and leased_until > first_asked_at + interval '80 seconds'";
    ensure!(count(&whole, alone).await? == 1, "still being asked about, under its first lease");
    provider.abort();
    whole.replay_and_stop().await
}
