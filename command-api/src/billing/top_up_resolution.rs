//! Manual resolution of a top-up whose outcome is unknown, after an operator has checked with the provider.

use engine::outbox;
use ledger_core::event::Event;
use ledger_core::policy::top_up;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, AttemptId, Label, NameError, PaymentId, Text};
use ledger_core::value::time::Time;
use platform::clock;
use platform::pg::columns::parsed;
use platform::pg::{self, Model, PgConnection, PgPool, Schema, credits_of, time_of};
use sqlx::AssertSqlSafe;

use super::manual_resolution::PARKED_MAX;

/// The actor of resolutions by the command, which uses the database and has no API key.
const ACTOR: &str = "ledger-decide-top-up";
/// Seconds that the relay of the write side leaves the record to the alert worker, which relays all of top-ups.
const LEAD_SECONDS: f64 = 2.0;

#[derive(Debug, Clone)]
pub enum Decision {
    /// Paid, by this payment.
    Paid(PaymentId),
    /// Not paid, for this reason.
    Failed(Text),
}

/// Why an attempt can't be resolved as requested.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// The account has no parked attempt.
    #[error("no top-up of {0} waits for a person")]
    NoneParked(AccountId),
    /// The payment is credited already, and can't be credited again.
    #[error(
        "payment {0} is credited already: the top-up failed, or name the payment that the top-up was paid by"
    )]
    Credited(PaymentId),
    /// The fold refused the credit of the payment that the provider named: no other payment can be credited to the
    /// attempt.
    #[error(
        "payment {0} was told of it and its credit refused: record what else was paid as a purchase, and let the top-up fail"
    )]
    Refused(PaymentId),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
}

/// A top-up that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedTopUp {
    pub account: AccountId,
    pub attempt: AttemptId,
    /// In the account's unit.
    pub amount: Credits,
    pub payment_method: String,
    /// The payment, if the fold has refused its credit.
    pub payment: Option<PaymentId>,
    /// The provider's last reply.
    pub reason: Option<String>,
    /// When the journal had its start.
    pub since: Option<Time>,
}

/// An attempt that is locked until its end is decided.
struct Parked {
    attempt: AttemptId,
    amount: Credits,
    live: bool,
    ledger_time: Time,
    /// The payment, if the fold has refused its credit.
    refused: Option<PaymentId>,
}

/// Returns what waits for a person, of one account or of all, the oldest first and [`PARKED_MAX`] at most.
pub async fn parked_top_ups(
    pool: &PgPool,
    account: Option<&AccountId>,
) -> Result<Vec<ParkedTopUp>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select account_id, attempt_id, amount::text as "amount!", payment_method, payment_id, reply, started_at
           from control.top_up
           where state = 'parked' and ($1::text is null or account_id = $1)
           order by started_at, account_id
           limit $2"#,
        account.map(AccountId::as_str),
        PARKED_MAX,
    );
    let mut parked = Vec::new();
    for row in rows.fetch_all(pg::bounded(pool)).await? {
        parked.push(ParkedTopUp {
            account: parsed(&row.account_id)?,
            attempt: parsed(&row.attempt_id)?,
            amount: credits_of(&row.amount)?,
            payment_method: row.payment_method,
            payment: row.payment_id.as_deref().map(parsed).transpose()?,
            reason: row.reply,
            since: row.started_at.map(time_of),
        });
    }
    Ok(parked)
}

/// Ends the parked attempt of an account, and returns its id. Only `attempt` where one is named; `by` is the API key
/// that decides, if one does.
pub async fn decide(
    pool: &PgPool,
    account: &AccountId,
    attempt: Option<&AttemptId>,
    decision: Decision,
    by: Option<Label>,
) -> Result<AttemptId, DecideError> {
    let (account, attempt) = (account.clone(), attempt.cloned());
    let live = pg::live_generation(pool, Model::ReadModel).await?;
    pg::write(pool, move |connection| {
        Box::pin(async move {
            let parked = lock_parked(connection, &account).await?;
            let parked = parked.filter(|parked| attempt.is_none_or(|attempt| attempt == parked.attempt));
            let parked = parked.ok_or_else(|| DecideError::NoneParked(account.clone()))?;
            if let (Decision::Paid(_), Some(refused)) = (&decision, &parked.refused) {
                return Err(DecideError::Refused(refused.clone()));
            }
            if let (Decision::Paid(payment), Some(live)) = (&decision, live)
                && is_credited(connection, live, &account, payment).await?
            {
                return Err(DecideError::Credited(payment.clone()));
            }
            let actor = by.map_or_else(|| Label::new(ACTOR), Ok)?;
            let event = Event { actor, ..event(&account, &parked, decision) };
            report(connection, &account, &parked.attempt, &event).await?;
            Ok(parked.attempt)
        })
    })
    .await
}

fn event(account: &AccountId, parked: &Parked, decision: Decision) -> Event {
    let at = if parked.live { clock::now() } else { parked.ledger_time };
    match decision {
        Decision::Paid(payment) => {
            top_up::succeeded(account, parked.attempt.clone(), payment, parked.amount, None, at)
        }
        Decision::Failed(reason) => top_up::failed(account, parked.attempt.clone(), reason, at),
    }
}

/// Returns the attempt of an account that waits for a person; at most one is open.
async fn lock_parked(
    connection: &mut PgConnection,
    account: &AccountId,
) -> Result<Option<Parked>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select attempt_id, amount::text as "amount!", live, ledger_time, payment_id
           from control.top_up
           where account_id = $1 and state = 'parked'
           for update"#,
        account.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Parked {
        attempt: parsed(&row.attempt_id)?,
        refused: row.payment_id.as_deref().map(parsed).transpose()?,
        amount: credits_of(&row.amount)?,
        live: row.live,
        ledger_time: time_of(row.ledger_time),
    }))
}

/// Returns whether a payment is credited to the account already.
async fn is_credited(
    connection: &mut PgConnection,
    live: Schema,
    account: &AccountId,
    payment: &PaymentId,
) -> Result<bool, sqlx::Error> {
    let sql = format!(
        "select exists (select from {live}.lot where account_id = $1 and payment_id = $2) as credited"
    );
    let credited = sqlx::query_scalar(AssertSqlSafe(sql));
    credited.bind(account.as_str()).bind(payment.as_str()).fetch_one(connection).await
}

/// Records a manual resolution, and puts its event into the outbox.
async fn report(
    connection: &mut PgConnection,
    account: &AccountId,
    attempt: &AttemptId,
    event: &Event,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update control.top_up
         set state = 'told',
             reply = 'decided by a person'
         where account_id = $1 and attempt_id = $2",
        account.as_str(),
        attempt.as_str(),
    )
    .execute(&mut *connection)
    .await?;
    outbox::put(connection, event, LEAD_SECONDS).await.map(drop)
}
