//! Evaluate: the firings of a folded event, moment by moment and then user by user.

use async_trait::async_trait;
use engine::consume::WorkerError;
use engine::fold::{Account, Accounts, FoldWorker, Projection};
use ledger_core::fold::{self, Fact};
use ledger_core::policy::alert::{self, Firing, Users, Watcher};
use platform::heartbeat;
use platform::kafka::Record;
use sqlx::PgConnection;

use super::changes::{Changes, Fired};
use super::notify_from::{Notified, NotifyFrom};
use super::watched::Watched;
use super::{load, store};

/// The worker that folds the journal for the alerts.
pub type Evaluation = FoldWorker<Alerting>;

/// The alerts' projection: writes firings, and keeps the state of the rules with each core.
#[derive(Debug, Clone)]
pub struct Alerting {
    notify_from: NotifyFrom,
}

impl Alerting {
    /// Evaluates alerts, and puts notifications into the outbox from these offsets on.
    pub fn new(notify_from: NotifyFrom) -> Self {
        Self { notify_from }
    }
}

#[async_trait]
impl Projection for Alerting {
    type SideState = Watched;
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
            account.side_state.users = Users::of(account.core.as_ref());
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
                let mut watcher = Watcher { watch: &mut account.side_state.watch, firings: &mut firings };
                fold::apply_watched(&mut account.core, &mut account.pages, fact, &mut watcher)
            })
            .await?;
        let account = accounts.at(at);
        changes.folded(fact, &applied);
        let Some(core) = &account.core else { return Ok(()) };
        changes.enter(core, &applied);
        let notified = self.notify_from.notified(account.partition, fact.offset);
        match notified {
            Notified::People => changes.top_ups.folded(core, fact, &applied),
            Notified::Perhaps => changes.top_ups.folded_again(core, fact, &applied),
            Notified::Nobody => {}
        }
        evaluate_users(
            tx,
            account,
            &mut Fired { fact, applied: &applied, notified, count: 0 },
            firings,
            changes,
        )
        .await
    }

    fn dead_letter(&self, _: &mut Changes, _: &Record, _: &str) -> bool {
        // The projector stores dead letters.
        false
    }

    async fn write(
        &self,
        tx: &mut PgConnection,
        changes: Changes,
        accounts: &mut [Account<Watched>],
    ) -> Result<(), WorkerError> {
        store::write(tx, changes, accounts).await?;
        for account in accounts {
            account.side_state.users = Users::default();
        }
        Ok(())
    }
}

/// Evaluates the rules about users, loads the pages that it finds missing, and collects all firings.
///
/// Editing a rule may affect every user of the account: firings are written in chunks, before the next users are
/// loaded.
async fn evaluate_users(
    tx: &mut PgConnection,
    account: &mut Account<Watched>,
    fired: &mut Fired<'_>,
    mut firings: Vec<Firing>,
    changes: &mut Changes,
) -> Result<(), WorkerError> {
    loop {
        heartbeat::beat();
        let Some(core) = &account.core else { return Ok(()) };
        let Watched { watch, users } = &mut account.side_state;
        let missing = watch.users(core, users, fired.fact, fired.applied, &mut firings).err();
        changes.fired(core, fired, firings.drain(..));
        let passed = users.pass();
        if !passed.is_empty() {
            store::write_passed(tx, &account.id, users.period_index(), &passed).await?;
            store::write_firings(tx, changes).await?;
        }
        match missing {
            None => return Ok(()),
            Some(missing) => load::missing(tx, &account.id, users, missing).await?,
        }
    }
}
