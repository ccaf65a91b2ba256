//! Service: settings of the read side, and its composition.

use std::time::Duration;

use anyhow::{Context, bail};
use engine::progress::WaitConfig;
use platform::kafka::{Ends, LogIdentity};
use platform::pg::{self, Model, Role};
use sqlx::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;
use web::auth::{Auth, AuthConfig};
use web::http::ops::Readiness;
use web::http::{Deps, Service};

use crate::app::{App, Waiters};
use crate::{openapi, routes};

/// Pause between two checks for live models at the start.
const MODELS_POLL: Duration = Duration::from_millis(500);

/// Settings of the read side.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    #[command(flatten)]
    pub auth: AuthConfig,
    #[command(flatten)]
    pub wait: WaitConfig,
    #[command(flatten)]
    pub audit: AuditConfig,
}

/// Who may read the audit log.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct AuditConfig {
    /// Serves the audit log's tiles, checkpoints and keys to everybody: they tell counts and times, and no account
    #[arg(long, env = "LEDGER_AUDIT_PUBLIC")]
    pub audit_public: bool,
}

/// Builds the service, after the writing services have created the journal and the models.
///
/// Fails also if `shutdown` comes first.
pub async fn build(config: Config, deps: &Deps, shutdown: &CancellationToken) -> anyhow::Result<Service> {
    let pool = deps.pool(Role::QueryApi).await?;
    let identity = wait_for_models(&pool, shutdown).await?;
    let waiters = Waiters::listen(&pool, config.wait, shutdown).await?;
    let auth = Auth::new(pool.clone(), &config.auth)?;
    let mut app = App::new(pool, waiters, auth, deps.kafka.clone(), identity, shutdown.clone())?;
    app.audit_public = config.audit.audit_public;
    let mut service = Service::new("query-api", readiness(&app.pool, &app.ends));
    service.routes = routes::router(app);
    service.openapi = Some(openapi::openapi());
    Ok(service)
}

async fn wait_for_models(pool: &PgPool, shutdown: &CancellationToken) -> anyhow::Result<LogIdentity> {
    while !shutdown.is_cancelled() {
        if let Some(identity) = log_identity(pool).await? {
            return Ok(identity);
        }
        info!("no models are live yet: the projector and the alert worker make them");
        tokio::select! {
            () = sleep(MODELS_POLL) => {}
            () = shutdown.cancelled() => {}
        }
    }
    bail!("stopped before any models were live")
}

/// Returns the identity of the journal; none before it exists, or before its models are live.
async fn log_identity(pool: &PgPool) -> anyhow::Result<Option<LogIdentity>> {
    let migrated: bool = sqlx::query_scalar("select to_regclass('control.log_identity') is not null")
        .fetch_one(pg::bounded(pool))
        .await
        .context("the database can't be read")?;
    if !migrated {
        return Ok(None);
    }
    for model in [Model::ReadModel, Model::Alerting] {
        let Some(live) = pg::live_generation(pool, model).await? else { return Ok(None) };
        // A database that was restored without its generations has them made again by their services.
        let stands: bool = sqlx::query_scalar("select to_regclass($1) is not null")
            .bind(format!("{live}.checkpoint"))
            .fetch_one(pool)
            .await?;
        if !stands {
            return Ok(None);
        }
    }
    let row: Option<(uuid::Uuid, i32)> =
        sqlx::query_as("select log_id, partitions from control.log_identity")
            .fetch_optional(pg::bounded(pool))
            .await?;
    Ok(row.map(|(log_id, partitions)| LogIdentity { log_id, partitions }))
}

fn readiness(pool: &PgPool, ends: &Ends) -> Readiness {
    let ends = ends.clone();
    Readiness::new().with_database(pool).with("journal", move || {
        let ends = ends.clone();
        async move { ends.check().await }
    })
}
