//! Store: the rows of `control.top_up`, and what goes into the outbox with them.

use chrono::{DateTime, Utc};
use engine::consume::WorkerError;
use engine::outbox;
use ledger_core::event::Event;
use ledger_core::value::credits::Credits;
use ledger_core::value::id::Id;
use ledger_core::value::time::Time;
use payments::Charge;
use platform::pg::{self, Amount, Model, PgPool, Schema, credits_of, time_of, timestamp};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use tracing::error;

use super::decided::{Decided, Proposal, Refused, Step};
use super::relay::LEAD_SECONDS;

/// Writes what a batch asks of top-ups; what was asked for before stands.
pub async fn write(tx: &mut PgConnection, decided: &Decided) -> Result<(), WorkerError> {
    for step in &decided.steps {
        match step {
            Step::Propose(proposal, event) => {
                if propose(tx, proposal).await? {
                    outbox::put(tx, event, LEAD_SECONDS).await?;
                }
            }
            Step::Start(proposal, at) => start(tx, proposal, *at).await?,
            Step::End(account, attempt) => end(tx, account, attempt).await?,
            Step::Park(refused) => give_up(tx, refused).await?,
            Step::Refuse(event) => refuse(tx, event).await?,
        }
    }
    Ok(())
}

/// Says whether the attempt is new.
async fn propose(tx: &mut PgConnection, proposal: &Proposal) -> Result<bool, sqlx::Error> {
    let made = sqlx::query(
        "insert into control.top_up (account_id, attempt_id, number, amount, usd, payment_method, live, ledger_time, state,
                                     look_up, asks)
         values ($1, $2, $3, $4, $5, $6, $7, $8, 'proposed', false, 0)
         on conflict (account_id, attempt_id) do nothing",
    );
    Ok(bind(made, proposal).execute(tx).await?.rows_affected() > 0)
}

/// A start that this database never proposed is from before it was restored or lost: the provider may know it.
async fn start(tx: &mut PgConnection, proposal: &Proposal, at: Time) -> Result<(), sqlx::Error> {
    let started = sqlx::query(
        "insert into control.top_up (account_id, attempt_id, number, amount, usd, payment_method, live, ledger_time, state,
                                     look_up, asks, started_at, next_ask_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, 'started', true, 0, $9, clock_timestamp())
         on conflict (account_id, attempt_id) do update
         set state       = 'started',
             started_at  = excluded.started_at,
             next_ask_at = excluded.next_ask_at
         where top_up.state = 'proposed'",
    );
    bind(started, proposal).bind(timestamp(at)).execute(tx).await?;
    Ok(())
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

fn bind<'q>(query: Query<'q>, proposal: &'q Proposal) -> Query<'q> {
    let Proposal { account, attempt, usd, live, ledger_time } = proposal;
    query
        .bind(account.as_str())
        .bind(attempt.attempt_id.as_str())
        .bind(i32::try_from(attempt.number).unwrap_or(i32::MAX))
        .bind(Amount(attempt.amount))
        .bind(usd.map(Amount))
        .bind(attempt.payment_method.as_str())
        .bind(live)
        .bind(timestamp(*ledger_time))
}

async fn end(tx: &mut PgConnection, account: &Id, attempt: &Id) -> Result<(), sqlx::Error> {
    sqlx::query("update control.top_up set state = 'ended' where account_id = $1 and attempt_id = $2")
        .bind(account.as_str())
        .bind(attempt.as_str())
        .execute(tx)
        .await?;
    Ok(())
}

/// Leaves an attempt to a person whose credit the fold has refused, whoever reported it, and whether or not the worker knows
/// of the payment yet.
async fn give_up(tx: &mut PgConnection, refused: &Refused) -> Result<(), sqlx::Error> {
    let Refused { account, attempt, payment, reason } = refused;
    let parked = sqlx::query(
        "update control.top_up
         set state        = 'parked',
             leased_until = null,
             payment_id   = $3,
             reply        = 'paid by ' || $3 || ', and the credit refused: ' || $4
         where account_id = $1
           and attempt_id = $2
           and (state in ('started', 'told') or state = 'parked' and payment_id is null)",
    )
    .bind(account.as_str())
    .bind(attempt.as_str())
    .bind(payment.as_str())
    .bind(*reason)
    .execute(tx)
    .await?;
    if parked.rows_affected() > 0 {
        error!(account_id = %account, %attempt, %payment, reason, "a top-up was paid and its credit refused: a person has to decide");
    }
    Ok(())
}

async fn refuse(tx: &mut PgConnection, event: &Event) -> Result<(), sqlx::Error> {
    let reported = sqlx::query(
        "insert into control.top_up_refusal (account_id, event_id)
         values ($1, $2)
         on conflict (account_id, event_id) do nothing",
    )
    .bind(event.account.as_str())
    .bind(event.id.as_str())
    .execute(&mut *tx)
    .await?;
    if reported.rows_affected() > 0 {
        outbox::put(tx, event, LEAD_SECONDS).await?;
    }
    Ok(())
}

/// An attempt to be charged.
#[derive(Debug)]
pub struct Due {
    pub charge: Charge,
    /// The provider may know it: it is looked up before it is charged.
    pub verify_first: bool,
    pub live: bool,
    pub ledger_time: Time,
    /// When its key was first used, or may have been.
    pub since: Time,
    /// How often it was asked for, this time included.
    pub attempts: i32,
}

impl Due {
    /// Says whether nobody can have asked for it before.
    pub fn is_first(&self) -> bool {
        self.attempts == 1 && !self.verify_first
    }
}

/// Leases what is due, so many at most: nobody else asks for it until the lease is over.
pub async fn lease(pool: &PgPool, lease_ms: u64, rows_max: usize) -> Result<Vec<Due>, sqlx::Error> {
    let rows = sqlx::query(
        "update control.top_up
         set leased_until   = clock_timestamp() + $2 * interval '1 millisecond',
             asks           = asks + 1,
             first_asked_at = coalesce(first_asked_at, clock_timestamp())
         where ctid = any(array(
             select ctid
             from control.top_up
             where state = 'started'
               and next_ask_at <= (select clock_timestamp())
               and (leased_until is null or leased_until < clock_timestamp())
             order by next_ask_at
             limit $1
             for update skip locked))
         returning account_id, attempt_id, amount::text, usd::text, payment_method, live, ledger_time, look_up,
                   coalesce(started_at, first_asked_at) as since, asks",
    )
    .bind(i64::try_from(rows_max).unwrap_or(i64::MAX))
    .bind(i64::try_from(lease_ms).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await?;
    rows.iter().map(due_of).collect()
}

fn due_of(row: &PgRow) -> Result<Due, sqlx::Error> {
    let name = |column| Id::new(row.try_get(column)?).map_err(|error| sqlx::Error::Decode(error.into()));
    let time = |column| Ok::<Time, sqlx::Error>(time_of(row.try_get::<DateTime<Utc>, _>(column)?));
    let amount: Credits = credits_of(row.try_get("amount")?)?;
    let usd: Option<&str> = row.try_get("usd")?;
    let charge = Charge {
        key: name("attempt_id")?,
        account: name("account_id")?,
        amount,
        usd: usd.map(credits_of).transpose()?,
        payment_method: name("payment_method")?,
    };
    Ok(Due {
        charge,
        verify_first: row.try_get("look_up")?,
        live: row.try_get("live")?,
        ledger_time: time("ledger_time")?,
        since: time("since")?,
        attempts: row.try_get("asks")?,
    })
}

/// Notes an outcome and puts its event into the outbox, unless the fold has heard of one meanwhile.
pub async fn report(
    pool: &PgPool,
    charge: &Charge,
    payment_id: Option<Id>,
    reply: String,
    event: Event,
) -> Result<(), sqlx::Error> {
    let (account, key) = (charge.account.to_string(), charge.key.to_string());
    pg::write(pool, move |connection| {
        Box::pin(async move {
            let reported = sqlx::query(
                "update control.top_up
                 set state        = 'told',
                     leased_until = null,
                     payment_id   = $3,
                     reply        = $4
                 where account_id = $1
                   and attempt_id = $2
                   and state      = 'started'",
            )
            .bind(account)
            .bind(key)
            .bind(payment_id.map(|payment| payment.to_string()))
            .bind(reply)
            .execute(&mut *connection)
            .await?;
            if reported.rows_affected() > 0 {
                outbox::put(connection, &event, LEAD_SECONDS).await?;
            }
            Ok(())
        })
    })
    .await
}

/// Notes that nobody knows yet, and when to ask again.
pub async fn ask_again(
    pool: &PgPool,
    charge: &Charge,
    detail: &str,
    after_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update control.top_up
         set leased_until = null,
             next_ask_at  = clock_timestamp() + $4 * interval '1 millisecond',
             reply        = $3
         where account_id = $1
           and attempt_id = $2
           and state      = 'started'",
    )
    .bind(charge.account.as_str())
    .bind(charge.key.as_str())
    .bind(detail)
    .bind(after_ms)
    .execute(pool)
    .await?;
    Ok(())
}

/// Leaves an attempt to a person.
pub async fn park(pool: &PgPool, charge: &Charge, detail: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update control.top_up
         set state        = 'parked',
             leased_until = null,
             reply        = $3
         where account_id = $1
           and attempt_id = $2
           and state      = 'started'",
    )
    .bind(charge.account.as_str())
    .bind(charge.key.as_str())
    .bind(detail)
    .execute(pool)
    .await?;
    Ok(())
}

/// Of a partition whose checkpoint is a `checkpoint`: everything is folded that it had when this database was new. A
/// partition with nothing but its genesis record has no past.
const IS_PAST_FOLDED: &str =
    "(told_from.next_offset <= 1 or coalesce(checkpoint.next_offset, 0) >= told_from.next_offset)";

/// Says whether the past of every partition is folded.
async fn is_past_folded(pool: &PgPool, schema: Schema) -> Result<bool, sqlx::Error> {
    let sql = format!(
        "select coalesce(bool_and({IS_PAST_FOLDED}), false)
         from delivery.told_from
         left join {schema}.checkpoint using (partition)"
    );
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await
}

/// Takes in attempts that the journal says are open and this database has lost: the provider may know them. Says whether
/// all were found.
///
/// In the middle of the past an attempt looks open whose outcome is yet to be folded, so none is taken in before its
/// partition is through it; from there on starts and ends are written down as they are folded. One whose end is being
/// folded this moment is waited for. Half a minute later, so that what the journal says after them has been folded.
pub async fn adopt(pool: &PgPool) -> Result<bool, sqlx::Error> {
    let Some(schema) = pg::live_generation(pool, Model::Alerting).await? else { return Ok(false) };
    let found_all = is_past_folded(pool, schema).await?;
    let sql = format!(
        "insert into control.top_up (account_id, attempt_id, number, amount, payment_method, live, ledger_time, state, look_up,
                                     asks, started_at, next_ask_at, usd)
         select account_id, last ->> 'attempt_id', (last ->> 'number')::int, (last ->> 'amount')::numeric,
                last ->> 'payment_method', core ->> 'clock' = 'live', ledger_time, 'started', true, 0, ledger_time,
                clock_timestamp() + interval '30 seconds',
                round((last ->> 'amount')::numeric * (core ->> 'usd_per_unit')::numeric, 9)
         from {schema}.account
         join delivery.told_from using (partition)
         left join {schema}.checkpoint using (partition)
         cross join lateral (select core -> 'top_ups' -> 'last' as last) as attempt
         where (core -> 'top_ups' ->> 'is_open')::boolean
           and {IS_PAST_FOLDED}
         for share of account
         on conflict (account_id, attempt_id) do nothing"
    );
    sqlx::query(AssertSqlSafe(sql)).execute(pool).await?;
    Ok(found_all)
}

/// Returns how many attempts wait for a person.
pub async fn count_parked(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select count(*) from control.top_up where state = 'parked'").fetch_one(pool).await
}

/// An attempt that waits for a person.
#[derive(Debug)]
pub struct Parked {
    pub attempt: Id,
    pub amount: Credits,
    pub live: bool,
    pub ledger_time: Time,
    /// What it was paid by, where the fold has refused its credit.
    pub refused: Option<Id>,
}

/// Returns the attempt of an account that waits for a person; one at most is open.
pub async fn parked(connection: &mut PgConnection, account: &Id) -> Result<Option<Parked>, sqlx::Error> {
    let row = sqlx::query(
        "select attempt_id, amount::text, live, ledger_time, payment_id
         from control.top_up
         where account_id = $1 and state = 'parked'
         for update",
    )
    .bind(account.as_str())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let parsed = |text: &str| Id::new(text).map_err(|error| sqlx::Error::Decode(error.into()));
    Ok(Some(Parked {
        attempt: parsed(row.try_get("attempt_id")?)?,
        refused: row.try_get::<Option<&str>, _>("payment_id")?.map(parsed).transpose()?,
        amount: credits_of(row.try_get("amount")?)?,
        live: row.try_get("live")?,
        ledger_time: time_of(row.try_get::<DateTime<Utc>, _>("ledger_time")?),
    }))
}

/// Says whether a payment is credited to the account already.
pub async fn is_credited(
    connection: &mut PgConnection,
    live: Schema,
    account: &Id,
    payment: &Id,
) -> Result<bool, sqlx::Error> {
    let sql = format!(
        "select exists (select from {live}.lot where account_id = $1 and payment_id = $2) as credited"
    );
    let credited = sqlx::query_scalar(AssertSqlSafe(sql));
    credited.bind(account.as_str()).bind(payment.as_str()).fetch_one(connection).await
}

/// Notes what a person has decided of an attempt, and puts its event into the outbox.
pub async fn report_parked(
    connection: &mut PgConnection,
    account: &Id,
    attempt: &Id,
    event: &Event,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update control.top_up
         set state = 'told',
             reply = 'decided by a person'
         where account_id = $1 and attempt_id = $2",
    )
    .bind(account.as_str())
    .bind(attempt.as_str())
    .execute(&mut *connection)
    .await?;
    outbox::put(connection, event, LEAD_SECONDS).await.map(drop)
}
