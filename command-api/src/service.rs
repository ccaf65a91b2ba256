//! Service: settings of the write side, and its composition.

use contacts::webhook::WebhookConfig;
use engine::progress::{WaitConfig, Waiter};
use futures::FutureExt;
use payments::PaymentConfig;
use platform::heartbeat::Heartbeat;
use platform::kafka::Journal;
use platform::pg::{self, Model, Role};
use tokio_util::sync::CancellationToken;
use web::auth::{Auth, AuthConfig};
use web::http::ops::Readiness;
use web::http::{Deps, Service};

use crate::app::{App, Reach, Sales};
use crate::billing::webhooks::outcomes;
use crate::holds::{HoldsConfig, upkeep};
use crate::ingress::Ingress;
use crate::promotions::config::PromotionsConfig;
use crate::write::outbox;
use crate::{openapi, routes};

/// Settings of the write side.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    #[command(flatten)]
    pub auth: AuthConfig,
    #[command(flatten)]
    pub wait: WaitConfig,
    #[command(flatten)]
    pub holds: HoldsConfig,
    #[command(flatten)]
    pub promotions: PromotionsConfig,
    #[command(flatten)]
    pub payment: PaymentConfig,
    #[command(flatten)]
    pub webhook: WebhookConfig,
}

/// Builds the service: HTTP writes, ingress, outbox relay, and upkeep of holds.
pub async fn build(config: Config, deps: &Deps, shutdown: &CancellationToken) -> anyhow::Result<Service> {
    let pool = deps.pool(Role::CommandApi).await?;
    let identity = deps.prepare(&pool).await?;
    pg::ensure_generation(&pool, Model::ReadModel).await?;
    let journal = Journal::new(&deps.kafka, identity)?;
    let waiter = Waiter::listen(pool.clone(), Model::ReadModel, config.wait, shutdown.clone()).await?;
    let auth = Auth::new(pool.clone(), &config.auth)?;
    let sales = Sales::new(config.promotions, &config.payment, &pool, identity.log_id)?;
    let reach = Reach::new(sales, config.webhook)?;
    let app = App::new(pool.clone(), journal.clone(), waiter, auth, config.holds, reach);

    let ingress = Ingress::new(app.clone(), &deps.kafka, shutdown.clone()).await?;
    let readiness = Readiness::new()
        .with_database(&pool)
        .with_writes(&pool)
        .with_log(&deps.kafka, &pool)
        .with("log_clock", journal.clock().readiness())
        .with("ingress", ingress.progress().readiness())
        .with("holds", app.holds.check());
    let mut service = Service::new("command-api", readiness);
    service.tasks.add("ingress", ingress.run().map(Ok));
    let relaying = Heartbeat::new("outbox");
    let (relayed, beats, stop) = (app.clone(), relaying.clone(), shutdown.clone());
    let relay = move || outbox::relay(relayed.clone(), beats.clone(), stop.clone());
    service.supervise(&relaying, shutdown, relay);
    let upkeep = Heartbeat::new("holds.upkeep");
    let (kept, beats, stop) = (app.clone(), upkeep.clone(), shutdown.clone());
    let keep_up = move || upkeep::keep_up(kept.clone(), config.holds, beats.clone(), stop.clone());
    service.supervise(&upkeep, shutdown, keep_up);
    let following = Heartbeat::new("payments");
    let (followed, beats, stop) = (app.clone(), following.clone(), shutdown.clone());
    let follow = move || outcomes::follow(followed.clone(), beats.clone(), stop.clone());
    service.supervise(&following, shutdown, follow);
    service.routes = routes::router(app);
    service.openapi = Some(openapi::openapi());
    service.journals.push(journal);
    Ok(service)
}
