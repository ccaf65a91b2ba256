//! Outcomes: follows what webhooks led to until the fold has spoken, however late.
//!
//! A row of `control.payment_effect` is written with the effect, in one transaction. It is deleted once the effect has
//! applied. What the fold refuses is parked for a person, and so is a payment of other money than was ordered.

use std::time::Duration;

use ledger_core::event::key::{ContentHash, content_hash};
use ledger_core::value::credits::Credits;
use ledger_core::value::id::{AccountId, AttemptId, PaymentId};
use metrics::{counter, gauge};
use platform::heartbeat::Heartbeat;
use platform::periodic::{Rounds, every};
use platform::pg::columns::parsed;
use platform::pg::{self, PgConnection, PgPool, credits_of, numeric_text};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::payment::{Mismatch, Payment};
use super::records::{Kind, Record};
use super::store;
use crate::app::App;
use crate::write::outcome::{self, First, Identity, Outcome};

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause between two counts of what waits for a person.
const GAUGE_PAUSE: Duration = Duration::from_secs(5);
/// Effects looked at in one round.
const EFFECTS_MAX: i64 = 200;
/// Stands for the event's id where nothing was appended.
const NO_EVENT: &str = "";

/// An effect whose outcome is unknown.
#[derive(Debug, Clone)]
struct Sent {
    payment_id: PaymentId,
    event_id: String,
    account: AccountId,
    kind: String,
    amount: Credits,
    source: String,
    content: Vec<u8>,
}

/// A row of `control.payment_effect` in state `sent`.
struct SentRow {
    payment_id: String,
    event_id: String,
    account_id: String,
    kind: String,
    amount: String,
    source: String,
    content: Vec<u8>,
}

impl SentRow {
    fn parse(self) -> Result<Sent, sqlx::Error> {
        Ok(Sent {
            payment_id: parsed(&self.payment_id)?,
            event_id: self.event_id,
            account: parsed(&self.account_id)?,
            kind: self.kind,
            amount: credits_of(&self.amount)?,
            source: self.source,
            content: self.content,
        })
    }
}

/// Remembers effects until their outcome is known.
pub async fn remember(
    connection: &mut PgConnection,
    payment: &Payment,
    records: &[Record],
) -> Result<(), sqlx::Error> {
    for Record { kind, amount, event } in records.iter().filter(|record| record.kind.is_followed()) {
        let ContentHash(content) = content_hash(event);
        sqlx::query!(
            "insert into control.payment_effect (payment_id, event_id, account_id, kind, amount, charged, currency, source,
                                                 content, state, created_at)
             values ($1, $2, $3, $4, $5::text::numeric, $6, $7, $8, $9, 'sent', clock_timestamp())
             on conflict (payment_id, event_id) do nothing",
            payment.payment_id.as_str(),
            event.id.as_str(),
            event.account.as_str(),
            kind.as_str(),
            numeric_text(*amount),
            payment.charged,
            payment.currency,
            event.source.as_str(),
            &content[..]
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Parks a payment of other money than was ordered: once, until it is credited after all.
pub async fn park_mismatch(
    connection: &mut PgConnection,
    payment: &Payment,
    mismatch: Mismatch,
) -> Result<(), sqlx::Error> {
    let (Some(account), Some(amount)) = (&payment.account, payment.amount) else { return Ok(()) };
    let parked = sqlx::query!(
        "insert into control.payment_effect (payment_id, event_id, account_id, kind, amount, charged, currency, state, reason,
                                             created_at, parked_at)
         values ($1, $2, $3, $4, $5::text::numeric, $6, $7, 'parked', $8, clock_timestamp(), clock_timestamp())
         on conflict (payment_id, event_id) do nothing",
        payment.payment_id.as_str(),
        NO_EVENT,
        account.as_str(),
        Kind::Paid.as_str(),
        numeric_text(amount),
        payment.charged,
        payment.currency,
        mismatch.code()
    )
    .execute(connection)
    .await?;
    if parked.rows_affected() > 0 {
        alarm(&payment.payment_id, account, Kind::Paid.as_str(), mismatch.code());
    }
    Ok(())
}

/// Forgets that a payment did not fit its order: the provider has reported the right money since.
pub async fn unpark_mismatch(connection: &mut PgConnection, payment: &PaymentId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from control.payment_effect where payment_id = $1 and event_id = $2 and state = 'parked'",
        payment.as_str(),
        NO_EVENT
    )
    .execute(connection)
    .await
    .map(drop)
}

fn alarm(payment: &PaymentId, account: &AccountId, kind: &str, reason: &str) {
    counter!("ledger_payments_parked_total", "reason" => reason.to_owned()).increment(1);
    error!(
        payment_id = %payment, account_id = %account, kind, reason,
        "what a payment led to was refused: a person has to decide, see ledger resolve-payment --list"
    );
}

/// Follows every effect until `shutdown`.
pub async fn follow(app: App, heartbeat: Heartbeat, shutdown: CancellationToken) {
    let follower = Follower { app, gauge_at: Instant::now(), after: String::new() };
    every(PAUSE, &shutdown, &heartbeat, follower).await;
}

struct Follower {
    app: App,
    gauge_at: Instant,
    /// The last payment looked at: effects that stay unknown for long keep no others waiting.
    after: String,
}

impl Rounds for Follower {
    async fn round(&mut self) -> anyhow::Result<Duration> {
        if Instant::now() >= self.gauge_at {
            self.gauge_at = Instant::now() + GAUGE_PAUSE;
            gauge!("ledger_payments_parked").set(count_parked(&self.app.pool).await? as f64);
        }
        let sent = sent(&self.app.pool, &self.after).await?;
        self.after = match sent.last() {
            Some(last) if i64::try_from(sent.len()) == Ok(EFFECTS_MAX) => last.payment_id.to_string(),
            _ => String::new(),
        };
        for one in sent {
            settle(&self.app, &one).await?;
        }
        Ok(if self.after.is_empty() { PAUSE } else { Duration::ZERO })
    }
}

/// Settles the effects of one payment, as far as they are projected.
pub async fn settle_payment(app: &App, payment: &PaymentId) -> Result<(), sqlx::Error> {
    let rows = sqlx::query_as!(
        SentRow,
        r#"select payment_id, event_id, account_id, kind, amount::text as "amount!", source as "source!",
                  content as "content!"
           from control.payment_effect
           where payment_id = $1 and state = 'sent'
           order by created_at"#,
        payment.as_str()
    );
    for row in rows.fetch_all(pg::bounded(&app.pool)).await? {
        settle(app, &row.parse()?).await?;
    }
    Ok(())
}

async fn sent(pool: &PgPool, after: &str) -> Result<Vec<Sent>, sqlx::Error> {
    let rows = sqlx::query_as!(
        SentRow,
        r#"select payment_id, event_id, account_id, kind, amount::text as "amount!", source as "source!",
                  content as "content!"
           from control.payment_effect
           where state = 'sent' and payment_id > $1
           order by payment_id, created_at
           limit $2"#,
        after,
        EFFECTS_MAX
    );
    rows.fetch_all(pg::bounded(pool)).await?.into_iter().map(SentRow::parse).collect()
}

async fn count_parked(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"select count(*) as "parked!" from control.payment_effect where state = 'parked'"#)
        .fetch_one(pg::bounded(pool))
        .await
}

/// Deletes an effect that has applied, and parks one that was refused.
async fn settle(app: &App, sent: &Sent) -> Result<(), sqlx::Error> {
    let Some(verdict) = verdict(app, sent).await? else { return Ok(()) };
    match verdict {
        Verdict::Applied => forget(&app.pool, sent).await,
        Verdict::Refused(reason) => refused(app, sent, reason).await,
    }
}

/// What the fold has said of an effect.
enum Verdict {
    Applied,
    Refused(&'static str),
}

/// Returns what the fold has said; none while it has not.
async fn verdict(app: &App, sent: &Sent) -> Result<Option<Verdict>, sqlx::Error> {
    let schema = app.waiter.schema();
    let (account, content) = (&sent.account, &sent.content);
    let identity = Identity { account, id: &sent.event_id, source: &sent.source, content };
    let outcome = match outcome::first(&app.pool, schema, &identity).await? {
        Some(First { same_content: false, .. }) => Some(Outcome::Conflict),
        Some(First { outcome, .. }) => Some(outcome),
        None => outcome::rejected(&app.pool, schema, &identity).await?.map(Outcome::Rejected),
    };
    Ok(outcome.map(|outcome| match outcome {
        Outcome::Applied | Outcome::Duplicate => Verdict::Applied,
        Outcome::Conflict => Verdict::Refused(outcome.as_str()),
        Outcome::Rejected(reason) => Verdict::Refused(reason.code()),
    }))
}

async fn forget(pool: &PgPool, sent: &Sent) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from control.payment_effect where payment_id = $1 and event_id = $2 and state = 'sent'",
        sent.payment_id.as_str(),
        sent.event_id
    )
    .execute(pg::bounded(pool))
    .await
    .map(drop)
}

/// Parks what the fold refused, unless somebody else has credited the payment or looks after it.
async fn refused(app: &App, sent: &Sent, reason: &'static str) -> Result<(), sqlx::Error> {
    if sent.kind != Kind::Paid.as_str() {
        return park(&app.pool, sent, reason).await;
    }
    let payment = store::read(&app.pool, &sent.payment_id).await?;
    let lot = payment.journal_id();
    let credited = store::credited(&app.pool, app.waiter.schema(), lot, Some(&sent.account)).await?;
    if credited.is_some_and(|credited| credited.amount == sent.amount) {
        return forget(&app.pool, sent).await;
    }
    let top_up = match &payment.attempt {
        Some(attempt) => state_of_top_up(&app.pool, &sent.account, attempt).await?,
        None => None,
    };
    match top_up.as_deref() {
        // The alert worker has parked the attempt.
        Some("parked") => forget(&app.pool, sent).await,
        // It will, if the attempt is still open in its fold.
        Some("proposed" | "started" | "told") => Ok(()),
        _ => park(&app.pool, sent, reason).await,
    }
}

async fn state_of_top_up(
    pool: &PgPool,
    account: &AccountId,
    attempt: &AttemptId,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "select state from control.top_up where account_id = $1 and attempt_id = $2",
        account.as_str(),
        attempt.as_str()
    )
    .fetch_optional(pg::bounded(pool))
    .await
}

async fn park(pool: &PgPool, sent: &Sent, reason: &'static str) -> Result<(), sqlx::Error> {
    let one = sent.clone();
    let parked =
        pg::write(pool, move |connection| Box::pin(async move { park_in(connection, &one, reason).await }));
    if parked.await? {
        alarm(&sent.payment_id, &sent.account, &sent.kind, reason);
    }
    Ok(())
}

/// Returns whether it was not parked before.
async fn park_in(connection: &mut PgConnection, sent: &Sent, reason: &str) -> Result<bool, sqlx::Error> {
    let mut payment = store::lock(connection, &sent.payment_id).await?;
    let parked = sqlx::query!(
        "update control.payment_effect
         set state     = 'parked',
             reason    = $3,
             parked_at = clock_timestamp()
         where payment_id = $1 and event_id = $2 and state = 'sent'",
        sent.payment_id.as_str(),
        sent.event_id,
        reason
    )
    .execute(&mut *connection)
    .await?;
    if parked.rows_affected() == 0 {
        return Ok(false);
    }
    if sent.kind == Kind::Paid.as_str() {
        // Nothing more follows from credits that are not there.
        payment.hold();
        store::save(connection, &payment).await?;
    }
    Ok(true)
}
