//! Outcome: the result of folding a record, found by its position or by the event's identity.

use ledger_core::account::Plan;
use ledger_core::event::PlanBody;
pub use ledger_core::fold::Outcome;
use ledger_core::fold::Reason;
use ledger_core::value::id::AccountId;
use platform::pg::{self, PgPool, Schema};
use platform::position::Position;
use sqlx::types::Json;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    Folded(Outcome),
    /// Parked behind an event that this version does not know.
    Halted,
    Waiting,
}

impl Progress {
    /// Returns whether the record is folded and had no effect, now or before.
    pub fn came_to_nothing(&self) -> bool {
        matches!(self, Progress::Folded(Outcome::Conflict | Outcome::Rejected(_)))
    }
}

/// One row per record, in the order of the parameters.
///
/// Table `event` has the first record of an event; `refused` has every later one, and those before the opening.
const PROGRESS: &str = r#"
    select coalesce(first.outcome, other.outcome) as outcome,
           coalesce(first.reason, other.reason)   as reason,
           parked."offset" is not null            as halted
    from unnest($1::text[], $2::bigint[]) with ordinality as record (account_id, "offset", number)
    left join event   as first on first.account_id  = record.account_id and first."offset"  = record."offset"
    left join refused as other on other.account_id  = record.account_id and other."offset"  = record."offset"
    left join parked           on parked.account_id = record.account_id and parked."offset" = record."offset"
    order by record.number
"#;

#[derive(sqlx::FromRow)]
struct ProgressRow {
    outcome: Option<String>,
    reason: Option<String>,
    halted: bool,
}

pub async fn progress(
    pool: &PgPool,
    schema: Schema,
    records: &[(AccountId, Position)],
) -> Result<Vec<Progress>, sqlx::Error> {
    let accounts: Vec<String> = records.iter().map(|(account, _)| account.to_string()).collect();
    let offsets: Vec<i64> = records.iter().map(|(_, position)| position.offset).collect();
    let rows: Vec<ProgressRow> = pg::read(pool, schema, |connection| {
        Box::pin(
            async move { sqlx::query_as(PROGRESS).bind(accounts).bind(offsets).fetch_all(connection).await },
        )
    })
    .await?;
    rows.into_iter().map(|row| progress_of(row.outcome, row.reason, row.halted)).collect()
}

fn progress_of(
    outcome: Option<String>,
    reason: Option<String>,
    halted: bool,
) -> Result<Progress, sqlx::Error> {
    Ok(match outcome {
        Some(outcome) => Progress::Folded(outcome_of(&outcome, reason.as_deref())?),
        None if halted => Progress::Halted,
        None => Progress::Waiting,
    })
}

fn outcome_of(outcome: &str, reason: Option<&str>) -> Result<Outcome, sqlx::Error> {
    let known = Reason::ALL.iter().find(|known| Some(known.code()) == reason);
    match (outcome, known) {
        ("applied", _) => Ok(Outcome::Applied),
        ("duplicate", _) => Ok(Outcome::Duplicate),
        ("conflict", _) => Ok(Outcome::Conflict),
        ("rejected", Some(reason)) => Ok(Outcome::Rejected(*reason)),
        _ => Err(sqlx::Error::Decode(format!("outcome {outcome}, reason {reason:?}").into())),
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    pub account: &'a AccountId,
    pub id: &'a str,
    pub source: &'a str,
    pub content: &'a [u8],
}

/// The first record with an event's id, as the fold knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct First {
    /// The offset in its account's partition.
    pub offset: i64,
    pub outcome: Outcome,
    /// Whether its content equals that of the given event.
    pub same_content: bool,
}

const FIRST: &str = r#"
    select "offset", outcome, reason, content
    from event
    where account_id = $1 and event_id = $2 and source = $3
"#;

#[derive(sqlx::FromRow)]
struct FirstRow {
    offset: i64,
    outcome: String,
    reason: Option<String>,
    content: Vec<u8>,
}

/// Returns the first record with an event's id; none until it is folded.
pub async fn first(
    pool: &PgPool,
    schema: Schema,
    event: &Identity<'_>,
) -> Result<Option<First>, sqlx::Error> {
    let account = event.account.to_string();
    let (id, source) = (event.id.to_owned(), event.source.to_owned());
    let row: Option<FirstRow> = pg::read(pool, schema, |connection| {
        Box::pin(async move {
            sqlx::query_as(FIRST).bind(account).bind(id).bind(source).fetch_optional(connection).await
        })
    })
    .await?;
    let Some(row) = row else { return Ok(None) };
    let outcome = outcome_of(&row.outcome, row.reason.as_deref())?;
    Ok(Some(First { offset: row.offset, outcome, same_content: row.content == event.content }))
}

const REPLACED: &str = "
    select core->'replaced_plan'->'plan'
    from account
    where account_id = $1
      and core->'replaced_plan'->>'by' = $2";

/// Returns the waiting plan that a change of the plan replaced, as long as it is the last change.
pub async fn replaced_plan(
    pool: &PgPool,
    schema: Schema,
    account: &AccountId,
    change: &str,
) -> Result<Option<PlanBody>, sqlx::Error> {
    let (account, change) = (account.to_string(), change.to_owned());
    let plan: Option<Json<Plan>> = pg::read(pool, schema, |connection| {
        Box::pin(async move {
            sqlx::query_scalar(REPLACED).bind(account).bind(change).fetch_optional(connection).await
        })
    })
    .await?;
    Ok(plan.map(|Json(plan)| plan.body()))
}

const REJECTED: &str = r#"
    select reason
    from refused
    where account_id = $1 and event_id = $2 and source = $3 and outcome = 'rejected'
    order by "offset" desc
    limit 1
"#;

/// Returns why an event was rejected that the fold does not remember, such as one before the opening of its account.
pub async fn rejected(
    pool: &PgPool,
    schema: Schema,
    event: &Identity<'_>,
) -> Result<Option<Reason>, sqlx::Error> {
    let account = event.account.to_string();
    let (id, source) = (event.id.to_owned(), event.source.to_owned());
    let reason: Option<Option<String>> = pg::read(pool, schema, |connection| {
        Box::pin(async move {
            sqlx::query_scalar(REJECTED).bind(account).bind(id).bind(source).fetch_optional(connection).await
        })
    })
    .await?;
    let Some(reason) = reason else { return Ok(None) };
    match outcome_of("rejected", reason.as_deref())? {
        Outcome::Rejected(reason) => Ok(Some(reason)),
        Outcome::Applied | Outcome::Duplicate | Outcome::Conflict => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: Option<&str>, reason: Option<&str>, halted: bool, expected: &Progress) {
        let progress = progress_of(outcome.map(Into::into), reason.map(Into::into), halted);
        assert_eq!(&progress.expect("a known outcome"), expected);
    }

    #[test]
    fn every_outcome_reads_back_with_its_reason() {
        for outcome in [Outcome::Applied, Outcome::Duplicate, Outcome::Conflict] {
            check(Some(outcome.as_str()), None, false, &Progress::Folded(outcome));
        }
        for reason in Reason::ALL {
            check(
                Some("rejected"),
                Some(reason.code()),
                false,
                &Progress::Folded(Outcome::Rejected(*reason)),
            );
        }
        assert!(progress_of(Some("rejected".into()), Some("a whim".into()), false).is_err());
    }

    #[test]
    fn what_is_parked_is_halted_and_what_is_nowhere_is_waiting() {
        check(None, None, true, &Progress::Halted);
        check(None, None, false, &Progress::Waiting);
    }
}
