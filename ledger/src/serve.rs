//! Serve: one service as a process of its own, as in production; what works without HTTP gets its operator's pages.

use anyhow::{Context, Result};
use axum::Router;
use clap::{Args, Subcommand};
use runtime::auth::{Auth, AuthConfig};
use runtime::consume::{Source, Status};
use runtime::http::{self, HttpConfig, ops};
use runtime::kafka::{self, Journal, KafkaOptions, LogIdentity};
use runtime::pg::{self, Model, PgConfig, PgPool};
use runtime::shutdown::CancellationToken;
use runtime::waiter::Waiter;
use tokio::net::TcpListener;

use crate::up::Checks;

/// The services.
#[derive(Debug, Clone, Subcommand)]
pub enum Service {
    /// The write side: HTTP writes and the Kafka ingress
    CommandApi {
        /// Where things are.
        #[command(flatten)]
        place: Place,
        /// Who may come in.
        #[command(flatten)]
        auth: AuthConfig,
    },
    /// Folds the journal into the read model
    Projector {
        /// Where things are.
        #[command(flatten)]
        place: Place,
        /// How it folds.
        #[command(flatten)]
        projector: projector::Config,
    },
    /// Appends period resets
    AlertWorker {
        /// Where things are.
        #[command(flatten)]
        place: Place,
        /// How it schedules.
        #[command(flatten)]
        scheduler: alert_worker::SchedulerConfig,
    },
    /// The read side
    QueryApi {
        /// All of its settings.
        #[command(flatten)]
        config: query_api::Config,
    },
}

/// Where a service finds the others.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The database.
    #[command(flatten)]
    pub postgres: PgConfig,
    /// The journal.
    #[command(flatten)]
    pub kafka: KafkaOptions,
    /// Where to serve.
    #[command(flatten)]
    pub http: HttpConfig,
}

/// Runs one service until `shutdown`.
pub async fn run(service: Service, shutdown: CancellationToken) -> Result<()> {
    // Whichever of a service's halves ends first takes the other with it.
    let both = shutdown.child_token();
    match service {
        Service::CommandApi { place, auth } => {
            let (pool, identity) = prepare(&place, "command-api").await?;
            pg::ensure_generation(&pool, Model::ReadModel).await?;
            let journal = Journal::new(&place.kafka, identity)?;
            let waiter = Waiter::listen(pool.clone(), Model::ReadModel, both.clone()).await?;
            let auth = Auth::new(pool.clone(), &auth)?;
            let app = command_api::App::new(pool.clone(), journal, waiter, auth);
            let openapi = axum::routing::get(|| async { axum::Json(command_api::openapi()) });
            let routes = command_api::router(app.clone()).route("/openapi.json", openapi);
            let ingress = command_api::ingress::run(app, place.kafka.clone(), both.clone());
            beside(ingress, routes, Checks::of(&pool, &place.kafka, None), &place, &both).await
        }
        Service::Projector { place, projector } => {
            let (pool, identity) = prepare(&place, "projector").await?;
            let status = Status::default();
            let source = Source { kafka: place.kafka.clone(), identity, pool: pool.clone() };
            let projecting = projector::run(projector, source, status.clone(), both.clone());
            beside(projecting, Router::new(), Checks::of(&pool, &place.kafka, Some(&status)), &place, &both).await
        }
        Service::AlertWorker { place, scheduler } => {
            let (pool, identity) = prepare(&place, "alert-worker").await?;
            let journal = Journal::new(&place.kafka, identity)?;
            let (token, for_rounds) = (both.clone(), pool.clone());
            let scheduling = async move {
                alert_worker::scheduler::run(scheduler, journal, for_rounds, token).await;
                Ok(())
            };
            beside(scheduling, Router::new(), Checks::of(&pool, &place.kafka, None), &place, &both).await
        }
        Service::QueryApi { config } => query_api::run(config, shutdown).await,
    }
}

async fn prepare(place: &Place, name: &str) -> Result<(PgPool, LogIdentity)> {
    let pool = pg::connect(&place.postgres.database_url, name, place.postgres.database_connections)
        .await
        .context("Postgres can't be reached: set DATABASE_URL")?;
    pg::migrate(&pool).await?;
    let identity = kafka::prepare(&place.kafka, &pool).await?;
    Ok((pool, identity))
}

/// Runs a service's work beside its HTTP server; the first to end stops the other.
async fn beside(
    work: impl Future<Output = Result<()>>,
    routes: Router,
    checks: ops::Readiness,
    place: &Place,
    both: &CancellationToken,
) -> Result<()> {
    let listener = TcpListener::bind(place.http.listen)
        .await
        .with_context(|| format!("{} can't be listened on", place.http.listen))?;
    let routes = http::finish(routes.merge(ops::router(checks)));
    let serving = async {
        let served = http::serve(routes, listener, place.http.connections, both.clone()).await;
        both.cancel();
        served.map_err(anyhow::Error::from)
    };
    let working = async {
        let worked = work.await;
        both.cancel();
        worked
    };
    let (worked, served) = tokio::join!(working, serving);
    worked.and(served)
}
