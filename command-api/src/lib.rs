//! The write side: HTTP writes and the Kafka ingress, judged at the door, priced, and appended to the journal.
//!
//! A handler has four steps: parse, decide, append, answer. What the door knows of accounts may lag; the fold judges.

mod accounts;
mod adjustments;
mod answer;
mod asked;
mod book;
mod cards;
mod check;
mod checkout;
mod clock;
mod contacts;
mod effects;
mod grants;
mod holds;
mod idempotency;
mod ingress;
mod intake;
mod keys;
mod openapi;
mod outbox;
mod outcome;
mod payments;
mod plan;
mod promotions;
mod rate_cards;
mod reservations;
mod reversals;
mod settings;
mod submit;
mod usage;
mod webhooks;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ::payments::{PaymentConfig, Provider, SettingError};
use axum::extract::FromRef;
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use axum::{Json, Router};
use engine::progress::{WaitConfig, Waiter};
use ledger_core::value::id::Id;
use ledger_core::value::time::Time;
use platform::kafka::{self, Journal, KafkaOptions};
use platform::pg::{self, Model, PgConfig, PgPool};
use platform::position::Position;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use web::auth::{Auth, AuthConfig};
use web::http::ops::{self, Readiness};
use web::http::{self, HttpConfig, Problem};

use crate::book::{Account, Book};
use crate::cards::Cards;
use crate::holds::Holds;
pub use crate::holds::{HoldsConfig, drop_old};
pub use crate::openapi::openapi;
pub use crate::promotions::PromotionsConfig;

/// At the end, for what the journal has not acknowledged yet.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// What every handler works with; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The parts of an [`App`].
pub struct Parts {
    /// The database, with the right to write `control`.
    pub pool: PgPool,
    /// Where events go.
    pub journal: Journal,
    /// How far they are projected.
    pub waiter: Arc<Waiter>,
    /// Who calls.
    pub auth: Auth,
    /// What is sold, by whom it is paid, and what is given away.
    pub sales: Sales,
    cards: Cards,
    holds: Holds,
}

/// What is sold, by whom it is paid, and what is given away.
pub struct Sales {
    /// What new accounts and their referrers get.
    pub promotions: PromotionsConfig,
    /// Who moves the money.
    pub provider: Arc<dyn Provider>,
    /// What its webhooks are signed with; empty: none is taken.
    pub webhook_secret: String,
}

impl Sales {
    /// Errors: a setting that can't work.
    pub fn new(
        promotions: PromotionsConfig,
        payment: &PaymentConfig,
        pool: &PgPool,
    ) -> Result<Sales, SettingError> {
        let provider = ::payments::provider(payment, pool)?;
        Ok(Sales { promotions, provider, webhook_secret: payment.stripe_webhook_secret.clone() })
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
    /// Puts the parts together, and starts the tasks that decide on holds.
    pub fn new(
        pool: PgPool,
        journal: Journal,
        waiter: Arc<Waiter>,
        auth: Auth,
        holds: HoldsConfig,
        sales: Sales,
    ) -> App {
        let holds = Holds::start(&pool, &waiter, holds);
        App(Arc::new(Parts { pool, journal, waiter, auth, sales, cards: Cards::default(), holds }))
    }

    /// Waits until the projection has reached the journal's end, as read now, in these accounts' partitions;
    /// false where it has not by the deadline, or where the end can't be read.
    async fn catch_up(&self, accounts: &BTreeSet<Id>, deadline: Instant) -> bool {
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

    /// 503 unless the projection catches up with the account's partition in time.
    async fn require_caught_up(&self, account: &Id, deadline: Instant) -> Result<(), Problem> {
        if self.catch_up(&BTreeSet::from([account.clone()]), deadline).await {
            return Ok(());
        }
        Err(Problem::behind("the projection is behind the journal"))
    }

    /// Returns an account as the door knows it, from a projection that has caught up where it seems absent.
    ///
    /// `moving_to`: where its test clock would move; 422 where that is too far for one move.
    async fn account(
        &self,
        account: &Id,
        moving_to: Option<Time>,
        deadline: Instant,
    ) -> Result<Account, Problem> {
        let only = BTreeSet::from([account.clone()]);
        let first = Book::read(self, &only, moving_to).await?;
        if let Some(known) = first.get(account).filter(|known| !known.jumps) {
            return Ok(known.clone());
        }
        self.require_caught_up(account, deadline).await?;
        match Book::read(self, &only, moving_to).await?.get(account) {
            None => Err(Problem::account_not_found(account.as_str())),
            Some(known) if known.jumps => {
                Err(Problem::unprocessable(intake::CLOCK_JUMP, intake::clock_jump_detail()))
            }
            Some(known) => Ok(known.clone()),
        }
    }
}

/// Returns the routes of the write side, without `/openapi.json` and the operator's pages.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    for (path, handler) in routes() {
        router = router.route(path, handler);
    }
    router.with_state(app)
}

/// The document in `openapi.json` describes these and no others.
fn routes() -> [(&'static str, MethodRouter<App>); 31] {
    [
        ("/v1/accounts", post(accounts::open)),
        ("/v1/accounts/{account}", patch(accounts::change)),
        ("/v1/accounts/{account}/plan", put(plan::put)),
        ("/v1/accounts/{account}/clock", post(clock::advance)),
        ("/v1/accounts/{account}/usage", post(usage::plain)),
        ("/v1/accounts/{account}/usage/{event_id}/reversal", post(reversals::reverse)),
        ("/v1/accounts/{account}/grants", post(grants::grant)),
        ("/v1/accounts/{account}/grants/{grant_id}", delete(grants::void)),
        ("/v1/accounts/{account}/adjustments", post(adjustments::adjust)),
        ("/v1/accounts/{account}/purchases", post(payments::purchase)),
        ("/v1/accounts/{account}/refunds", post(payments::refund)),
        ("/v1/accounts/{account}/checkout", post(checkout::create)),
        ("/v1/accounts/{account}/redemptions", post(promotions::create_redemption)),
        ("/v1/accounts/{account}/referrals", post(promotions::invite)),
        ("/v1/promo-codes", post(promotions::create_promo_code)),
        ("/v1/webhooks/stripe", post(webhooks::stripe)),
        ("/v1/accounts/{account}/limits", put(settings::put_limits)),
        ("/v1/accounts/{account}/user-alert", put(settings::put_user_alert)),
        ("/v1/accounts/{account}/auto-top-up", put(settings::put_auto_top_up)),
        (
            "/v1/accounts/{account}/alerts/{alert}",
            put(settings::put_org_alert).delete(settings::remove_org_alert),
        ),
        ("/v1/accounts/{account}/contacts", put(contacts::put).get(contacts::get)),
        ("/v1/accounts/{account}/contacts/webhook-secret", post(contacts::rotate_secret)),
        ("/v1/accounts/{account}/check", post(check::check)),
        ("/v1/accounts/{account}/reservations", post(reservations::reserve)),
        ("/v1/accounts/{account}/reservations/{reservation}", patch(reservations::extend)),
        ("/v1/accounts/{account}/reservations/{reservation}/settle", post(reservations::settle)),
        ("/v1/accounts/{account}/reservations/{reservation}/release", post(reservations::release)),
        ("/v1/events", post(usage::events)),
        ("/v1/rate-cards/{card}", put(rate_cards::put)),
        ("/v1/keys", post(keys::create).get(keys::list)),
        ("/v1/keys/{key}", delete(keys::revoke)),
    ]
}

/// Settings of the write side as a process of its own.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Where to listen.
    #[command(flatten)]
    pub http: HttpConfig,
    /// Which database.
    #[command(flatten)]
    pub pg: PgConfig,
    /// Which log.
    #[command(flatten)]
    pub kafka: KafkaOptions,
    /// Whose key opens.
    #[command(flatten)]
    pub auth: AuthConfig,
    /// How long answers wait.
    #[command(flatten)]
    pub wait: WaitConfig,
    /// What is kept of decisions.
    #[command(flatten)]
    pub holds: HoldsConfig,
    /// What new accounts and their referrers get.
    #[command(flatten)]
    pub promotions: PromotionsConfig,
    /// Who moves the money.
    #[command(flatten)]
    pub payment: PaymentConfig,
}

/// Runs what the write side does without being asked, until `shutdown`: the ingress, the outbox, upkeep of holds.
pub async fn work(
    app: App,
    kafka: KafkaOptions,
    holds: HoldsConfig,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let relaying = async {
        outbox::relay(app.clone(), shutdown.clone()).await;
        Ok(())
    };
    let keeping_up = async {
        holds::keep_up(app.clone(), holds, shutdown.clone()).await;
        Ok(())
    };
    let taking = async {
        let taken = ingress::run(app.clone(), kafka, shutdown.clone()).await;
        taken.map_err(anyhow::Error::from)
    };
    tokio::try_join!(relaying, keeping_up, taking).map(|_| ())
}

/// Runs the write side until `shutdown`: HTTP, the ingress, and the operator's pages.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let pool = pg::connect(&config.pg.database_url, "command-api", config.pg.database_connections).await?;
    pg::migrate(&pool).await?;
    pg::ensure_generation(&pool, Model::ReadModel).await?;
    let identity = kafka::prepare(&config.kafka, &pool).await?;
    let journal = Journal::new(&config.kafka, identity)?;
    let waiter = Waiter::listen(pool.clone(), Model::ReadModel, config.wait, shutdown.clone()).await?;
    let auth = Auth::new(pool.clone(), &config.auth)?;
    let sales = Sales::new(config.promotions, &config.payment, &pool)?;
    let app = App::new(pool.clone(), journal.clone(), waiter, auth, config.holds, sales);

    let documented = Router::new().route("/openapi.json", get(|| async { Json(openapi()) }));
    let readiness = Readiness::new().with_database(&pool).with_log(&config.kafka, &pool);
    let routes = http::finish(router(app.clone()).merge(documented).merge(ops::router(readiness)));
    let working = work(app, config.kafka.clone(), config.holds, shutdown.clone());
    let ended = http::serve_with(working, routes, &config.http, shutdown).await;
    journal.flush(FLUSH_TIMEOUT).await;
    ended
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Served by the process around the routes.
    const OPERATIONS: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/openapi.json"];

    #[test]
    fn the_openapi_document_describes_what_is_served_and_nothing_else() {
        let document = openapi();
        let paths = document["paths"].as_object().expect("paths");
        let described: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
        let served: BTreeSet<&str> = routes().iter().map(|(path, _)| *path).chain(OPERATIONS).collect();
        assert_eq!(described, served);
    }
}
