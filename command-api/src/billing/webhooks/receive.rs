//! Receives webhooks: verifies the signature, merges the event into its payment, and appends the effects.
//!
//! Each event is merged with the earlier ones about the same payment, and each effect is appended once, in a valid
//! order. So every order of arrival has the same result.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, Label};
use ledger_core::value::money::Usd;
use ledger_core::value::time::Time;
use payments::{CURRENCY, customer};
use platform::clock;
use platform::pg::PgConnection;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;
use tracing::{info, warn};
use web::http::{Accepts, Payload, Problem, json_value};
use web::openapi::{Route, Sent, post};

use super::event::{WebhookEvent, What};
use super::payment::{Credited, Order, Payment};
use super::records::{self, Kind, Record};
use super::{outcomes, signature, store};
use crate::admission::ledger_time;
use crate::app::App;
use crate::billing::checkout::{self, Ordered};
use crate::billing::orders;
use crate::write::effects::{self, Put};

/// Largest webhook in bytes; an event carries its whole object.
const WEBHOOK_BYTES_MAX: usize = 256 * 1024;
const SIGNATURE: &str = "stripe-signature";

pub fn routes() -> Vec<Route<App>> {
    vec![
        post("/v1/webhooks/stripe", stripe)
            .named("receiveStripeEvent", "Takes a webhook of the payment provider.")
            .says(
                "Needs no key: `Stripe-Signature` is made with `LEDGER_STRIPE_WEBHOOK_SECRET`, without which no webhook is \
                 taken. Webhooks may come in any order and any number of times. Payments, failures, refunds and disputes \
                 count; everything else is taken and ignored. A payment of other money than was ordered credits nothing \
                 and waits for a person.",
            )
            .with(|operation| {
                let said = "`t=<seconds>,v1=<HMAC-SHA256 of the seconds, a full stop and the body, in hex>`; 5 minutes old at most.";
                operation.header::<String>("Stripe-Signature", true, said);
            }),
    ]
}

/// `POST /v1/webhooks/stripe`
///
/// Accepts webhooks signed by the payment provider or by a user of the sandbox. Events that do not concern credits are
/// accepted and ignored.
async fn stripe(
    State(app): State<App>,
    headers: HeaderMap,
    sent: Sent<StripeEvent>,
) -> Result<Json<Received>, Problem> {
    let accepted = Accepts { media_type: "application/json", bytes_max: WEBHOOK_BYTES_MAX };
    let payload = Payload::read(sent.into_request(), &[accepted]).await?;
    let header = headers.get(SIGNATURE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !signature::is_good(&app.sales.webhook_secret, header, &payload.bytes, clock::now()) {
        return Err(Problem::unauthorized());
    }
    if let Some(webhook) = WebhookEvent::read(&json_value(&payload.bytes)?)
        && webhook.is_of(app.sales.log_id)
    {
        take_in(&app, webhook).await?;
    }
    Ok(Json(Received { received: true }))
}

/// An event of Stripe.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "stands for its schema")]
pub struct StripeEvent(serde_json::Map<String, serde_json::Value>);

/// The answer to a webhook that was taken.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Received {
    received: bool,
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
        let order = ordered(app, &webhook, &known, credited.as_ref()).await?;
        // Stored only if the account exists: otherwise the provider sends the webhook again later.
        let at = match &order.account {
            Some(account) => Some(recorded_at(app, account, deadline).await?),
            None => None,
        };
        let recording = Recording { at, order };
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
        outcomes::settle_payment(app, &webhook.payment_id).await?;
    }
    Ok(())
}

/// How effects are recorded.
#[derive(Debug, Clone)]
struct Recording {
    /// None while the account is unknown: then nothing is recorded.
    at: Option<Time>,
    order: Order,
}

/// Returns what was ordered: as it was stored when the checkout was opened, else as the payment's metadata say, at the
/// account's price.
async fn ordered(
    app: &App,
    webhook: &WebhookEvent,
    known: &Payment,
    credited: Option<&Credited>,
) -> Result<Order, Problem> {
    if let Some(stored) = stored_order(app, webhook).await? {
        let (account, amount) = (Some(stored.account), Some(stored.amount));
        return Ok(Order { account, amount, charged: Some(stored.charged), currency: stored.currency });
    }
    let said = webhook.account.clone().or_else(|| known.account.clone());
    let account = said.or_else(|| Some(credited?.account.clone()));
    let amount = webhook.amount.or_else(|| Some(credited?.amount));
    let charged = match (&account, amount) {
        (Some(account), Some(amount)) => price(app, account, amount).await?,
        _ => None,
    };
    Ok(Order { account, amount, charged, currency: CURRENCY.to_owned() })
}

async fn stored_order(app: &App, webhook: &WebhookEvent) -> Result<Option<Ordered>, sqlx::Error> {
    if !matches!(webhook.what, What::Paid { .. }) {
        return Ok(None);
    }
    if let Some(reference) = &webhook.reference
        && let Some(stored) = checkout::find(&app.pool, reference).await?
    {
        return Ok(Some(stored));
    }
    match (&webhook.account, &webhook.session) {
        (Some(account), Some(session)) => {
            checkout::find_session(&app.pool, account, &session.checkout_id).await
        }
        _ => Ok(None),
    }
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
    recording: Recording,
) -> Result<Noted, Problem> {
    let actor = format!("provider:{}", app.sales.provider.name().as_str());
    let actor = Label::new(&actor).map_err(Problem::internal)?;
    let webhook = Arc::clone(webhook);
    let lock = format!("payment/{}", webhook.payment_id);
    let noting = app.write(&lock, move |connection| {
        Box::pin(async move {
            let mut payment = store::lock(connection, &webhook.payment_id).await?;
            if payment != known {
                return Ok(Noted::Changed(Box::new(payment)));
            }
            let Recording { at, order } = recording;
            if let Some(credited) = credited {
                payment.is_credited(credited, order.charged.or_else(|| dollars(order.amount?)));
            }
            let mismatch = payment.apply(&webhook, &order);
            let records = match at {
                Some(at) => records::due(&mut payment, at, &actor).map_err(Problem::internal)?,
                None => Vec::new(),
            };
            store::save(connection, &payment).await?;
            match mismatch {
                Some(mismatch) => outcomes::park_mismatch(connection, &payment, mismatch).await?,
                None => accept(connection, &webhook, &payment, &records, actor.as_str()).await?,
            }
            let events = records.into_iter().map(|record| record.event).collect();
            Ok::<_, Problem>(Noted::Done(effects::enqueue(connection, events).await?))
        })
    });
    noting.await
}

/// Stores what else follows from a payment of the right money: its payer, and which outcomes are awaited.
async fn accept(
    connection: &mut PgConnection,
    webhook: &WebhookEvent,
    payment: &Payment,
    records: &[Record],
    by: &str,
) -> Result<(), sqlx::Error> {
    let customer = webhook.session.as_ref().and_then(|session| session.customer.as_ref());
    if let (What::Paid { .. }, Some(account), Some(customer)) = (&webhook.what, &payment.account, customer) {
        customer::set_first(connection, account, customer, by).await?;
    }
    if records.iter().any(|record| record.kind == Kind::Paid) {
        outcomes::unpark_mismatch(connection, &payment.payment_id).await?;
    }
    if records.iter().any(|record| record.kind == Kind::Failed) {
        warn!(payment_id = %payment.payment_id, "the provider says that a payment failed");
    }
    outcomes::remember(connection, payment, records).await
}

/// Reads the credits and refunds of a payment with a refund or dispute: an operator may have recorded the payment, or a
/// refund, by hand. If the account is known, the read is at the journal's end, so that earlier operations count. The
/// fold decides about those between this read and the append; see [`outcomes`].
async fn credited(
    app: &App,
    webhook: &WebhookEvent,
    known: &Payment,
    deadline: Instant,
) -> Result<Option<Credited>, Problem> {
    let takes_back = match webhook.what {
        What::Refunded { .. } | What::Refund(_) | What::Opened { .. } | What::Won { .. } => true,
        What::Paid { .. } | What::Failed { .. } => false,
    };
    if !takes_back && !known.goes_back() {
        return Ok(None);
    }
    let read = async |account: Option<&AccountId>| {
        store::credited(&app.pool, app.waiter.schema(), known.journal_id(), account).await
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

/// Returns the cost of an amount in cents by the account's price; none if its unit has no price.
async fn price(app: &App, account: &AccountId, amount: Credits) -> Result<Option<i64>, Problem> {
    let core = orders::core(app, account).await?;
    let usd = core.and_then(|core| Usd::price_of(amount, core.usd_per_unit?));
    Ok(usd.and_then(Usd::minor_units))
}

/// Returns the cost in cents of a purchase whose account has no price: a unit is a dollar.
fn dollars(amount: Credits) -> Option<i64> {
    Usd::try_from(amount).ok().and_then(Usd::minor_units)
}
