//! What validation knows about the accounts in a request.
//!
//! It may lag; the fold decides. An account that is absent here does not exist only if the projection has reached the
//! end of the journal as read after the request arrived.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ledger_core::account::Core;
use ledger_core::event::Clock;
use ledger_core::fold::CROSSINGS_MAX;
use ledger_core::value::id::{AccountId, RateCardId};
use ledger_core::value::time::Time;
use platform::pg::columns::parsed;
use platform::pg::{self, PgPool, Schema};

use super::rate_cards::{Card, Cards};

#[derive(Debug, Clone)]
pub struct Account {
    /// The source of its ledger time.
    pub clock: Clock,
    /// Its current ledger time.
    pub ledger_time: Time,
    pub rate_card: Option<RateCardId>,
    /// The last version of that card; none where no version is published.
    pub card: Option<Arc<Card>>,
    /// Whether the requested clock move crosses more boundaries than one move may.
    pub jumps: bool,
    /// Whether it was closed.
    pub closed: bool,
}

#[derive(Debug, Clone, Default)]
pub struct KnownAccounts {
    pub accounts: HashMap<AccountId, Account>,
}

const ACCOUNTS: &str = "
    select account.account_id, account.clock, account.ledger_time, account.rate_card, card.version as card_version,
           account.closed_at is not null as closed
    from account
    left join lateral (
        select version from control.rate_card where card = account.rate_card order by version desc limit 1
    ) as card on true
    where account.account_id = any($1)
";

/// The core counts period boundaries; this statement counts starts and ends of lots.
const LOT_CROSSINGS: &str = "
    select account.core::text, (
        select count(*) filter (where lot.effective_at > account.ledger_time and lot.effective_at <= $2)
             + count(*) filter (where lot.expires_at <= $2)
        from lot
        where lot.account_id = account.account_id and lot.open) as of_lots
    from account
    where account.account_id = any($1)
";

#[derive(sqlx::FromRow)]
struct AccountRow {
    account_id: String,
    clock: String,
    ledger_time: DateTime<Utc>,
    rate_card: Option<String>,
    card_version: Option<i32>,
    closed: bool,
}

/// An account's core, and how many lot boundaries a move of its clock crosses.
#[derive(sqlx::FromRow)]
struct CrossingsRow {
    /// JSON.
    core: String,
    of_lots: i64,
}

impl KnownAccounts {
    /// Reads these accounts; `moving_to` is the target of a move of their test clocks.
    pub async fn read(
        pool: &PgPool,
        schema: Schema,
        cards: &Cards,
        accounts: &BTreeSet<AccountId>,
        moving_to: Option<Time>,
    ) -> Result<KnownAccounts, sqlx::Error> {
        let names: Vec<String> = accounts.iter().map(ToString::to_string).collect();
        let rows: Vec<AccountRow> = pg::read(pool, schema, |connection| {
            Box::pin(async move { sqlx::query_as(ACCOUNTS).bind(names).fetch_all(connection).await })
        })
        .await?;
        let mut wanted = Vec::new();
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let account: AccountId = parsed(&row.account_id)?;
            let card: Option<RateCardId> = row.rate_card.as_deref().map(parsed).transpose()?;
            let version = card.clone().zip(row.card_version);
            wanted.extend(version.clone());
            let clock = if row.clock == "test" { Clock::Test } else { Clock::Live };
            found.push((account, clock, pg::time_of(row.ledger_time), card, version, row.closed));
        }
        let cards = cards.get(pool, wanted).await?;
        let mut known = KnownAccounts::default();
        for (account, clock, ledger_time, rate_card, version, closed) in found {
            let card = version.and_then(|version| cards.get(&version).cloned());
            let of_account = Account { clock, ledger_time, rate_card, card, jumps: false, closed };
            known.accounts.insert(account, of_account);
        }
        if let Some(to) = moving_to {
            known.note_jumps(pool, schema, to).await?;
        }
        Ok(known)
    }

    /// Marks accounts whose test clock a move to `to` would take too far.
    async fn note_jumps(&mut self, pool: &PgPool, schema: Schema, to: Time) -> Result<(), sqlx::Error> {
        let moves = |account: &Account| account.clock == Clock::Test && account.ledger_time < to;
        let moving = self.accounts.iter().filter(|(_, account)| moves(account));
        let names: Vec<String> = moving.map(|(id, _)| id.to_string()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let rows: Vec<CrossingsRow> = pg::read(pool, schema, move |connection| {
            Box::pin(async move {
                sqlx::query_as(LOT_CROSSINGS).bind(names).bind(pg::timestamp(to)).fetch_all(connection).await
            })
        })
        .await?;
        for CrossingsRow { core, of_lots } in rows {
            let core: Core =
                serde_json::from_str(&core).map_err(|error| sqlx::Error::Decode(error.into()))?;
            if let Some(known) = self.accounts.get_mut(&core.account) {
                known.jumps = core.crossings_until(to).saturating_add(of_lots) > CROSSINGS_MAX;
            }
        }
        Ok(())
    }

    pub fn get(&self, account: &AccountId) -> Option<&Account> {
        self.accounts.get(account)
    }
}
