//! Webhook tests: calls the webhook of an account with a signed event, as delivery does, and tells what it answered.

use axum::Json;
use axum::extract::State;
use contacts::webhook::{self, Answer, Message};
use ledger_core::value::id::AccountId;
use ledger_core::value::schema::{HttpStatus, Reply};
use ledger_core::value::time::Time;
use platform::clock;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;
use web::auth::Action;
use web::http::{Path, Problem};
use web::openapi::{Route, post};

use crate::app::App;
use crate::request_context::RequestContext;

/// The type of the event.
const TESTED: &str = "ledger.webhook.tested.v1";

/// What came of a test call.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebhookTest")]
struct Tested {
    /// The id of the event, in its body and in `webhook-id`.
    event_id: String,
    url: String,
    /// Whether the receiver accepted it, by a status of 2xx.
    is_accepted: bool,
    /// The receiver's status; null if it did not answer.
    #[schemars(with = "Option<HttpStatus>")]
    status: Option<u16>,
    /// How long it took, in milliseconds.
    duration_ms: u64,
    /// Why it was not accepted: what the receiver said, or why it could not be called.
    #[schemars(with = "Option<Reply>")]
    reason: Option<String>,
}

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/accounts/{account}/contacts/webhook-test", test)
            .named("testWebhook", "Calls the account's webhook with a test event, and tells what it answered.")
            .says(
                "By admins. The event is of type `ledger.webhook.tested.v1`, signed as all calls are, sent once, and \
                 stored nowhere. Answers 200 also if the receiver refuses or can't be reached. 10 a minute for each \
                 account.",
            )
            .refuses(&["webhook_unknown"]),
    ]
}

/// `POST /v1/accounts/{account}/contacts/webhook-test`
async fn test(
    State(app): State<App>,
    context: RequestContext,
    Path(account): Path<AccountId>,
) -> Result<Json<Tested>, Problem> {
    context.require(Action::Settings, &account)?;
    app.account(&account, None, context.deadline).await?;
    let hook = webhook::hook_of(&app.pool, account.as_str()).await?;
    let unknown = || Problem::not_found("webhook_unknown", format!("account {account} has no webhook"));
    let hook = hook.ok_or_else(unknown)?;
    let _turn = app.test_calls.begin(&account)?;
    let event_id = format!("webhook-test-{}", Uuid::new_v4());
    let now = clock::now();
    let body = event(&event_id, &account, now);
    let started = Instant::now();
    let called = app.test_calls.call(&hook, Message { id: &event_id, body: &body }, now).await;
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (status, reason) = match called {
        Ok(Answer { status, .. }) if status.is_success() => (Some(status.as_u16()), None),
        Ok(Answer { status, said, .. }) => (Some(status.as_u16()), Some(said)),
        Err(failure) => (None, Some(failure.to_string())),
    };
    let is_accepted = status.is_some() && reason.is_none();
    Ok(Json(Tested { event_id, url: hook.url, is_accepted, status, duration_ms, reason }))
}

fn event(event_id: &str, account: &AccountId, now: Time) -> String {
    json!({
        "specversion": "1.0",
        "id": event_id,
        "source": "urn:ledger:webhook-tests",
        "type": TESTED,
        "subject": account,
        "time": now,
        "datacontenttype": "application/json",
        "data": {"account_id": account},
    })
    .to_string()
}
