//! The operator's endpoints: liveness, readiness with its reasons, and metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::future::{BoxFuture, join_all};
use platform::kafka::{self, KafkaOptions, Preflight};
use platform::{clock, telemetry};
use serde_json::{Map, Value, json};
use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::problem::Problem;

/// A check that takes longer fails.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long results are cached, so that frequent probes do not load the database.
const KEPT: Duration = Duration::from_secs(1);

type Run = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The conditions for taking requests: named checks, each with a sentence on failure.
pub struct Readiness {
    checks: Vec<(&'static str, Run)>,
    check_timeout: Duration,
    kept: Duration,
    last: Mutex<Option<(Instant, Findings)>>,
}

type Findings = Vec<(&'static str, Result<(), String>)>;

impl Default for Readiness {
    fn default() -> Self {
        Self { checks: Vec::new(), check_timeout: CHECK_TIMEOUT, kept: KEPT, last: Mutex::default() }
    }
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check; its failure is a sentence with the remedy.
    pub fn with<F, C>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> C + Send + Sync + 'static,
        C: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks.push((name, Box::new(move || Box::pin(check()))));
        self
    }

    /// Adds the checks of the database: it answers, its settings are safe, and its clock agrees.
    pub fn with_database(self, pool: &PgPool) -> Self {
        let (reach, settings, time) = (pool.clone(), pool.clone(), pool.clone());
        self.with("database", move || reachable(reach.clone()))
            .with("database_settings", move || safe_settings(settings.clone()))
            .with("database_clock", move || agreeing_clock(time.clone()))
    }

    /// Adds the checks of the log: it answers, and its settings are safe.
    pub fn with_log(self, options: &KafkaOptions, pool: &PgPool) -> Self {
        let (preflight, pool) = (Arc::new(Preflight::new(options)), pool.clone());
        self.with("log", move || {
            let (preflight, pool) = (Arc::clone(&preflight), pool.clone());
            async move {
                let preflight = preflight.as_ref().as_ref().map_err(ToString::to_string)?;
                let found = kafka::safety(preflight, &pool).await.map_err(|error| error.to_string())?;
                sentences(found.iter().map(ToString::to_string).collect())
            }
        })
    }

    /// Adds another's checks, except those with a name already present.
    pub fn merge(mut self, other: Self) -> Self {
        let is_new = |name: &str| self.checks.iter().all(|(known, _)| *known != name);
        let more: Vec<_> = other.checks.into_iter().filter(|(name, _)| is_new(name)).collect();
        self.checks.extend(more);
        self
    }

    /// Runs all checks in parallel, or returns cached results; one run at a time.
    pub async fn findings(&self) -> Vec<(&'static str, Result<(), String>)> {
        let mut last = self.last.lock().await;
        if let Some((at, findings)) = last.as_ref()
            && at.elapsed() < self.kept
        {
            return findings.clone();
        }
        let found = join_all(self.checks.iter().map(|(name, run)| async move {
            let result = timeout(self.check_timeout, run()).await;
            let late = || Err(format!("no answer within {:?}", self.check_timeout));
            (*name, result.unwrap_or_else(|_| late()))
        }))
        .await;
        *last = Some((Instant::now(), found.clone()));
        found
    }
}

fn sentences(problems: Vec<String>) -> Result<(), String> {
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

async fn reachable(pool: PgPool) -> Result<(), String> {
    sqlx::query("select 1")
        .execute(&pool)
        .await
        .map(drop)
        .map_err(|error| format!("database does not answer: {error}"))
}

/// Checks for settings with which Postgres may lose or corrupt acknowledged data.
async fn safe_settings(pool: PgPool) -> Result<(), String> {
    let unsafe_settings: Vec<String> = sqlx::query_scalar(
        "select name || ' is ' || setting
           from pg_settings
          where name in ('fsync', 'full_page_writes', 'synchronous_commit')
            and setting = 'off'
          order by name",
    )
    .fetch_all(&pool)
    .await
    .map_err(|error| format!("settings can't be read: {error}"))?;
    if unsafe_settings.is_empty() {
        return Ok(());
    }
    Err(format!("unsafe: {}", unsafe_settings.join(", ")))
}

async fn agreeing_clock(pool: PgPool) -> Result<(), String> {
    clock::read_database(&pool)
        .await
        .map_err(|error| format!("the database's clock can't be read: {error}"))?
        .check("database")
}

/// Returns `/healthz`, `/readyz` and `/metrics`; none requires a key.
pub fn router(readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .with_state(Arc::new(readiness))
}

async fn healthz() -> Json<Value> {
    Json(json!({"status": "alive"}))
}

async fn readyz(State(readiness): State<Arc<Readiness>>) -> Response {
    let findings = readiness.findings().await;
    let ready = findings.iter().all(|(_, found)| found.is_ok());
    let checks: Map<String, Value> = findings
        .into_iter()
        .map(|(name, found)| (name.to_owned(), json!(found.err().unwrap_or_else(|| "ok".into()))))
        .collect();
    if ready {
        return Json(json!({"status": "ready", "checks": checks})).into_response();
    }
    let failed: Vec<&str> =
        checks.iter().filter(|(_, found)| *found != "ok").map(|(name, _)| name.as_str()).collect();
    let detail = format!("not ready: {}", failed.join(", "));
    Problem::not_now("not_ready", detail).with("checks", &checks).into_response()
}

async fn metrics_page() -> Response {
    let text = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    match telemetry::metrics() {
        Ok(recorder) => ([text], recorder.render()).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::{Body, to_bytes};
    use axum::extract::Request;
    use tower::ServiceExt;

    use super::*;

    async fn ask(readiness: Readiness, path: &str) -> (u16, String) {
        let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
        let response = router(readiness).oneshot(request).await.expect("an answer");
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("small");
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn ready_when_every_check_holds() {
        let readiness = Readiness::new().with("log", || async { Ok(()) });
        assert_eq!(ask(readiness, "/readyz").await.0, 200);
    }

    #[tokio::test]
    async fn not_ready_says_which_check_and_why() {
        let readiness = Readiness::new()
            .with("log", || async { Ok(()) })
            .with("database", || async { Err("unsafe: fsync is off".to_owned()) });
        let (status, body) = ask(readiness, "/readyz").await;
        let body: Value = serde_json::from_str(&body).expect("a problem");
        assert_eq!((status, &body["code"]), (503, &json!("not_ready")));
        assert_eq!(body["checks"], json!({"log": "ok", "database": "unsafe: fsync is off"}));
    }

    #[tokio::test]
    async fn a_check_that_hangs_has_failed() {
        let mut readiness = Readiness::new().with("log", std::future::pending);
        readiness.check_timeout = Duration::from_millis(50);
        assert_eq!(ask(readiness, "/readyz").await.0, 503);
    }

    #[tokio::test]
    async fn asking_often_checks_once_in_a_while() {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let mut readiness = Readiness::new().with("log", || async {
            RUNS.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        for _ in 0..10 {
            readiness.findings().await;
        }
        assert_eq!(RUNS.load(Ordering::Relaxed), 1);
        readiness.kept = Duration::ZERO;
        readiness.findings().await;
        assert_eq!(RUNS.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn alive_and_figures_need_no_check() {
        let failing = || Readiness::new().with("log", || async { Err("away".to_owned()) });
        assert_eq!(ask(failing(), "/healthz").await.0, 200);
        assert_eq!(ask(failing(), "/metrics").await.0, 200);
    }
}
