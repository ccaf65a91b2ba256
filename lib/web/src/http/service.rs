//! Service: the common form of all services, to run alone in a process or merged with others.
//!
//! `ledger serve X` builds one and runs it; `ledger up` builds all, merges them and runs the result: the only
//! difference is their number.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use futures::future::BoxFuture;
use platform::heartbeat::{Ended, Heartbeat, supervise};
use platform::kafka::{self, Journal, KafkaOptions, LogIdentity};
use platform::pg::{self, PgConfig, PgPool};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::cors;
use super::observe::{NotFoundPage, finish_with};
use super::ops::{self, Readiness};
use super::serve::{HttpConfig, bind, serve};
use crate::openapi;
use crate::openapi::docs;
use crate::openapi::pages::{self, Documents};

/// How long tasks may drain after a stop; each has shorter limits of its own.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long the stop then waits for the journal's acknowledgements.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Dependencies that the services of one process share.
pub struct Deps {
    pub postgres: PgConfig,
    pub kafka: KafkaOptions,
    log: OnceCell<LogIdentity>,
}

impl Deps {
    pub fn new(postgres: PgConfig, kafka: KafkaOptions) -> Deps {
        Deps { postgres, kafka, log: OnceCell::new() }
    }

    /// Opens a service's pool, with its name in `pg_stat_activity`; the reading service's can only read.
    ///
    /// Refuses the login of another service.
    pub async fn pool(&self, service: pg::Role) -> anyhow::Result<PgPool> {
        let PgConfig { database_url, database_connections } = &self.postgres;
        let purpose = match service {
            pg::Role::CommandApi => pg::Purpose::Requests,
            pg::Role::Projector | pg::Role::AlertWorker => pg::Purpose::Consume,
            pg::Role::QueryApi => pg::Purpose::Reads,
        };
        let pool = pg::connect_for(purpose, database_url, service.service(), *database_connections).await;
        let pool = pool.context("the database can't be reached")?;
        let login = pg::Login::of(&pool).await.context("the database can't be read")?;
        if let Some(other) = login.role().filter(|role| *role != service) {
            let (other, login, service) = (other.service(), login.name, service.service());
            bail!("DATABASE_URL has {login}, which is the login of {other}, and this is {service}");
        }
        Ok(pool)
    }

    /// Migrates the database, or checks that it is migrated where this login does not own it, and creates the topics;
    /// once per process.
    pub async fn prepare(&self, pool: &PgPool) -> anyhow::Result<LogIdentity> {
        let identity = self.log.get_or_try_init(|| async {
            pg::migrate_or_check(pool).await?;
            anyhow::Ok(kafka::prepare(&self.kafka, pool).await?)
        });
        Ok(*identity.await?)
    }
}

/// Background tasks of a service, by name; each ends once its shutdown token is cancelled.
#[derive(Default)]
pub struct Tasks(Vec<(&'static str, BoxFuture<'static, anyhow::Result<()>>)>);

impl Tasks {
    /// Adds a task; it starts with the service.
    pub fn add(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.0.push((name, Box::pin(task)));
    }
}

/// A built service that is not running yet.
pub struct Service {
    pub name: &'static str,
    /// The start adds the documents and the operator's endpoints.
    pub routes: Router,
    pub readiness: Readiness,
    pub tasks: Tasks,
    pub openapi: Option<Value>,
    /// Where people read it.
    pub not_found_page: Option<NotFoundPage>,
    /// Flushed after the tasks have ended.
    pub journals: Vec<Journal>,
}

impl Service {
    /// Makes a service with only a name and its checks.
    pub fn new(name: &'static str, readiness: Readiness) -> Service {
        let (routes, tasks) = (Router::new(), Tasks::default());
        Service { name, routes, readiness, tasks, openapi: None, not_found_page: None, journals: Vec::new() }
    }

    /// Adds a loop under supervision: `/readyz` names it while it makes no progress, and then it starts again.
    pub fn supervise<F, T>(
        &mut self,
        heartbeat: &Heartbeat,
        shutdown: &CancellationToken,
        start: impl FnMut() -> F + Send + 'static,
    ) where
        F: Future<Output = T> + Send + 'static,
        T: Into<Ended> + Send + 'static,
    {
        self.readiness = std::mem::take(&mut self.readiness).with(heartbeat.name(), heartbeat.check());
        self.tasks.add(heartbeat.name(), supervise(heartbeat.clone(), shutdown.clone(), start));
    }

    /// Merges two services, under this one's name.
    pub fn merge(mut self, other: Service) -> Service {
        self.routes = self.routes.merge(other.routes);
        self.readiness = self.readiness.merge(other.readiness);
        self.tasks.0.extend(other.tasks.0);
        self.openapi = match (self.openapi, other.openapi) {
            (Some(mut document), Some(more)) => {
                openapi::merge(&mut document, more);
                Some(document)
            }
            (document, more) => document.or(more),
        };
        self.not_found_page = self.not_found_page.or(other.not_found_page);
        self.journals.extend(other.journals);
        self
    }

    /// Listens, and runs until `shutdown` or until a task ends by itself; returns the first error.
    pub async fn run(self, config: &HttpConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
        let listener = bind(config.listen).await?;
        let mut running = self.start(listener, config, shutdown)?;
        let first = running.ended().await.map(drop);
        let others = running.stop().await;
        first.and(others)
    }

    /// Starts serving and all tasks; `shutdown` is the token that the service was built with.
    pub fn start(
        self,
        listener: TcpListener,
        config: &HttpConfig,
        shutdown: CancellationToken,
    ) -> io::Result<Running> {
        let address = listener.local_addr()?;
        let mut routes = self.routes.merge(ops::router(self.readiness));
        if let Some(document) = self.openapi {
            let documents = Arc::new(Documents::new(&document));
            routes = routes.merge(openapi::router(pages::routes()).with_state(documents));
            routes = routes.merge(docs::router());
        }
        let mut tasks = JoinSet::new();
        for (name, task) in self.tasks.0 {
            tasks.spawn(async move { (name, task.await) });
        }
        let routes = cors::allow(finish_with(routes, self.not_found_page), &config.allowed_origins);
        let serving = serve(routes, listener, config.connections, shutdown.clone());
        tasks.spawn(async move { ("http", serving.await.map_err(Into::into)) });
        Ok(Running { address, name: self.name, shutdown, tasks, journals: self.journals })
    }
}

/// A running service. Dropping it ends its tasks at once: call [`Running::stop`].
pub struct Running {
    pub address: SocketAddr,
    name: &'static str,
    shutdown: CancellationToken,
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    journals: Vec<Journal>,
}

impl Running {
    /// Waits for the first task that ends, and returns its name, in an error too.
    pub async fn ended(&mut self) -> anyhow::Result<&'static str> {
        match self.tasks.join_next().await {
            Some(Ok((name, Ok(())))) => Ok(name),
            Some(Ok((name, Err(error)))) => Err(error.context(format!("{name} failed"))),
            Some(Err(error)) => Err(anyhow::Error::new(error).context("a task panicked")),
            None => Ok(self.name),
        }
    }

    /// Stops all tasks, waits for their drain, and flushes the journal; returns the first error.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        let mut first = Ok(());
        let draining = async {
            while !self.tasks.is_empty() {
                if let Err(error) = self.ended().await {
                    warn!(service = self.name, error = format!("{error:#}"), "ended badly");
                    first = std::mem::replace(&mut first, Ok(())).and(Err(error));
                }
            }
        };
        if tokio::time::timeout(DRAIN_MAX, draining).await.is_err() {
            warn!(service = self.name, "tasks did not drain in time");
            self.tasks.shutdown().await;
        }
        for journal in &self.journals {
            journal.flush(FLUSH_MAX).await;
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use platform::unready::Unready;

    async fn run(service: Service, shutdown: CancellationToken) -> anyhow::Result<()> {
        let config =
            HttpConfig { listen: ([127, 0, 0, 1], 0).into(), connections: 4, allowed_origins: Vec::new() };
        service.run(&config, shutdown).await
    }

    #[tokio::test]
    async fn a_task_that_fails_stops_the_others_and_says_its_name() {
        let (shutdown, drained) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let mut failing = Service::new("failing", Readiness::new());
        failing.tasks.add("folding", async { bail!("no disk") });
        let mut waiting = Service::new("waiting", Readiness::new());
        let (token, noted) = (shutdown.clone(), Arc::clone(&drained));
        waiting.tasks.add("waiting", async move {
            token.cancelled().await;
            noted.store(true, Ordering::Relaxed);
            Ok(())
        });
        let error = run(failing.merge(waiting), shutdown).await.expect_err("failed");
        assert_eq!(format!("{error:#}"), "folding failed: no disk");
        assert!(drained.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_stop_ends_well() {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        run(Service::new("idle", Readiness::new()), shutdown).await.expect("stopped");
    }

    #[tokio::test]
    async fn of_two_checks_of_one_name_the_first_is_asked() {
        let bad = || Unready::new("bad", "");
        let service = |name, check: &'static str, well: bool| {
            let said = if well { Ok(()) } else { Err(bad()) };
            let readiness = Readiness::new().with(check, move || std::future::ready(said.clone()));
            Service::new(name, readiness)
        };
        let merged = service("a", "database", true).merge(service("b", "database", false));
        let merged = merged.merge(service("c", "journal", false));
        let found = merged.readiness.findings().await;
        assert_eq!(found, [("database", Ok(())), ("journal", Err(bad()))]);
    }
}
