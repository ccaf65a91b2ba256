//! Store: what is known of payments, in `control.payment`, and what the ledger has credited of them.

use ledger_core::value::credits::Credits;
use ledger_core::value::id::Id;
use platform::pg::{self, PgConnection, PgPool, Schema, credits_of, numeric_text};
use sqlx::Row;

use super::payment::{Credited, Payment};

const READ: &str = "
    select account_id, attempt_id, amount::text, charged, refunded, disputes::text, told::text
    from control.payment
    where payment_id = $1";

async fn load(connection: &mut PgConnection, payment_id: &Id) -> Result<Payment, sqlx::Error> {
    let mut payment = Payment::new(payment_id.clone());
    let row = sqlx::query(READ).bind(payment_id.as_str()).fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(payment) };
    let name = |column| {
        let text: Option<&str> = row.try_get(column)?;
        text.map(Id::new).transpose().map_err(|error| sqlx::Error::Decode(error.into()))
    };
    payment.account = name("account_id")?;
    payment.attempt = name("attempt_id")?;
    let amount: Option<&str> = row.try_get("amount")?;
    payment.amount = amount.map(credits_of).transpose()?;
    payment.charged = row.try_get("charged")?;
    payment.refunded = row.try_get("refunded")?;
    let unreadable = |error: serde_json::Error| sqlx::Error::Decode(error.into());
    payment.disputes = serde_json::from_str(row.try_get("disputes")?).map_err(unreadable)?;
    payment.reported = serde_json::from_str(row.try_get("told")?).map_err(unreadable)?;
    Ok(payment)
}

/// Reads what is known of a payment.
pub async fn read(pool: &PgPool, payment_id: &Id) -> Result<Payment, sqlx::Error> {
    let payment_id = payment_id.clone();
    pg::write(pool, |connection| Box::pin(async move { load(connection, &payment_id).await })).await
}

/// The same under a lock: one webhook of a payment is taken in after the other.
pub async fn lock(connection: &mut PgConnection, payment_id: &Id) -> Result<Payment, sqlx::Error> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('payment/' || $1, 0))")
        .bind(payment_id.as_str())
        .execute(&mut *connection)
        .await?;
    load(connection, payment_id).await
}

pub async fn save(connection: &mut PgConnection, payment: &Payment) -> Result<(), sqlx::Error> {
    let json = |value: serde_json::Result<String>| value.map_err(|error| sqlx::Error::Encode(error.into()));
    sqlx::query(
        "insert into control.payment (payment_id, account_id, attempt_id, amount, charged, refunded, disputes, told)
         values ($1, $2, $3, $4::text::numeric, $5, $6, $7::text::jsonb, $8::text::jsonb)
         on conflict (payment_id) do update
         set account_id = excluded.account_id,
             attempt_id = excluded.attempt_id,
             amount     = excluded.amount,
             charged    = excluded.charged,
             refunded   = excluded.refunded,
             disputes   = excluded.disputes,
             told       = excluded.told",
    )
    .bind(payment.payment_id.as_str())
    .bind(payment.account.as_ref().map(Id::as_str))
    .bind(payment.attempt.as_ref().map(Id::as_str))
    .bind(payment.amount.map(numeric_text))
    .bind(payment.charged)
    .bind(payment.refunded)
    .bind(json(serde_json::to_string(&payment.disputes))?)
    .bind(json(serde_json::to_string(&payment.reported))?)
    .execute(connection)
    .await?;
    Ok(())
}

/// Account, lot, source, amount and what is refunded.
type Found = (String, String, String, String, String);

/// Returns what the ledger has credited of a payment, and what is taken back of it, whoever said so. None too where several accounts have a payment of this id, and `account` does not say which.
pub async fn credited(
    pool: &PgPool,
    schema: Schema,
    payment_id: &Id,
    account: Option<&Id>,
) -> Result<Option<Credited>, sqlx::Error> {
    let (payment_id, account) = (payment_id.to_string(), account.map(Id::to_string));
    let rows: Vec<Found> = pg::read(pool, schema, |connection| {
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
    let [(account, lot, source, amount, refunded)] = rows.as_slice() else { return Ok(None) };
    let id = |text: &str| Id::new(text).map_err(|error| sqlx::Error::Decode(error.into()));
    let attempt = (source == "top_up").then(|| id(lot)).transpose()?;
    let (amount, refunded): (Credits, Credits) = (credits_of(amount)?, credits_of(refunded)?);
    Ok(Some(Credited { account: id(account)?, attempt, amount, refunded }))
}
