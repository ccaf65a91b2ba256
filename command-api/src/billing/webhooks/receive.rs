//! Receives webhooks: verifies the signature, merges the event into its payment, and appends the effects.
//!
//! Each event is merged with the earlier ones about the same payment, and each effect is appended once, in a valid
//! order. So every order of arrival has the same result.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use ledger_core::event::{Data, Dispute, FailTopUp, Purchase, Refund, TopUp, derive};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, Label, Text};
use ledger_core::value::money::Usd;
use ledger_core::value::time::Time;
use metrics::counter;
use platform::position::Position;
use platform::{clock, pg};
use serde_json::json;
use tokio::time::Instant;
use tracing::{error, info, warn};
use web::http::{Accepts, Payload, Problem, json_value};

use super::event::{WebhookEvent, What};
use super::payment::{Credited, LedgerEffect, Payment};
use super::{signature, store};
use crate::admission::ledger_time;
use crate::app::App;
use crate::billing::checkout;
use crate::write::effects::{self, Effect, Put};
use crate::write::outcome::{self, Outcome, Progress};

/// Largest webhook in bytes; an event carries its whole object.
const WEBHOOK_BYTES_MAX: usize = 256 * 1024;
const SIGNATURE: &str = "stripe-signature";

/// `POST /v1/webhooks/stripe`
///
/// Accepts webhooks signed by the payment provider or by a user of the sandbox. Events that do not concern credits are
/// accepted and ignored.
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
    if let Some(webhook) = WebhookEvent::read(&json_value(&payload.bytes)?) {
        take_in(&app, webhook).await?;
    }
    Ok(axum::Json(json!({"received": true})).into_response())
}

/// Stores what a webhook reports, and appends the effects.
async fn take_in(app: &App, webhook: WebhookEvent) -> Result<(), Problem> {
    let deadline = app.waiter.deadline();
    let webhook = Arc::new(webhook);
    info!(payment_id = %webhook.payment_id, said = ?webhook.what, "webhook");
    let mut known = store::read(&app.pool, &webhook.payment_id).await?;
    // Another webhook may be stored between the read and the lock: then everything is read again.
    let put = loop {
        let credited = credited(app, &webhook, &known, deadline).await?;
        let said = webhook.account.clone().or_else(|| known.account.clone());
        let account = said.or_else(|| Some(credited.as_ref()?.account.clone()));
        let amount = webhook.amount.or_else(|| Some(credited.as_ref()?.amount));
        // Stored only if the account exists: otherwise the provider sends the webhook again later.
        let recording = match &account {
            Some(account) => Some(Recording {
                at: recorded_at(app, account, deadline).await?,
                priced: price(app, account, amount).await?,
            }),
            None => None,
        };
        match note(app, &webhook, known, credited, recording).await? {
            Noted::Done(put) => break put,
            Noted::Changed(payment) => known = *payment,
        }
        if Instant::now() >= deadline {
            return Err(Problem::unavailable("too many webhooks of one payment at once"));
        }
    };
    let positions = effects::append(app, &put).await?;
    if let Some(last) = positions.last()
        && app.waiter.wait_for(*last, deadline).await
    {
        report_refused(app, &webhook, &put, &positions).await;
    }
    Ok(())
}

/// Logs the effects that the fold refused: they are appended only once, so an operator must handle the account.
async fn report_refused(app: &App, webhook: &WebhookEvent, put: &[Put], positions: &[Position]) {
    let accounts = put.iter().map(|put| put.event.account.clone());
    let records: Vec<(AccountId, Position)> = accounts.zip(positions.iter().copied()).collect();
    let found = outcome::progress(&app.pool, app.waiter.schema(), &records).await;
    for (put, progress) in put.iter().zip(found.unwrap_or_default()) {
        if let Progress::Folded(Outcome::Rejected(reason)) = progress {
            counter!("ledger_webhook_records_refused_total").increment(1);
            error!(
                payment_id = %webhook.payment_id, account_id = %put.event.account, event_id = %put.event.id,
                reason = reason.code(), "what a webhook led to was refused: a person has to decide"
            );
        }
    }
}

/// How effects are recorded.
#[derive(Debug, Clone, Copy)]
struct Recording {
    /// The cost of the payment in cents by the account's price, if the webhook does not state the charge.
    priced: Option<i64>,
    at: Time,
}

/// The result of storing a webhook.
enum Noted {
    /// The webhook is stored, and its effects are in the outbox.
    Done(Vec<Put>),
    /// Nothing is stored: another webhook changed the payment after it was read.
    Changed(Box<Payment>),
}

async fn note(
    app: &App,
    webhook: &Arc<WebhookEvent>,
    known: Payment,
    credited: Option<Credited>,
    recording: Option<Recording>,
) -> Result<Noted, Problem> {
    let actor = format!("provider:{}", app.sales.provider.name().as_str());
    let actor = Label::new(&actor).map_err(Problem::internal)?;
    let webhook = Arc::clone(webhook);
    pg::write(&app.pool, move |connection| {
        Box::pin(async move {
            let mut payment = store::lock(connection, &webhook.payment_id).await?;
            if payment != known {
                return Ok(Noted::Changed(Box::new(payment)));
            }
            if let Some(credited) = credited {
                payment.is_credited(credited, recording.and_then(|recording| recording.priced));
            }
            payment.apply(&webhook, recording.and_then(|recording| recording.priced));
            let mut events = Vec::new();
            if let Some(recording) = recording {
                for due in payment.due() {
                    if let Some(effect) = effect(&payment, &due)? {
                        events.push(effect.event(recording.at, &actor)?);
                    }
                }
            }
            store::save(connection, &payment).await?;
            Ok::<_, Problem>(Noted::Done(effects::enqueue(connection, events).await?))
        })
    })
    .await
}

/// Reads the credits and refunds of a payment with a refund or dispute: an operator may have recorded the payment, or a
/// refund, by hand. If the account is known, the read is at the journal's end, so that earlier operations count. The
/// fold decides about those between this read and the append; see [`report_refused`].
async fn credited(
    app: &App,
    webhook: &WebhookEvent,
    known: &Payment,
    deadline: Instant,
) -> Result<Option<Credited>, Problem> {
    let takes_back = matches!(webhook.what, What::Refunded { .. } | What::Opened { .. } | What::Won { .. });
    if !takes_back && !known.goes_back() {
        return Ok(None);
    }
    let read = async |account: Option<&AccountId>| {
        store::credited(&app.pool, app.waiter.schema(), &webhook.payment_id, account).await
    };
    let said = if known.is_paid() { known.account.as_ref() } else { None };
    let account = match said.or(webhook.account.as_ref()).or(known.account.as_ref()) {
        Some(account) => account.clone(),
        None => match read(None).await? {
            Some(credited) => credited.account,
            None => return Ok(None),
        },
    };
    // Refunds by webhook can be distinguished from others once all of them are projected.
    if known.is_taken_from() && !effects::all_appended(app, &account, deadline).await? {
        return Err(Problem::behind("what was said of this payment before is not in the journal yet"));
    }
    app.require_caught_up(&account, deadline).await?;
    Ok(read(Some(&account)).await?)
}

async fn recorded_at(app: &App, account: &AccountId, deadline: Instant) -> Result<Time, Problem> {
    let known = app.account(account, None, deadline).await?;
    Ok(ledger_time::recorded_at(&known, None, clock::now()).unwrap_or(known.ledger_time))
}

/// Returns the cost of an amount in cents by the account's price; a unit without a price is a dollar.
async fn price(app: &App, account: &AccountId, amount: Option<Credits>) -> Result<Option<i64>, Problem> {
    let Some(amount) = amount else { return Ok(None) };
    let core = checkout::core(app, account).await?;
    let usd = core.and_then(|core| Usd::price_of(amount, core.usd_per_unit?));
    Ok(usd.or_else(|| Usd::try_from(amount).ok()).and_then(Usd::minor_units))
}

/// Makes the event of an effect; none if its amount is zero.
fn effect(payment: &Payment, due: &LedgerEffect) -> Result<Option<Effect>, Problem> {
    let (Some(account), payment_id) = (payment.account.clone(), payment.payment_id.clone()) else {
        return Ok(None);
    };
    let (source, event_id, data) = match due {
        LedgerEffect::Paid { amount } => match payment.attempt.clone() {
            Some(attempt_id) => (
                derive::TOP_UPS,
                derive::topped_up_id(&account, &attempt_id),
                Data::CreditsToppedUp(TopUp { attempt_id, payment_id, amount: *amount, price: None }),
            ),
            None => {
                let event_id = payment_id.as_event();
                (
                    derive::GRANTS,
                    event_id,
                    Data::CreditsPurchased(Purchase { payment_id, amount: *amount, price: None }),
                )
            }
        },
        LedgerEffect::Failed { reason } => {
            let Some(attempt_id) = payment.attempt.clone() else { return Ok(None) };
            let reason = Text::new(reason).map_err(Problem::internal)?;
            let event_id = derive::top_up_failed_id(&account, &attempt_id);
            (derive::TOP_UPS, event_id, Data::TopUpFailed(FailTopUp { attempt_id, reason }))
        }
        LedgerEffect::Refunded { amount, total } => {
            let event_id = derive::keyed_id("refund", &account, &format!("provider:{payment_id}:{total}"));
            let reason = Text::new("refunded at the payment provider").ok();
            (
                derive::API,
                event_id,
                Data::CreditsRefunded(Refund { payment_id, refund_id: None, amount: *amount, reason }),
            )
        }
        LedgerEffect::Opened { dispute, amount } => {
            let dispute_id = dispute.clone();
            let event_id = derive::dispute_opened_id(&account, dispute);
            let data = Data::DisputeOpened(Dispute { payment_id, dispute_id, amount: *amount });
            (derive::DISPUTES, event_id, data)
        }
        LedgerEffect::Won { dispute, amount } => {
            let dispute_id = dispute.clone();
            let event_id = derive::dispute_won_id(&account, dispute);
            (
                derive::DISPUTES,
                event_id,
                Data::DisputeWon(Dispute { payment_id, dispute_id, amount: *amount }),
            )
        }
    };
    if matches!(due, LedgerEffect::Failed { .. }) {
        warn!(%account, "the provider says that a payment failed");
    }
    Ok(Some(Effect { account, source, event_id, data }))
}
