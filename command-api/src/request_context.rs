//! Request context: the caller, the ledger time, and whether to wait for the outcome.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use ledger_core::value::id::{AccountId, EventId, Label};
use ledger_core::value::time::Time;
use platform::clock;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use web::auth::{Action, Principal};
use web::http::{Problem, Query, header};

use crate::app::App;

/// Header by which a write to a test account says at which ledger time it is recorded.
pub const LEDGER_TIME: &str = "Ledger-Time";
/// Header that names a write whose body has no id of its own.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// A query that may ask to wait for the outcome.
pub trait Waits: DeserializeOwned + Send {
    /// Returns what it asks; none where it leaves that to the route.
    fn wait(&self) -> Option<bool>;
}

/// The query of nearly every write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitQuery {
    /// Whether to wait, 2 s at most, until the write is projected.
    pub wait: Option<bool>,
}

impl Waits for WaitQuery {
    fn wait(&self) -> Option<bool> {
        self.wait
    }
}

/// What a request says besides its body.
#[derive(Debug, Clone)]
pub struct RequestContext<Q = WaitQuery> {
    pub principal: Principal,
    /// The recording time that the caller gives.
    pub ledger_time: Option<Time>,
    /// The caller's name for the write.
    pub idempotency_key: Option<EventId>,
    pub query: Q,
    /// When it came, by this service's clock.
    pub now: Time,
    /// Until when the request waits for a projection that lags.
    pub deadline: Instant,
}

impl<Q: Waits> RequestContext<Q> {
    /// 403 unless the caller may do this in this account.
    pub fn require(&self, action: Action, account: &AccountId) -> Result<(), Problem> {
        self.principal.require(action, account.as_str())
    }

    /// Returns who causes what this request writes.
    pub fn actor(&self) -> Result<Label, Problem> {
        Label::new(&self.principal.key_id).map_err(Problem::internal)
    }

    /// Says whether a write that waits by default is to wait.
    pub fn waits(&self) -> bool {
        self.query.wait().unwrap_or(true)
    }

    /// Says whether usage is to wait: it does not by default, only by the query or by a test clock's time.
    pub fn usage_waits(&self) -> bool {
        self.query.wait().unwrap_or(self.ledger_time.is_some())
    }

    /// Returns the caller's name for the write: 422 where there is none.
    pub fn idempotency_key(&self) -> Result<&EventId, Problem> {
        let missing = || Problem::bad_field(IDEMPOTENCY_KEY, "required", "is required");
        self.idempotency_key.as_ref().ok_or_else(missing)
    }
}

impl<Q: Waits> FromRequestParts<App> for RequestContext<Q> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let principal = Principal::from_request_parts(parts, app).await?;
        let Query(query) = Query::<Q>::from_request_parts(parts, app).await?;
        Ok(RequestContext {
            principal,
            ledger_time: header(&parts.headers, LEDGER_TIME).map_err(not_a_time)?,
            idempotency_key: header(&parts.headers, IDEMPOTENCY_KEY)?,
            query,
            now: clock::now(),
            deadline: app.waiter.deadline(),
        })
    }
}

fn not_a_time(mut problem: Problem) -> Problem {
    for error in &mut problem.errors {
        if error.code == "invalid" {
            error.code = "not_a_time".into();
        }
    }
    problem
}

/// 422 unless a time that is given lies after the account's ledger time.
pub fn require_future(field: &str, time: Option<Time>, ledger_time: Time) -> Result<(), Problem> {
    match time {
        Some(time) if time <= ledger_time => {
            Err(Problem::bad_field(field, "not_in_future", "must be in the future"))
        }
        _ => Ok(()),
    }
}
