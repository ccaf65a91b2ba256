//! Store: writes a batch's rows with one statement per table, over arrays.

use std::collections::HashMap;

use engine::consume::WorkerError;
use engine::fold::{Account, note_repeated, write_reversals};
use ledger_core::account::Core;
use ledger_core::policy::alert::{LimitPage, UserPage};
use ledger_core::value::id::{AccountId, UserId};
use platform::heartbeat;
use platform::pg::{Rows, column, timestamp};
use serde::Serialize;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::changes::Changes;
use super::watched::Watched;
use crate::delivery::{self, OutboxRow};
use crate::top_ups;

const INSERT_EVENTS: &str = "
    insert into event (account_id, event_id, source, type, outcome, content, occurred_at, recordedat, actor, data,
                       period_index, credits, lots, line_start, line_end, call_id)
    select *
    from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::timestamptz[],
                $8::timestamptz[], $9::text[], $10::json[], $11::bigint[], $12::numeric[], $13::json[],
                $14::numeric[], $15::numeric[], $16::text[])";

const INSERT_FIRINGS: &str = r#"
    insert into firing (account_id, "offset", seq, firing_id, kind, alert_id, subject, threshold, threshold_version,
                        period_index, figure, fired_at, event_id)
    select *
    from unnest($1::text[], $2::bigint[], $3::int[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::numeric[],
                $9::int[], $10::bigint[], $11::numeric[], $12::timestamptz[], $13::text[])
    on conflict (firing_id) do nothing"#;

// Of the same rows, those whose id was there before, and whether that firing is about the same.
const REPEATED_FIRINGS: &str = r#"
    select new.firing_id,
           (old.account_id, old.kind, old.alert_id, old.subject, old.threshold_version, old.period_index)
           is not distinct from
           (new.account_id, new.kind, new.alert_id, new.subject, new.threshold_version, new.period_index) as is_same
    from unnest($1::text[], $2::bigint[], $3::int[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::numeric[],
                $9::int[], $10::bigint[], $11::numeric[], $12::timestamptz[], $13::text[])
         as new (account_id, "offset", seq, firing_id, kind, alert_id, subject, threshold, threshold_version,
                 period_index, figure, fired_at, event_id)
    join firing as old using (firing_id)
    where (old.account_id, old."offset", old.seq) <> (new.account_id, new."offset", new.seq)"#;

const UPSERT_USERS: &str = "
    insert into user_page (account_id, period_index, user_id, used, page)
    select *
    from unnest($1::text[], $2::bigint[], $3::text[], $4::numeric[], $5::jsonb[])
    on conflict (account_id, period_index, user_id) do update
    set used = excluded.used,
        page = excluded.page";

const UPSERT_LIMITS: &str = "
    insert into limit_page (account_id, user_id, series, amount, page)
    select *
    from unnest($1::text[], $2::text[], $3::bigint[], $4::numeric[], $5::jsonb[])
    on conflict (account_id, user_id) do update
    set series = excluded.series,
        amount = excluded.amount,
        page   = excluded.page";

const DELETE_LIMITS: &str = "
    delete from limit_page
    using unnest($1::text[], $2::text[]) as removed (account_id, user_id)
    where limit_page.account_id = removed.account_id
      and limit_page.user_id    = removed.user_id";

/// Most pages that one batch deletes.
const PAGES_DELETED_MAX: i64 = 20_000;

/// Writes all changes of a batch, besides those that every fold writes alike.
pub async fn write(
    tx: &mut PgConnection,
    mut changes: Changes,
    accounts: &[Account<Watched>],
) -> Result<(), WorkerError> {
    changes.events.send(&mut *tx, INSERT_EVENTS).await?;
    write_firings(&mut *tx, &mut changes).await?;
    user_rows(accounts).send(&mut *tx, UPSERT_USERS).await?;
    write_limits(&mut *tx, accounts).await?;
    write_accounts(&mut *tx, accounts).await?;
    heartbeat::beat();
    // Written after the events: a batch may record usage and reverse it.
    write_reversals(&mut *tx, &changes.reversed).await?;
    heartbeat::beat();
    delete_pages(&mut *tx, &changes).await?;
    top_ups::write(tx, &changes.top_ups).await?;
    Ok(())
}

/// Writes the collected firings with their outbox rows, and clears them.
///
/// A firing whose id is there before is no new one, and notifies nobody again: its outbox row may be gone by now.
pub async fn write_firings(tx: &mut PgConnection, changes: &mut Changes) -> Result<(), WorkerError> {
    let mut repeated: HashMap<Uuid, u64> = HashMap::new();
    for rows in std::mem::take(&mut changes.firings) {
        let inserted = rows.insert(&mut *tx, INSERT_FIRINGS).await?;
        if usize::try_from(inserted).is_ok_and(|inserted| inserted < rows.len()) {
            for id in repeated_firings(&mut *tx, &rows).await? {
                *repeated.entry(id).or_default() += 1;
            }
        }
    }
    note_repeated("firing", repeated.values().sum());
    let mut outbox = std::mem::take(&mut changes.outbox);
    if !repeated.is_empty() {
        // Of two with one id in the same batch, the first is the one that was written.
        outbox.reverse();
        outbox.retain(|row| is_new(row, &mut repeated));
        outbox.reverse();
    }
    let queued = delivery::enqueue(tx, &outbox).await?;
    note_repeated("notice", (outbox.len() as u64).saturating_sub(queued));
    Ok(())
}

/// Returns whether an outbox row's firing was written now, and not the last of those that were there before.
fn is_new(row: &OutboxRow, repeated: &mut HashMap<Uuid, u64>) -> bool {
    match repeated.get_mut(&row.firing.firing_id) {
        Some(left) if *left > 0 => {
            *left -= 1;
            false
        }
        _ => true,
    }
}

/// Returns the firings whose ids were there before. Errors: one of them is about something else.
async fn repeated_firings(tx: &mut PgConnection, rows: &Rows) -> Result<Vec<Uuid>, WorkerError> {
    let found = rows.ask(tx, REPEATED_FIRINGS).await?;
    let mut ids = Vec::with_capacity(found.len());
    for row in &found {
        let id: Uuid = row.try_get("firing_id")?;
        if !row.try_get::<bool, _>("is_same")? {
            return Err(WorkerError::Internal(format!("firing {id} exists, and is about something else")));
        }
        ids.push(id);
    }
    Ok(ids)
}

/// Writes the pages of users already evaluated for the edit of a rule.
pub async fn write_passed(
    tx: &mut PgConnection,
    account: &AccountId,
    period_index: Option<i64>,
    passed: &[(UserId, UserPage)],
) -> Result<(), WorkerError> {
    let Some(period_index) = period_index else { return Ok(()) };
    let mut rows = Rows::default();
    for (user, page) in passed {
        push_user(&mut rows, account, period_index, user, page);
    }
    Ok(rows.send(tx, UPSERT_USERS).await?)
}

fn user_rows(accounts: &[Account<Watched>]) -> Rows {
    let mut rows = Rows::default();
    for account in accounts {
        let users = &account.side_state.users;
        let Some(period_index) = users.period_index() else { continue };
        for (user, page) in users.touched() {
            push_user(&mut rows, &account.id, period_index, user, page);
        }
    }
    rows
}

fn push_user(rows: &mut Rows, account: &AccountId, period_index: i64, user: &UserId, page: &UserPage) {
    rows.row().text(account.as_str()).bigint(period_index).text(user.as_str()).amount(page.used).jsonb(page);
}

async fn write_limits(tx: &mut PgConnection, accounts: &[Account<Watched>]) -> Result<(), WorkerError> {
    let (mut kept, mut removed) = (Rows::default(), Rows::default());
    for account in accounts {
        for (user, page) in account.side_state.users.touched_limits() {
            let Some(page) = page else {
                removed.row().text(account.id.as_str()).text(user.as_str());
                continue;
            };
            let (series, limit) = match page {
                LimitPage::Own { series, limit, .. } => (Some(series.cast_signed()), limit.amount()),
                LimitPage::Former { .. } => (None, None),
            };
            let row = kept.row().text(account.id.as_str()).text(user.as_str());
            row.maybe_bigint(series).maybe_amount(limit).jsonb(page);
        }
    }
    kept.send(&mut *tx, UPSERT_LIMITS).await?;
    removed.send(tx, DELETE_LIMITS).await?;
    Ok(())
}

/// An account's row: its core, and the state of its rules.
struct AccountRow<'a> {
    account: &'a Account<Watched>,
    core: &'a Core,
    offset: i64,
}

async fn write_accounts(tx: &mut PgConnection, accounts: &[Account<Watched>]) -> Result<(), WorkerError> {
    let rows: Vec<AccountRow<'_>> = accounts
        .iter()
        .filter_map(|account| {
            Some(AccountRow { account, core: account.core.as_ref()?, offset: account.folded? })
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        r#"insert into account (account_id, partition, "offset", ledger_time, core, watch)
           select account_id, partition, "offset", ledger_time, core::jsonb, watch::jsonb
           from unnest($1::text[], $2::int[], $3::bigint[], $4::timestamptz[], $5::text[], $6::text[])
                as new (account_id, partition, "offset", ledger_time, core, watch)
           on conflict (account_id) do update
           set "offset"    = excluded."offset",
               ledger_time = excluded.ledger_time,
               core        = excluded.core,
               watch       = excluded.watch"#,
    )
    .bind(column(&rows, |row| row.core.account.as_str()))
    .bind(column(&rows, |row| row.account.partition))
    .bind(column(&rows, |row| row.offset))
    .bind(column(&rows, |row| timestamp(row.core.ledger_time)))
    .bind(column(&rows, |row| json(row.core)))
    .bind(column(&rows, |row| json(&row.account.side_state.watch)))
    .execute(tx)
    .await?;
    Ok(())
}

/// Deletes pages of ended periods; what exceeds one batch is deleted at the account's next boundary.
async fn delete_pages(tx: &mut PgConnection, changes: &Changes) -> Result<(), WorkerError> {
    if changes.entered.is_empty() {
        return Ok(());
    }
    let (accounts, open): (Vec<&str>, Vec<i64>) =
        changes.entered.iter().map(|(account, index)| (account.as_str(), *index)).unzip();
    sqlx::query(
        "delete from user_page
         where ctid = any(array(select user_page.ctid
                                from unnest($1::text[], $2::bigint[]) as entered (account_id, open)
                                join user_page on user_page.account_id   = entered.account_id
                                              and user_page.period_index < entered.open
                                limit $3))",
    )
    .bind(accounts)
    .bind(open)
    .bind(PAGES_DELETED_MAX)
    .execute(tx)
    .await?;
    Ok(())
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("the ledger's own types are plain JSON with string keys")
}
