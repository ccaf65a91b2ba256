//! Store: the state of payments in `control.payment`, and what the ledger has credited for them.

use std::collections::BTreeMap;

use ledger_core::value::id::{AccountId, AttemptId, DisputeId, PaymentId};
use platform::pg::columns::parsed;
use platform::pg::{self, PgConnection, PgPool, Schema, credits_of, numeric_text};
use sqlx::types::Json;

use super::payment::{Credited, Disputed, Payment, Reported};

struct PaymentRow {
    account_id: Option<String>,
    attempt_id: Option<String>,
    amount: Option<String>,
    charged: Option<i64>,
    currency: Option<String>,
    credited_as: Option<String>,
    refunded: i64,
    disputes: Json<BTreeMap<DisputeId, Disputed>>,
    reported: Json<Reported>,
}

async fn load(connection: &mut PgConnection, payment_id: &PaymentId) -> Result<Payment, sqlx::Error> {
    let mut payment = Payment::new(payment_id.clone());
    let row = sqlx::query_as!(
        PaymentRow,
        r#"select account_id, attempt_id, amount::text, charged, currency, credited_as, refunded,
                  disputes as "disputes: _", told as "reported: _"
           from control.payment
           where payment_id = $1"#,
        payment_id.as_str()
    );
    let Some(row) = row.fetch_optional(connection).await? else { return Ok(payment) };
    payment.account = row.account_id.as_deref().map(parsed).transpose()?;
    payment.attempt = row.attempt_id.as_deref().map(parsed).transpose()?;
    payment.amount = row.amount.as_deref().map(credits_of).transpose()?;
    payment.charged = row.charged;
    payment.currency = row.currency;
    payment.credited_as = row.credited_as.as_deref().map(parsed).transpose()?;
    payment.refunded = row.refunded;
    payment.disputes = row.disputes.0;
    payment.reported = row.reported.0;
    Ok(payment)
}

pub async fn read(pool: &PgPool, payment_id: &PaymentId) -> Result<Payment, sqlx::Error> {
    let payment_id = payment_id.clone();
    pg::write(pool, |connection| Box::pin(async move { load(connection, &payment_id).await })).await
}

/// Locks the row first, so that webhooks of one payment are merged one at a time.
pub async fn lock(connection: &mut PgConnection, payment_id: &PaymentId) -> Result<Payment, sqlx::Error> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('payment/' || $1, 0))", payment_id.as_str())
        .execute(&mut *connection)
        .await?;
    load(connection, payment_id).await
}

pub async fn save(connection: &mut PgConnection, payment: &Payment) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into control.payment (payment_id, account_id, attempt_id, amount, charged, currency, credited_as, refunded,
                                      disputes, told)
         values ($1, $2, $3, $4::text::numeric, $5, $6, $7, $8, $9, $10)
         on conflict (payment_id) do update
         set account_id  = excluded.account_id,
             attempt_id  = excluded.attempt_id,
             amount      = excluded.amount,
             charged     = excluded.charged,
             currency    = excluded.currency,
             credited_as = excluded.credited_as,
             refunded    = excluded.refunded,
             disputes    = excluded.disputes,
             told        = excluded.told",
        payment.payment_id.as_str(),
        payment.account.as_ref().map(AccountId::as_str),
        payment.attempt.as_ref().map(AttemptId::as_str),
        payment.amount.map(numeric_text),
        payment.charged,
        payment.currency,
        payment.credited_as.as_ref().map(PaymentId::as_str),
        payment.refunded,
        Json(&payment.disputes) as _,
        Json(&payment.reported) as _,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// A row of `lot` bought by a payment.
#[derive(sqlx::FromRow)]
struct BoughtLot {
    account_id: String,
    grant_id: String,
    source: String,
    amount: String,
    refunded: String,
}

/// Returns what the ledger has credited for a payment, and what any source has taken back.
///
/// Also none if several accounts have a payment of this id and `account` does not select one.
pub async fn credited(
    pool: &PgPool,
    schema: Schema,
    payment_id: &PaymentId,
    account: Option<&AccountId>,
) -> Result<Option<Credited>, sqlx::Error> {
    let (payment_id, account) = (payment_id.to_string(), account.map(AccountId::to_string));
    let rows: Vec<BoughtLot> = pg::read(pool, schema, |connection| {
        Box::pin(async move {
            sqlx::query_as(
                "select account_id, grant_id, source, amount::text, refunded::text
                 from lot
                 where payment_id = $1 and ($2::text is null or account_id = $2)
                 limit 2",
            )
            .bind(payment_id)
            .bind(account)
            .fetch_all(connection)
            .await
        })
    })
    .await?;
    let [lot] = rows.as_slice() else { return Ok(None) };
    Ok(Some(Credited {
        account: parsed(&lot.account_id)?,
        attempt: (lot.source == "top_up").then(|| parsed(&lot.grant_id)).transpose()?,
        amount: credits_of(&lot.amount)?,
        refunded: credits_of(&lot.refunded)?,
    }))
}
