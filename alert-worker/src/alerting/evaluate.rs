//! Evaluate: what fires when an event is folded, moment by moment and then user by user.

use async_trait::async_trait;
use ledger_core::alert::{self, Firing, Users, Watch, Watcher};
use ledger_core::fold::{self, Applied, Fact};
use runtime::consume::WorkerError;
use runtime::fold::{Account, Accounts, Book, Fold};
use runtime::kafka::Record;
use sqlx::PgConnection;

use super::changes::Changes;
use super::service::Telling;
use super::{load, store};

/// The alert worker's part in the journal's fold.
pub type Evaluation = Fold<Alerting>;

/// Makes rows of firings; keeps beside each core which rules have told what.
#[derive(Debug, Clone)]
pub struct Alerting {
    telling: Telling,
}

impl Alerting {
    /// Evaluates, and puts into the outbox what is to be told.
    pub fn new(telling: Telling) -> Self {
        Self { telling }
    }
}

/// What is kept beside a core.
#[derive(Debug, Default)]
pub struct Watched {
    /// What has fired, and which versions the thresholds are of.
    pub watch: Watch,
    /// The users that a batch touches; empty between batches.
    pub users: Users,
}

#[async_trait]
impl Book for Alerting {
    type Beside = Watched;
    type Changes = Changes;

    fn name(&self) -> &'static str {
        "alert-worker"
    }

    async fn load(
        &self,
        tx: &mut PgConnection,
        accounts: Vec<&mut Account<Watched>>,
    ) -> Result<(), WorkerError> {
        load::watches(tx, accounts).await
    }

    async fn prefetch(
        &self,
        tx: &mut PgConnection,
        facts: &[(usize, &Fact)],
        accounts: &mut Accounts<Watched>,
    ) -> Result<(), WorkerError> {
        for (at, _) in facts {
            let account = accounts.at(*at);
            account.beside.users = Users::of(account.core.as_ref());
        }
        let users = facts.iter().filter_map(|(at, fact)| Some((*at, alert::user_of(&fact.event.data)?)));
        load::users(tx, users.collect(), accounts).await
    }

    async fn fold(
        &self,
        tx: &mut PgConnection,
        accounts: &mut Accounts<Watched>,
        at: usize,
        fact: &Fact,
        changes: &mut Changes,
    ) -> Result<(), WorkerError> {
        let mut firings = Vec::new();
        let applied = accounts
            .apply(tx, at, fact, |account, fact| {
                let mut watcher = Watcher { watch: &mut account.beside.watch, firings: &mut firings };
                fold::apply_watched(&mut account.core, &mut account.pages, fact, &mut watcher)
            })
            .await?;
        evaluate_users(tx, accounts.at(at), fact, &applied, &mut firings).await?;
        let account = accounts.at(at);
        changes.folded(fact, &applied);
        if let Some(core) = &account.core {
            changes.enter(core, &applied);
            let tells = self.telling.of(account.partition, fact.offset);
            changes.fired(core, fact, &applied, firings, tells);
            if tells {
                changes.top_ups.folded(core, fact, &applied);
            }
        }
        Ok(())
    }

    fn dead_letter(&self, _: &mut Changes, _: &Record, _: &str) {
        // The projector keeps it.
    }

    async fn write(
        &self,
        tx: &mut PgConnection,
        changes: Changes,
        accounts: &mut [Account<Watched>],
    ) -> Result<(), WorkerError> {
        store::write(tx, changes, accounts).await?;
        for account in accounts {
            account.beside.users = Users::default();
        }
        Ok(())
    }
}

/// Evaluates the rules about users, loading the pages that it finds missing.
async fn evaluate_users(
    tx: &mut PgConnection,
    account: &mut Account<Watched>,
    fact: &Fact,
    applied: &Applied,
    firings: &mut Vec<Firing>,
) -> Result<(), WorkerError> {
    loop {
        let Some(core) = &account.core else { return Ok(()) };
        let Watched { watch, users } = &mut account.beside;
        match watch.users(core, users, fact, applied, firings) {
            Ok(()) => return Ok(()),
            Err(missing) => load::missing(tx, &account.id, users, missing).await?,
        }
    }
}
