//! Webhooks of the payment provider: signed, in any order, any number of times.
//!
//! What one says is noted beside what others have said of the same payment, and the journal is told what follows from all of
//! them, in an order that makes sense, each thing once. So every order of arrival ends alike.

mod heard;
mod payment;
mod signature;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use ledger_core::derive;
use ledger_core::event::{Data, Dispute, FailTopUp, Purchase, Refund, TopUp};
use ledger_core::id::{EventId, Id, Label, Text};
use ledger_core::time::Time;
use runtime::clock;
use runtime::http::{Accepts, Payload, Problem, json_value};
use runtime::payment as provider;
use runtime::pg;
use serde_json::json;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::effects::{self, Effect};
use crate::{App, WAIT_MAX, checkout, intake};
use heard::Heard;
use payment::{Payment, Tell};

/// Largest webhook, in bytes: an event carries its whole object.
const WEBHOOK_BYTES_MAX: usize = 256 * 1024;
/// Header of the signature.
const SIGNATURE: &str = "stripe-signature";

/// `POST /v1/webhooks/stripe`
///
/// Takes what the payment provider signs, the sandbox's too. What is not about credits is taken and means nothing.
pub async fn stripe(
    State(app): State<App>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let accepted = Accepts { media_type: "application/json", bytes_max: WEBHOOK_BYTES_MAX };
    let payload = Payload::read(request, &[accepted]).await?;
    let header = headers.get(SIGNATURE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !signature::is_good(&app.sales.webhook_secret, header, &payload.bytes, clock::now()) {
        return Err(Problem::unauthorized());
    }
    if let Some(heard) = Heard::read(&json_value(&payload.bytes)?) {
        take_in(&app, heard).await?;
    }
    Ok(axum::Json(json!({"received": true})).into_response())
}

async fn take_in(app: &App, heard: Heard) -> Result<(), Problem> {
    let deadline = Instant::now() + WAIT_MAX;
    let priced = match &heard.account {
        // Stored only for an account that is there: else the provider tells again later.
        Some(account) => {
            app.account(account, None, deadline).await?;
            price(app, account, &heard).await?
        }
        None => None,
    };
    let payment_id = heard.payment_id.clone();
    info!(%payment_id, said = ?heard.what, "webhook");
    let known = payment::read(&app.pool, &payment_id).await?;
    let account = heard.account.clone().or(known.account);
    let Some(account) = account else {
        // Of a payment that is not known yet: kept until it is.
        return payment::note(&app.pool, heard, priced).await.map_err(Problem::from);
    };
    let known = app.account(&account, None, deadline).await?;
    let at = intake::recorded_at(&known, None, clock::now()).unwrap_or(known.ledger_time);
    let actor = format!("provider:{}", app.sales.provider.name().as_str());
    let actor = Label::new(&actor).map_err(Problem::internal)?;
    let events = pg::write(&app.pool, move |connection| {
        Box::pin(async move {
            let mut payment = payment::lock(connection, &payment_id).await?;
            payment.hear(&heard, priced);
            let mut events = Vec::new();
            for tell in payment.due() {
                if let Some(effect) = effect(&payment, &tell)? {
                    events.push(effect.event(at, &actor)?);
                }
            }
            payment::save(connection, &payment).await?;
            effects::enqueue(connection, &events).await?;
            Ok::<_, Problem>(events)
        })
    })
    .await?;
    let positions = effects::append(app, &events).await?;
    if let Some(last) = positions.last() {
        app.waiter.wait_for(*last, deadline).await;
    }
    Ok(())
}

/// Returns what the payment cost in cents by the account's price, where the webhook does not say what was charged.
async fn price(app: &App, account: &Id, heard: &Heard) -> Result<Option<i64>, Problem> {
    let Some(amount) = heard.amount else { return Ok(None) };
    let core = checkout::core(app, account).await?;
    let usd = core.and_then(|core| provider::price(&core, amount)).unwrap_or(amount);
    Ok(provider::cents(usd))
}

/// Makes of what follows for a payment what the journal is told; none where it comes to nothing.
fn effect(payment: &Payment, tell: &Tell) -> Result<Option<Effect>, Problem> {
    let (Some(account), payment_id) = (payment.account.clone(), payment.payment_id.clone()) else {
        return Ok(None);
    };
    let (source, event_id, data) = match tell {
        Tell::Paid { amount } => match payment.attempt.clone() {
            Some(attempt_id) => (
                derive::TOP_UPS,
                derive::topped_up_id(&account, &attempt_id),
                Data::CreditsToppedUp(TopUp { attempt_id, payment_id, amount: *amount }),
            ),
            None => {
                let event_id = EventId::from(&payment_id);
                (derive::GRANTS, event_id, Data::CreditsPurchased(Purchase { payment_id, amount: *amount }))
            }
        },
        Tell::Failed { reason } => {
            let Some(attempt_id) = payment.attempt.clone() else { return Ok(None) };
            let reason = Text::new(reason).map_err(Problem::internal)?;
            let event_id = derive::top_up_failed_id(&account, &attempt_id);
            (derive::TOP_UPS, event_id, Data::TopUpFailed(FailTopUp { attempt_id, reason }))
        }
        Tell::Refunded { amount, total } => {
            let event_id = derive::keyed_id("refund", &account, &format!("provider:{payment_id}:{total}"));
            let reason = Text::new("refunded at the payment provider").ok();
            (derive::API, event_id, Data::CreditsRefunded(Refund { payment_id, amount: *amount, reason }))
        }
        Tell::Opened { dispute, amount } => {
            let dispute_id = dispute.clone();
            let event_id = derive::dispute_opened_id(&account, dispute);
            let data = Data::DisputeOpened(Dispute { payment_id, dispute_id, amount: *amount });
            (derive::DISPUTES, event_id, data)
        }
        Tell::Won { dispute, amount } => {
            let dispute_id = dispute.clone();
            let event_id = derive::dispute_won_id(&account, dispute);
            (
                derive::DISPUTES,
                event_id,
                Data::DisputeWon(Dispute { payment_id, dispute_id, amount: *amount }),
            )
        }
    };
    if matches!(tell, Tell::Failed { .. }) {
        warn!(%account, "the provider says that a payment failed");
    }
    Ok(Some(Effect { account, source, event_id, data }))
}

/// When a webhook was signed may differ from now by so much.
const TOLERANCE_SECONDS: i64 = 5 * 60;

/// Says whether a time is near enough.
fn is_recent(signed_at: i64, now: Time) -> bool {
    (now.micros().div_euclid(1_000_000) - signed_at).abs() <= TOLERANCE_SECONDS
}
