//! `control.top_up` and `control.top_up_refusal`: the state of each attempt, and the outbox records that go with it.

use chrono::{DateTime, Utc};
use engine::consume::WorkerError;
use engine::outbox;
use ledger_core::account::top_up::Attempt;
use ledger_core::event::Event;
use ledger_core::event::derive::TOP_UPS;
use ledger_core::value::id::{AccountId, AttemptId, PaymentId};
use ledger_core::value::time::Time;
use payments::{Charge, CustomerId, customer, idempotency_key};
use platform::pg::columns::parsed;
use platform::pg::{self, Amount, Model, PgPool, Schema, credits_of, time_of, timestamp, usd_of};
use sqlx::{AssertSqlSafe, PgConnection};
use tracing::error;
use uuid::Uuid;

use super::decided::{Decided, Proposal, Refused, Step};
use super::relay::LEAD_SECONDS;

/// Writes the steps of a batch; steps that are written already stay unchanged.
pub async fn write(tx: &mut PgConnection, decided: &Decided) -> Result<(), WorkerError> {
    for step in &decided.steps {
        match step {
            Step::Propose(proposal, event) => {
                // Until the start is folded, every event proposes it again.
                if propose(tx, proposal).await? {
                    outbox::put(tx, event, LEAD_SECONDS).await?;
                }
            }
            Step::Start(proposal, at) => start(tx, proposal, *at).await?,
            Step::End(account, attempt) => end(tx, account, attempt).await?,
            Step::Park(refused) => park_refused(tx, refused).await?,
            Step::Refuse(event) => refuse(tx, event).await?,
        }
    }
    Ok(())
}

/// Returns whether the attempt is new.
async fn propose(tx: &mut PgConnection, proposal: &Proposal) -> Result<bool, sqlx::Error> {
    let Proposal { account, attempt, usd, live, ledger_time } = proposal;
    let made = sqlx::query_file!(
        "src/top_ups/sql/propose.sql",
        account.as_str(),
        attempt.attempt_id.as_str(),
        number_of(attempt),
        Amount(attempt.amount) as Amount,
        usd.map(|usd| Amount(usd.to_credits())) as Option<Amount>,
        attempt.payment_method.as_str(),
        live,
        timestamp(*ledger_time),
    );
    Ok(made.execute(tx).await?.rows_affected() > 0)
}

async fn start(tx: &mut PgConnection, proposal: &Proposal, at: Time) -> Result<(), sqlx::Error> {
    let Proposal { account, attempt, usd, live, ledger_time } = proposal;
    sqlx::query_file!(
        "src/top_ups/sql/start.sql",
        account.as_str(),
        attempt.attempt_id.as_str(),
        number_of(attempt),
        Amount(attempt.amount) as Amount,
        usd.map(|usd| Amount(usd.to_credits())) as Option<Amount>,
        attempt.payment_method.as_str(),
        live,
        timestamp(*ledger_time),
        timestamp(at),
    )
    .execute(tx)
    .await
    .map(drop)
}

fn number_of(attempt: &Attempt) -> i32 {
    i32::try_from(attempt.number).unwrap_or(i32::MAX)
}

async fn end(tx: &mut PgConnection, account: &AccountId, attempt: &AttemptId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update control.top_up set state = 'ended' where account_id = $1 and attempt_id = $2",
        account.as_str(),
        attempt.as_str(),
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Parks an attempt whose credit the fold has refused, whichever source reported it.
async fn park_refused(tx: &mut PgConnection, refused: &Refused) -> Result<(), sqlx::Error> {
    let Refused { account, attempt, payment, reason } = refused;
    let parked = sqlx::query_file!(
        "src/top_ups/sql/park_refused.sql",
        account.as_str(),
        attempt.as_str(),
        payment.as_str(),
        *reason,
    )
    .execute(tx)
    .await?;
    if parked.rows_affected() > 0 {
        error!(account_id = %account, %attempt, %payment, reason, "a top-up was paid and its credit refused: a person has to decide");
    }
    Ok(())
}

async fn refuse(tx: &mut PgConnection, event: &Event) -> Result<(), sqlx::Error> {
    let reported = sqlx::query!(
        "insert into control.top_up_refusal (account_id, event_id)
         values ($1, $2)
         on conflict (account_id, event_id) do nothing",
        event.account.as_str(),
        event.id.as_str(),
    )
    .execute(&mut *tx)
    .await?;
    if reported.rows_affected() > 0 {
        outbox::put(tx, event, LEAD_SECONDS).await?;
    }
    Ok(())
}

#[derive(Debug)]
pub struct Due {
    pub charge: Charge,
    /// The provider may know the attempt: look it up before charging.
    pub verify_first: bool,
    pub live: bool,
    pub ledger_time: Time,
    pub attempts: i32,
}

impl Due {
    /// Returns whether the provider can't have received the attempt before.
    pub fn is_first(&self) -> bool {
        self.attempts == 1 && !self.verify_first
    }
}

/// Leases due attempts: no other worker charges them until the lease expires.
pub async fn lease(
    pool: &PgPool,
    log_id: Uuid,
    lease_ms: u64,
    rows_max: usize,
) -> Result<Vec<Due>, sqlx::Error> {
    let rows = sqlx::query_file_as!(
        LeasedRow,
        "src/top_ups/sql/lease.sql",
        i64::try_from(rows_max).unwrap_or(i64::MAX),
        i64::try_from(lease_ms).unwrap_or(i64::MAX),
        idempotency_key(log_id, ""),
    )
    .fetch_all(pg::bounded(pool))
    .await?;
    let mut due = Vec::with_capacity(rows.len());
    for row in &rows {
        // Read for each charge anew: a method may have changed hands since the settings were saved.
        let customer = customer::find(pg::bounded(pool), &parsed(&row.account_id)?).await?;
        due.push(row.parse(customer)?);
    }
    Ok(due)
}

/// A leased row; amounts are read as text.
struct LeasedRow {
    account_id: String,
    attempt_id: String,
    key: String,
    amount: String,
    usd: Option<String>,
    payment_method: String,
    live: bool,
    ledger_time: DateTime<Utc>,
    verify_first: bool,
    since: DateTime<Utc>,
    attempts: i32,
}

impl LeasedRow {
    fn parse(&self, customer: Option<CustomerId>) -> Result<Due, sqlx::Error> {
        let charge = Charge {
            key: self.key.clone(),
            attempt: parsed(&self.attempt_id)?,
            account: parsed(&self.account_id)?,
            amount: credits_of(&self.amount)?,
            usd: self.usd.as_deref().map(usd_of).transpose()?,
            payment_method: parsed(&self.payment_method)?,
            customer,
            since: time_of(self.since),
        };
        Ok(Due {
            charge,
            verify_first: self.verify_first,
            live: self.live,
            ledger_time: time_of(self.ledger_time),
            attempts: self.attempts,
        })
    }
}

/// Records an outcome and puts its event into the outbox, unless the fold has recorded one since.
pub async fn report(
    pool: &PgPool,
    charge: &Charge,
    payment_id: Option<PaymentId>,
    reply: String,
    event: Event,
) -> Result<(), sqlx::Error> {
    let (account, key) = (charge.account.to_string(), charge.attempt.to_string());
    pg::write(pool, move |connection| {
        Box::pin(async move {
            let reported = sqlx::query_file!(
                "src/top_ups/sql/report_outcome.sql",
                account,
                key,
                payment_id.map(|payment| payment.to_string()),
                reply,
            )
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

/// Records that the outcome is unknown, and when the provider is called again.
pub async fn ask_again(
    pool: &PgPool,
    charge: &Charge,
    detail: &str,
    after_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update control.top_up
         set leased_until = null,
             next_ask_at  = clock_timestamp() + $4::bigint * interval '1 millisecond',
             reply        = $3
         where account_id = $1
           and attempt_id = $2
           and state      = 'started'",
        charge.account.as_str(),
        charge.attempt.as_str(),
        detail,
        after_ms,
    )
    .execute(pg::bounded(pool))
    .await?;
    Ok(())
}

/// Parks an attempt for a person to resolve.
pub async fn park(pool: &PgPool, charge: &Charge, detail: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update control.top_up
         set state        = 'parked',
             leased_until = null,
             reply        = $3
         where account_id = $1
           and attempt_id = $2
           and state      = 'started'",
        charge.account.as_str(),
        charge.attempt.as_str(),
        detail,
    )
    .execute(pg::bounded(pool))
    .await?;
    Ok(())
}

/// Forgets attempts that have no outcome, in a database from a backup: they may have one since, and those that are still
/// open are adopted once the past is folded.
pub async fn forget_open(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from control.top_up where state in ('proposed', 'started')")
        .execute(connection)
        .await
        .map(drop)
}

/// For a partition whose checkpoint is a `checkpoint`: whether all records from before this database was new, or was
/// restored, are folded. A partition with only its genesis record has no past.
const IS_PAST_FOLDED: &str = "(greatest(told_from.next_offset, told_from.restored_to) <= 1
      or coalesce(checkpoint.next_offset, 0) >= greatest(told_from.next_offset, told_from.restored_to))";

/// Returns whether the past of every partition is folded.
async fn is_past_folded(pool: &PgPool, schema: Schema) -> Result<bool, sqlx::Error> {
    let sql = format!(
        "select coalesce(bool_and({IS_PAST_FOLDED}), false)
         from delivery.told_from
         left join {schema}.checkpoint using (partition)"
    );
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pg::bounded(pool)).await
}

/// Adopts attempts that the journal shows as open and this database has lost: the provider may know them. Returns
/// whether all were found.
///
/// In the middle of the past an attempt looks open although its end is still to be folded, so none is adopted before
/// its partition has folded its past; after that, starts and ends are written as they are folded. The statement waits
/// for an attempt whose end is being folded. Adopted attempts are due half a minute later, after the next records are
/// folded. Their 20 hours count from their start in the journal, after which the provider may have had their key: by the
/// broker's clock, or as it was stamped while the read model does not have it. The account's ledger time is later.
pub async fn adopt(pool: &PgPool) -> Result<bool, sqlx::Error> {
    let Some(schema) = pg::live_generation(pool, Model::Alerting).await? else { return Ok(false) };
    let Some(read_model) = pg::live_generation(pool, Model::ReadModel).await? else { return Ok(false) };
    let found_all = is_past_folded(pool, schema).await?;
    let sql = format!(
        "insert into control.top_up (account_id, attempt_id, number, amount, payment_method, live, ledger_time, state, look_up,
                                     asks, started_at, next_ask_at, usd)
         select account.account_id, last ->> 'attempt_id', (last ->> 'number')::int, (last ->> 'amount')::numeric,
                last ->> 'payment_method', core ->> 'clock' = 'live', account.ledger_time, 'started', true, 0,
                coalesce(projected.appended_at, start.recordedat, account.ledger_time),
                clock_timestamp() + interval '30 seconds',
                round((last ->> 'amount')::numeric * (core ->> 'usd_per_unit')::numeric, 9)
         from {schema}.account
         join delivery.told_from using (partition)
         left join {schema}.checkpoint using (partition)
         cross join lateral (select core -> 'top_ups' -> 'last' as last) as attempt
         left join {schema}.event as start
              on start.account_id = account.account_id and start.event_id = last ->> 'attempt_id' and start.source = $1
         left join {read_model}.event as projected
              on projected.account_id = account.account_id and projected.event_id = last ->> 'attempt_id'
             and projected.source = $1
         where (core -> 'top_ups' ->> 'is_open')::boolean
           and {IS_PAST_FOLDED}
         for share of account
         on conflict (account_id, attempt_id) do nothing"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(TOP_UPS).execute(pg::bounded(pool)).await?;
    Ok(found_all)
}

/// Counts the attempts that wait for a person.
pub async fn count_parked(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"select count(*) as "parked!" from control.top_up where state = 'parked'"#)
        .fetch_one(pg::bounded(pool))
        .await
}
