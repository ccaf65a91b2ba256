//! Notifications: sends parked ones again.

use axum::Json;
use axum::extract::State;
use contacts::redelivery::{self, Redelivery, ResendError};
use ledger_core::value::id::AccountId;
use schemars::JsonSchema;
use serde::Serialize;
use web::auth::Action;
use web::http::{Path, Problem};
use web::openapi::{Route, post};

use crate::app::App;
use crate::request_context::RequestContext;

/// A notification that is on its way again.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ResentNotification")]
struct Resent {
    /// Unchanged, so that a receiver detects a repeat.
    notification_id: String,
    channel: String,
    recipient: String,
    /// `pending`: the alert worker sends it at once.
    status: &'static str,
}

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/accounts/{account}/notifications/{notification}/resend", resend)
            .named("resendNotification", "Sends a parked notification again, to the address in the contacts now.")
            .says(
                "By admins. It keeps its id, and its attempts begin anew. Of two requests at once one is accepted; \
                 the other finds it parked no more.",
            )
            .refuses(&["notification_not_found", "notification_not_parked", "notification_has_no_way"]),
    ]
}

/// `POST /v1/accounts/{account}/notifications/{notification}/resend`
async fn resend(
    State(app): State<App>,
    context: RequestContext,
    Path((account, notification)): Path<(AccountId, String)>,
) -> Result<Json<Resent>, Problem> {
    context.require(Action::Settings, &account)?;
    app.account(&account, None, context.deadline).await?;
    let lock = account.to_string();
    let resent = app.write(&lock, move |connection| {
        Box::pin(async move { redelivery::resend(connection, &account, &notification).await })
    });
    let Redelivery { notification_id, channel, recipient, .. } = resent.await.map_err(not_resent)?;
    Ok(Json(Resent { notification_id, channel, recipient, status: "pending" }))
}

fn not_resent(error: ResendError) -> Problem {
    let detail = error.to_string();
    match error {
        ResendError::Unknown(..) => Problem::not_found("notification_not_found", detail),
        ResendError::NotParked(_) => Problem::conflicting("notification_not_parked", detail),
        ResendError::NoWay(_) => Problem::unprocessable("notification_has_no_way", detail),
        ResendError::Postgres(error) => error.into(),
    }
}
