//! Starting: what a service answers until Kafka takes its connection: that it is alive, not ready, and why.

use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::routing::any;
use platform::kafka;
use platform::shutdown::CancellationToken;
use platform::unready::Unready;
use web::http::ops::Readiness;
use web::http::{HttpConfig, Problem, Running, Service, bind};

/// Returns whether a start failed for want of Kafka, so that it may succeed later without another setting.
pub fn waits_for_kafka(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref::<kafka::Error>() {
        Some(kafka::Error::Unreachable(_) | kafka::Error::Kafka(_)) => true,
        Some(kafka::Error::Refused(_) | kafka::Error::Postgres(_) | kafka::Error::Internal(_)) | None => {
            false
        }
    })
}

/// Returns why a start failed, as everybody may see it and in full.
pub fn unready(error: &anyhow::Error) -> Unready {
    let kafka = error.chain().find_map(|cause| cause.downcast_ref::<kafka::Error>());
    let Unready { word, detail, .. } = kafka.map_or_else(|| Unready::new("failing", ""), Unready::from);
    Unready { word, detail, cause: format!("{error:#}") }
}

/// Serves in place of a service that can't start yet.
pub struct Starting {
    reason: Arc<Mutex<Unready>>,
    running: Running,
}

impl Starting {
    /// Listens where the service will.
    pub async fn serve(http: &HttpConfig, reason: Unready) -> Result<Starting> {
        let reason = Arc::new(Mutex::new(reason));
        let said = Arc::clone(&reason);
        let readiness = Readiness::new().with("log", move || {
            ready(Err::<(), _>(said.lock().unwrap_or_else(PoisonError::into_inner).clone()))
        });
        let mut service = Service::new("starting", readiness);
        let unavailable = || ready(Problem::unavailable("the service waits for Kafka"));
        service.routes = Router::new().route("/", any(unavailable)).route("/{*path}", any(unavailable));
        let running = service.start(bind(http.listen).await?, http, CancellationToken::new())?;
        Ok(Starting { reason, running })
    }

    pub fn say(&self, reason: Unready) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Leaves the address to the service.
    pub async fn stop(self) -> Result<()> {
        self.running.stop().await
    }
}
