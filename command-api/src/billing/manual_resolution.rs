//! Manual resolution of a payment that came to nothing, after an operator has looked at the provider.

use chrono::{DateTime, Utc};
use engine::outbox;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, Label, NameError, PaymentId, Text, is_reserved_grant};
use ledger_core::value::time::Time;
use platform::clock;
use platform::pg::columns::parsed;
use platform::pg::{self, Model, PgConnection, PgPool, Schema, credits_of, time_of};
use sqlx::AssertSqlSafe;

use super::webhooks::records::{self, Kind};
use super::webhooks::{outcomes, store};

/// The actor of resolutions by the command, which uses the database and has no API key.
const ACTOR: &str = "ledger-resolve-payment";
/// Parked effects, or top-ups, that a list shows at most.
pub(super) const PARKED_MAX: i64 = 500;
/// The relay appends it at once.
const LEAD_SECONDS: f64 = 0.0;

/// An effect of a payment that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedEffect {
    pub payment_id: PaymentId,
    pub account: AccountId,
    /// `paid`, or what else was to follow.
    pub kind: String,
    /// In the account's unit.
    pub amount: Credits,
    /// What the provider reported, in the currency's smallest unit.
    pub charged: Option<i64>,
    pub currency: Option<String>,
    pub reason: String,
    pub since: Time,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Credit this much; under another id where the payment's own is taken.
    Credit { amount: Credits, journal_id: Option<PaymentId> },
    /// The money was given back at the provider: nothing is credited.
    Refunded,
    /// Nothing is to be done, or it was done by hand.
    Dismissed,
}

impl Decision {
    fn as_str(&self) -> &'static str {
        match self {
            Decision::Credit { .. } => "credit",
            Decision::Refunded => "refunded",
            Decision::Dismissed => "dismissed",
        }
    }
}

/// Who decided, and why.
#[derive(Debug, Clone)]
pub struct Signed {
    pub by: Text,
    pub note: Text,
    /// The API key that decides, if one does.
    pub actor: Option<Label>,
}

/// Why a payment can't be resolved as requested.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("nothing of payment {0} waits for a person")]
    NoneParked(PaymentId),
    #[error(
        "payment {0} is credited; what waits is a refund or a dispute of it: it can be refunded or dismissed"
    )]
    NothingToCredit(PaymentId),
    #[error("the id {0} is taken in this account: credit it under another")]
    Taken(PaymentId),
    #[error("account {0} is not open")]
    NoAccount(AccountId),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
}

/// Returns what waits for a person, of one account or of all, the oldest first and [`PARKED_MAX`] at most.
pub async fn parked_effects(
    pool: &PgPool,
    account: Option<&AccountId>,
) -> Result<Vec<ParkedEffect>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select payment_id, account_id, kind, amount::text as "amount!", charged, currency, reason as "reason!",
                  parked_at as "parked_at!"
           from control.payment_effect
           where state = 'parked' and ($1::text is null or account_id = $1)
           order by created_at
           limit $2"#,
        account.map(AccountId::as_str),
        PARKED_MAX,
    );
    let mut effects = Vec::new();
    for row in rows.fetch_all(pg::bounded(pool)).await? {
        effects.push(ParkedEffect {
            payment_id: parsed(&row.payment_id)?,
            account: parsed(&row.account_id)?,
            kind: row.kind,
            amount: credits_of(&row.amount)?,
            charged: row.charged,
            currency: row.currency,
            reason: row.reason,
            since: time_of(row.parked_at),
        });
    }
    Ok(effects)
}

/// Decides about everything of a payment that waits for a person, and returns its account.
pub async fn resolve(
    pool: &PgPool,
    payment: &PaymentId,
    decision: Decision,
    signed: Signed,
) -> Result<AccountId, ResolveError> {
    let live = pg::live_generation(pool, Model::ReadModel).await?.ok_or(sqlx::Error::RowNotFound)?;
    let payment = payment.clone();
    pg::write(pool, move |connection| {
        Box::pin(async move { resolve_in(connection, live, &payment, decision, &signed).await })
    })
    .await
}

async fn resolve_in(
    connection: &mut PgConnection,
    live: Schema,
    payment_id: &PaymentId,
    decision: Decision,
    signed: &Signed,
) -> Result<AccountId, ResolveError> {
    let mut payment = store::lock(connection, payment_id).await?;
    let (account, waits_for_credit) = sign(connection, payment_id, &decision, signed).await?;
    match decision {
        Decision::Refunded | Decision::Dismissed if waits_for_credit => payment.hold(),
        Decision::Refunded | Decision::Dismissed => {}
        Decision::Credit { .. } if !waits_for_credit => {
            return Err(ResolveError::NothingToCredit(payment_id.clone()));
        }
        Decision::Credit { amount, journal_id } => {
            let journal_id = journal_id.unwrap_or_else(|| payment_id.clone());
            let at = admit(connection, live, &account, &journal_id).await?;
            payment.credit(amount, journal_id);
            let actor = signed.actor.clone().map_or_else(|| Label::new(ACTOR), Ok)?;
            let records = records::due(&mut payment, at, &actor)?;
            outcomes::remember(connection, &payment, &records).await?;
            for record in &records {
                outbox::put(connection, &record.event, LEAD_SECONDS).await?;
            }
        }
    }
    store::save(connection, &payment).await?;
    Ok(account)
}

/// Records the decision on everything that waits. Returns the account, and whether the payment itself is among it.
async fn sign(
    connection: &mut PgConnection,
    payment_id: &PaymentId,
    decision: &Decision,
    signed: &Signed,
) -> Result<(AccountId, bool), ResolveError> {
    let decided = sqlx::query!(
        "update control.payment_effect
         set state      = 'decided',
             decided_at = clock_timestamp(),
             decided_by = $2,
             decision   = $3,
             note       = $4
         where payment_id = $1 and state = 'parked'
         returning account_id, kind",
        payment_id.as_str(),
        signed.by.as_str(),
        decision.as_str(),
        signed.note.as_str()
    )
    .fetch_all(connection)
    .await?;
    let first = decided.first().ok_or_else(|| ResolveError::NoneParked(payment_id.clone()))?;
    let waits_for_credit = decided.iter().any(|row| row.kind == Kind::Paid.as_str());
    Ok((parsed(&first.account_id)?, waits_for_credit))
}

/// Returns the time at which the account records a credit under this id.
async fn admit(
    connection: &mut PgConnection,
    live: Schema,
    account: &AccountId,
    journal_id: &PaymentId,
) -> Result<Time, ResolveError> {
    let sql = format!(
        "select clock, ledger_time,
                exists (select from {live}.lot where lot.account_id = account.account_id and grant_id = $2) as taken
         from {live}.account
         where account_id = $1"
    );
    let row: Option<(String, DateTime<Utc>, bool)> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(account.as_str())
        .bind(journal_id.as_str())
        .fetch_optional(connection)
        .await?;
    let (clock, ledger_time, taken) = row.ok_or_else(|| ResolveError::NoAccount(account.clone()))?;
    if taken || is_reserved_grant(&journal_id.as_grant()) {
        return Err(ResolveError::Taken(journal_id.clone()));
    }
    Ok(if clock == "live" { clock::now() } else { time_of(ledger_time) })
}
