//! The operator's endpoints: liveness, readiness with its reasons, and metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use futures::future::{BoxFuture, join_all};
use platform::kafka::{self, KafkaOptions, Preflight};
use platform::unready::Unready;
use platform::{clock, pg, telemetry};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::problem::Problem;
use crate::openapi::{self, Answers, Operation, Route, get};

/// A check that takes longer fails.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long results are cached, so that frequent probes do not load the database.
const KEPT: Duration = Duration::from_secs(1);

type Run = Box<dyn Fn() -> BoxFuture<'static, Result<(), Unready>> + Send + Sync>;

/// The conditions for taking requests: named checks, each with a stable word on failure. What a database or a broker
/// said is only logged: the page needs no key.
pub struct Readiness {
    checks: Vec<(&'static str, Run)>,
    check_timeout: Duration,
    kept: Duration,
    last: Mutex<Option<(Instant, Findings)>>,
}

type Findings = Vec<(&'static str, Result<(), Unready>)>;

impl Default for Readiness {
    fn default() -> Self {
        Self { checks: Vec::new(), check_timeout: CHECK_TIMEOUT, kept: KEPT, last: Mutex::default() }
    }
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check.
    pub fn with<F, C, W>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> C + Send + Sync + 'static,
        C: Future<Output = Result<(), W>> + Send + 'static,
        W: Into<Unready>,
    {
        let run = move || -> BoxFuture<'static, Result<(), Unready>> {
            let checking = check();
            Box::pin(async move { checking.await.map_err(Into::into) })
        };
        self.checks.push((name, Box::new(run)));
        self
    }

    /// Adds the checks of the database: it answers, its settings are safe, and its clock agrees.
    pub fn with_database(self, pool: &PgPool) -> Self {
        let (reach, settings, time) = (pool.clone(), pool.clone(), pool.clone());
        self.with("database", move || reachable(reach.clone()))
            .with("database_settings", move || safe_settings(settings.clone()))
            .with("database_clock", move || agreeing_clock(time.clone()))
    }

    /// Adds the check that the database takes writes.
    pub fn with_writes(self, pool: &PgPool) -> Self {
        let pool = pool.clone();
        self.with("database_writes", move || writable(pool.clone()))
    }

    /// Adds the checks of the log: it answers, and its settings are safe.
    pub fn with_log(self, options: &KafkaOptions, pool: &PgPool) -> Self {
        let (preflight, pool) = (Arc::new(Preflight::new(options)), pool.clone());
        self.with("log", move || {
            let (preflight, pool) = (Arc::clone(&preflight), pool.clone());
            async move {
                let preflight = preflight.as_ref().as_ref()?;
                let found = kafka::safety(preflight, &pool).await?;
                safe(found.iter().map(ToString::to_string).collect())
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
    pub async fn findings(&self) -> Findings {
        let mut last = self.last.lock().await;
        if let Some((at, findings)) = last.as_ref()
            && at.elapsed() < self.kept
        {
            return findings.clone();
        }
        let found = join_all(self.checks.iter().map(|(name, run)| async move {
            let result = timeout(self.check_timeout, run()).await;
            let late = || Err(Unready::new("silent", format!("no answer within {:?}", self.check_timeout)));
            (*name, result.unwrap_or_else(|_| late()))
        }))
        .await;
        note_changes(last.as_ref().map_or(&[], |(_, before)| before), &found);
        *last = Some((Instant::now(), found.clone()));
        found
    }
}

/// Logs each check once when it fails, or fails for another reason, and once when it holds again.
fn note_changes(before: &[(&'static str, Result<(), Unready>)], now: &[(&'static str, Result<(), Unready>)]) {
    for (check, found) in now {
        let was = before.iter().find(|(name, _)| name == check).map(|(_, was)| was);
        match found {
            Err(why) if was.is_none_or(|was| was.as_ref().err().map(|was| was.word) != Some(why.word)) => {
                warn!(check, why.word, why.detail, why.cause, "not ready");
            }
            Ok(()) if was.is_some_and(Result::is_err) => info!(check, "ready again"),
            Ok(()) | Err(_) => {}
        }
    }
}

fn safe(problems: Vec<String>) -> Result<(), Unready> {
    if problems.is_empty() { Ok(()) } else { Err(Unready::new("unsafe", problems.join("; "))) }
}

async fn reachable(pool: PgPool) -> Result<(), Unready> {
    let asked = sqlx::query("select 1").execute(pg::bounded(&pool)).await;
    asked.map(drop).map_err(|error| Unready::because("unreachable", error))
}

/// Checks for settings with which Postgres may lose or corrupt acknowledged data.
async fn safe_settings(pool: PgPool) -> Result<(), Unready> {
    let unsafe_settings: Vec<String> = sqlx::query_scalar(
        "select name || ' is ' || setting
           from pg_settings
          where name in ('fsync', 'full_page_writes', 'synchronous_commit')
            and setting = 'off'
          order by name",
    )
    .fetch_all(pg::bounded(&pool))
    .await
    .map_err(|error| Unready::because("unreachable", error))?;
    safe(unsafe_settings)
}

async fn agreeing_clock(pool: PgPool) -> Result<(), Unready> {
    let reading = clock::read_database(&pool).await;
    let reading = reading.map_err(|error| Unready::because("unreachable", error))?;
    reading.check("database").map_err(|detail| Unready::new("skewed", detail))
}

/// Checks that the database takes writes: a standby, a full disk or an operator may have made it read only.
async fn writable(pool: PgPool) -> Result<(), Unready> {
    let read_only =
        sqlx::query_scalar("select pg_is_in_recovery() or current_setting('transaction_read_only')::bool");
    let read_only: bool = read_only
        .fetch_one(pg::bounded(&pool))
        .await
        .map_err(|error| Unready::because("unreachable", error))?;
    if read_only { Err(Unready::new("read_only", "the database takes no writes")) } else { Ok(()) }
}

/// Builds the router of [`routes`].
pub fn router(readiness: Readiness) -> Router {
    openapi::router(routes()).with_state(Arc::new(readiness))
}

/// Returns `/healthz`, `/readyz` and `/metrics`; none requires a key.
pub(crate) fn routes() -> Vec<Route<Arc<Readiness>>> {
    let routes = vec![
        get("/healthz", healthz).named("getHealth", "Answers while the process lives."),
        get("/readyz", readyz)
            .named("getReadiness", "Answers while the process can take requests.")
            .says("The log and the database answer, their settings are safe, and every loop gets on.")
            .refuses(&["not_ready"]),
        get("/metrics", metrics_page).named("getMetrics", "Returns metrics for Prometheus."),
    ];
    routes.into_iter().map(|route| route.tagged("operations")).collect()
}

/// The answer of a process that lives.
#[derive(Serialize, JsonSchema)]
struct Alive {
    status: &'static str,
}

/// The answer of a process that can take requests.
#[derive(Serialize, JsonSchema)]
struct Ready {
    status: &'static str,
    checks: Checks,
}

/// What each check found, by its name; `ok` while it holds.
#[derive(Serialize, JsonSchema)]
struct Checks(BTreeMap<String, String>);

/// A page of metrics.
struct Metrics(Response);

impl IntoResponse for Metrics {
    fn into_response(self) -> Response {
        self.0
    }
}

impl Answers for Metrics {
    fn describe(operation: &mut Operation<'_>) {
        operation.answers(200, "Metrics.", "text/plain", json!({"type": "string"}));
    }
}

async fn healthz() -> Json<Alive> {
    Json(Alive { status: "alive" })
}

async fn readyz(State(readiness): State<Arc<Readiness>>) -> Result<Json<Ready>, Problem> {
    let findings = readiness.findings().await;
    let ready = findings.iter().all(|(_, found)| found.is_ok());
    let checks: BTreeMap<String, String> = findings
        .into_iter()
        .map(|(name, found)| {
            (name.to_owned(), found.err().map_or_else(|| "ok".to_owned(), |why| why.to_string()))
        })
        .collect();
    if ready {
        return Ok(Json(Ready { status: "ready", checks: Checks(checks) }));
    }
    let failed: Vec<&str> =
        checks.iter().filter(|(_, found)| *found != "ok").map(|(name, _)| name.as_str()).collect();
    let detail = format!("not ready: {}", failed.join(", "));
    Err(Problem::not_now("not_ready", detail).with("checks", &checks))
}

async fn metrics_page() -> Metrics {
    let text = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    Metrics(match telemetry::metrics() {
        Ok(recorder) => ([text], recorder.render()).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::{Body, to_bytes};
    use axum::extract::Request;
    use serde_json::Value;
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
        let readiness = Readiness::new().with("log", || async { Ok::<_, Unready>(()) });
        assert_eq!(ask(readiness, "/readyz").await.0, 200);
    }

    #[tokio::test]
    async fn not_ready_says_which_check_and_why() {
        let readiness = Readiness::new()
            .with("log", || async { Ok::<_, Unready>(()) })
            .with("database", || async { Err(Unready::new("unsafe", "fsync is off")) });
        let (status, body) = ask(readiness, "/readyz").await;
        let body: Value = serde_json::from_str(&body).expect("a problem");
        assert_eq!((status, &body["code"]), (503, &json!("not_ready")));
        assert_eq!(body["checks"], json!({"log": "ok", "database": "unsafe: fsync is off"}));
    }

    #[tokio::test]
    async fn what_a_database_says_is_for_the_log_alone() {
        let cause = "password authentication failed for user \"ledger\" at 10.0.0.7";
        let readiness = Readiness::new()
            .with("database", move || async move { Err(Unready::because("unreachable", cause)) });
        let (status, body) = ask(readiness, "/readyz").await;
        assert_eq!(status, 503);
        assert!(body.contains("\"database\":\"unreachable\""), "{body}");
        assert!(!body.contains("10.0.0.7") && !body.contains("password"), "{body}");
    }

    #[tokio::test]
    async fn a_check_that_hangs_has_failed() {
        let mut readiness = Readiness::new().with("log", std::future::pending::<Result<(), Unready>>);
        readiness.check_timeout = Duration::from_millis(50);
        assert_eq!(ask(readiness, "/readyz").await.0, 503);
    }

    #[tokio::test]
    async fn asking_often_checks_once_in_a_while() {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let mut readiness = Readiness::new().with("log", || async {
            RUNS.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Unready>(())
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
        let failing = || Readiness::new().with("log", || async { Err(Unready::new("away", "")) });
        assert_eq!(ask(failing(), "/healthz").await.0, 200);
        assert_eq!(ask(failing(), "/metrics").await.0, 200);
    }
}
