//! Wanted: proposes what accounts want of top-ups and nobody has proposed, as after the alerts' tables were lost.
//!
//! The fold decides after each event of an account, but not about events from before notification starts. An account
//! without a further event would wait for ever. A proposal that is there already stays as it is, and the fold refuses one
//! that is no longer wanted, so a look too many charges nobody.

use engine::consume::WorkerError;
use engine::load;
use ledger_core::account::Core;
use platform::pg::columns::undecodable;
use platform::pg::{self, Model, PgPool, Schema};
use sqlx::PgConnection;
use tracing::info;

use super::decided::Decided;
use super::store;

/// Accounts read at once, each with its lots.
const ACCOUNTS_MAX: i64 = 200;
/// Pages of accounts in one look, so that charges don't wait for all of them.
const PAGES_MAX: usize = 10;

const PAGE: &str = "
    select account_id, core::text
    from account
    where account_id > $1
      and (core #>> '{top_ups,settings,enabled}')::boolean
      and not (core #>> '{top_ups,is_open}')::boolean
    order by account_id
    limit $2";

/// How far the accounts are looked through.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Once for each generation of the alerts.
    schema: Option<Schema>,
    /// The last account looked at; none if all are.
    after: Option<String>,
}

impl Sweep {
    /// Looks at the next accounts. Requires that the past is folded.
    pub async fn go_on(&mut self, pool: &PgPool) -> Result<(), WorkerError> {
        let Some(schema) = pg::live_generation(pool, Model::Alerting).await? else { return Ok(()) };
        if self.schema != Some(schema) {
            *self = Sweep { schema: Some(schema), after: Some(String::new()) };
        }
        for _ in 0..PAGES_MAX {
            let Some(after) = self.after.clone() else { return Ok(()) };
            self.after = propose(pool, schema, after).await?;
        }
        Ok(())
    }
}

/// Proposes what one page of accounts want, and returns its last account if there may be more.
async fn propose(pool: &PgPool, schema: Schema, after: String) -> Result<Option<String>, WorkerError> {
    let page = pg::read(pool, schema, |connection| Box::pin(async move { page(connection, &after).await }));
    let accounts = page.await?;
    let is_full = i64::try_from(accounts.len()) == Ok(ACCOUNTS_MAX);
    let last = accounts.last().map(|core| core.account.to_string());
    let mut decided = Decided::default();
    for core in &accounts {
        decided.want(core);
    }
    if !decided.steps.is_empty() {
        info!(accounts = decided.steps.len(), "top-ups are wanted that nobody has proposed");
        pg::write(pool, move |connection| Box::pin(async move { store::write(connection, &decided).await }))
            .await?;
    }
    Ok(last.filter(|_| is_full))
}

/// Reads the next accounts with auto top-up on and no attempt open.
async fn page(connection: &mut PgConnection, after: &str) -> Result<Vec<Core>, sqlx::Error> {
    let rows: Vec<(String, String)> =
        sqlx::query_as(PAGE).bind(after).bind(ACCOUNTS_MAX).fetch_all(&mut *connection).await?;
    let mut accounts = Vec::with_capacity(rows.len());
    for (_, core) in rows {
        let core: Core = serde_json::from_str(&core).map_err(undecodable)?;
        let lots = load::lots_of(connection, &core.account).await?;
        accounts.push(core.with_lots(lots));
    }
    Ok(accounts)
}
