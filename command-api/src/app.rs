//! App: the state that every handler of the write side shares.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use contacts::webhook::WebhookConfig;
use engine::progress::Waiter;
use futures::future::BoxFuture;
use ledger_core::value::id::AccountId;
use ledger_core::value::time::Time;
use payments::{PaymentConfig, Provider, SettingError};
use platform::kafka::Journal;
use platform::pg::{self, PgConnection, PgPool, Turns};
use platform::position::Position;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;
use web::auth::Auth;
use web::http::Problem;
use web::quota::Attempts;

use crate::admission::known_accounts::{Account, KnownAccounts};
use crate::admission::ledger_time::clock_jump;
use crate::admission::rate_cards::Cards;
use crate::admission::recent_ids::RecentIds;
use crate::holds::{Holds, HoldsConfig};
use crate::promotions::config::PromotionsConfig;
use crate::test_calls::TestCalls;

/// Redemptions of one account that may fail in [`REDEMPTIONS_WINDOW`].
const FAILED_REDEMPTIONS_MAX: u32 = 10;
const REDEMPTIONS_WINDOW: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct App(Arc<Parts>);

pub struct Parts {
    pub pool: PgPool,
    /// Those who would wait for one lock of the database wait here, without a connection.
    pub turns: Turns,
    pub journal: Journal,
    /// Knows how far the accounts' partitions are projected.
    pub waiter: Arc<Waiter>,
    pub auth: Auth,
    pub sales: Sales,
    pub(crate) cards: Cards,
    pub(crate) recent_ids: RecentIds,
    pub(crate) holds: Holds,
    /// Of promo codes, by account: nobody finds one by guessing.
    pub(crate) failed_redemptions: Attempts<AccountId>,
    pub(crate) test_calls: TestCalls,
}

pub struct Sales {
    /// What new accounts and their referrers get.
    pub promotions: PromotionsConfig,
    pub provider: Arc<dyn Provider>,
    /// Verifies the provider's webhooks; empty: no webhook is accepted.
    pub webhook_secret: String,
    /// The journal's id: the first part of what the provider knows by a key.
    pub log_id: Uuid,
}

/// What of the world outside the ledger a handler reaches: the payment provider, and the webhooks of accounts.
pub struct Reach {
    sales: Sales,
    test_calls: TestCalls,
}

impl Reach {
    /// Fails if the TLS of this machine can't be used.
    pub fn new(sales: Sales, webhook: WebhookConfig) -> anyhow::Result<Reach> {
        Ok(Reach { sales, test_calls: TestCalls::new(webhook)? })
    }
}

impl Sales {
    /// Fails if a setting is invalid.
    pub fn new(
        promotions: PromotionsConfig,
        payment: &PaymentConfig,
        pool: &PgPool,
        log_id: Uuid,
    ) -> Result<Sales, SettingError> {
        let provider = payments::provider(payment, pool, log_id)?;
        let webhook_secret = payment.stripe_webhook_secret.clone();
        Ok(Sales { promotions, provider, webhook_secret, log_id })
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl FromRef<App> for Auth {
    fn from_ref(app: &App) -> Auth {
        app.auth.clone()
    }
}

impl App {
    /// Builds the state and starts the batchers for holds.
    pub fn new(
        pool: PgPool,
        journal: Journal,
        waiter: Arc<Waiter>,
        auth: Auth,
        holds: HoldsConfig,
        reach: Reach,
    ) -> App {
        let Reach { sales, test_calls } = reach;
        let holds = Holds::start(&pool, &waiter, holds);
        let (turns, cards, recent_ids) = (Turns::default(), Cards::default(), RecentIds::default());
        let failed_redemptions = Attempts::new(FAILED_REDEMPTIONS_MAX, REDEMPTIONS_WINDOW);
        App(Arc::new(Parts {
            pool,
            turns,
            journal,
            waiter,
            auth,
            sales,
            cards,
            recent_ids,
            holds,
            failed_redemptions,
            test_calls,
        }))
    }

    /// Runs a transaction that locks rows of an account, or of what else `lock` names, one at a time in this process.
    pub(crate) async fn write<T, E, F>(&self, lock: &str, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<sqlx::Error> + Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        let turn = self.turns.take(lock).await?;
        pg::write(&self.pool, move |connection| {
            let working = work(connection);
            Box::pin(async move {
                // The turn ends with the work, and not when the caller goes away.
                let _turn = turn;
                working.await
            })
        })
        .await
    }

    /// Waits until the projection has reached the journal's end, as read now, in the partitions of these accounts.
    /// Returns false if it has not by the deadline, or if the end can't be read.
    pub(crate) async fn catch_up(&self, accounts: &BTreeSet<AccountId>, deadline: Instant) -> bool {
        let partitions: BTreeSet<i32> =
            accounts.iter().map(|account| self.journal.partition_of(account.as_str())).collect();
        for partition in partitions {
            let end = match self.journal.end(partition).await {
                Ok(end) => end,
                Err(error) => {
                    warn!(%error, partition, "the journal's end could not be read");
                    return false;
                }
            };
            let last = Position { partition, offset: end.offset - 1 };
            if last.offset >= 0 && !self.waiter.wait_for(last, deadline).await {
                return false;
            }
        }
        true
    }

    /// Returns 503 unless the projection catches up with the account's partition in time.
    pub(crate) async fn require_caught_up(
        &self,
        account: &AccountId,
        deadline: Instant,
    ) -> Result<(), Problem> {
        if self.catch_up(&BTreeSet::from([account.clone()]), deadline).await {
            return Ok(());
        }
        Err(Problem::behind("the projection is behind the journal"))
    }

    /// Reads what is known about accounts; `moving_to` is the target of a move of their test clocks.
    pub(crate) async fn known_accounts(
        &self,
        accounts: &BTreeSet<AccountId>,
        moving_to: Option<Time>,
    ) -> Result<KnownAccounts, sqlx::Error> {
        KnownAccounts::read(&self.pool, self.waiter.schema(), &self.cards, accounts, moving_to).await
    }

    /// Returns what validation knows about an account, after waiting for the projection if the account seems absent.
    ///
    /// `moving_to` is the target of a move of its test clock; 422 if that is too far for one move.
    pub(crate) async fn account(
        &self,
        account: &AccountId,
        moving_to: Option<Time>,
        deadline: Instant,
    ) -> Result<Account, Problem> {
        let only = BTreeSet::from([account.clone()]);
        let first = self.known_accounts(&only, moving_to).await?;
        if let Some(known) = first.get(account).filter(|known| !known.jumps) {
            return Ok(known.clone());
        }
        self.require_caught_up(account, deadline).await?;
        match self.known_accounts(&only, moving_to).await?.get(account) {
            None => Err(Problem::account_not_found(account.as_str())),
            Some(known) if known.jumps => Err(clock_jump()),
            Some(known) => Ok(known.clone()),
        }
    }
}
