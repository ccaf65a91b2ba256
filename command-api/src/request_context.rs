//! Request context: the caller, the ledger time, and whether to wait for the outcome.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use ledger_core::value::id::{AccountId, EventId, Label};
use ledger_core::value::time::Time;
use platform::clock;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use web::auth::{Action, Principal};
use web::http::{IfMatch, Problem, Query, header};
use web::openapi::{Operation, Reads};

use crate::app::App;

/// Header with the ledger time at which a write to a test account is recorded.
pub const LEDGER_TIME: &str = "Ledger-Time";
/// Header with the id of a write whose body has none.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// A query that may request to wait for the outcome.
pub trait Waits: DeserializeOwned + Send {
    /// Returns the requested value; none leaves the choice to the route.
    fn wait(&self) -> Option<bool>;
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitQuery {
    /// Whether to wait until the write is projected: 2 s at most by default (`LEDGER_WAIT_MS`). A wait that runs out
    /// answers 202. Usage waits by default only with a `Ledger-Time`, every other write does.
    pub wait: Option<bool>,
}

impl Waits for WaitQuery {
    fn wait(&self) -> Option<bool> {
        self.wait
    }
}

#[derive(Debug, Clone)]
pub struct RequestContext<Q = WaitQuery> {
    pub principal: Principal,
    /// The recording time from the caller.
    pub ledger_time: Option<Time>,
    pub idempotency_key: Option<EventId>,
    /// The states in which the caller wants to change a setting; none: in any.
    pub if_match: Option<IfMatch>,
    pub query: Q,
    /// The arrival time, by this service's clock.
    pub now: Time,
    /// Until when the request waits for a lagging projection.
    pub deadline: Instant,
}

impl<Q: Waits> RequestContext<Q> {
    /// Returns 403 unless the caller may perform the action on this account.
    pub fn require(&self, action: Action, account: &AccountId) -> Result<(), Problem> {
        self.principal.require(action, account.as_str())
    }

    /// Returns the actor of the events that this request writes.
    pub fn actor(&self) -> Result<Label, Problem> {
        Label::new(&self.principal.key_id).map_err(Problem::internal)
    }

    /// Returns whether a write that waits by default waits.
    pub fn waits(&self) -> bool {
        self.query.wait().unwrap_or(true)
    }

    /// Returns whether usage waits: only if the query requests it or a ledger time is given.
    pub fn usage_waits(&self) -> bool {
        self.query.wait().unwrap_or(self.ledger_time.is_some())
    }

    /// Returns the `Idempotency-Key`: 422 if it is missing.
    pub fn idempotency_key(&self) -> Result<&EventId, Problem> {
        let missing = || Problem::bad_field(IDEMPOTENCY_KEY, "required", "is required");
        let key = self.idempotency_key.as_ref().ok_or_else(missing)?;
        if key.as_str().chars().count() > IDEMPOTENCY_KEY_CHARS_MAX {
            return Err(Problem::bad_field(IDEMPOTENCY_KEY, "bad_id", "has at most 128 characters"));
        }
        Ok(key)
    }
}

/// Longest `Idempotency-Key`.
const IDEMPOTENCY_KEY_CHARS_MAX: usize = 128;

impl<Q: Waits> FromRequestParts<App> for RequestContext<Q> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let principal = Principal::from_request_parts(parts, app).await?;
        let Query(query) = Query::<Q>::from_request_parts(parts, app).await?;
        Ok(RequestContext {
            principal,
            ledger_time: header(&parts.headers, LEDGER_TIME).map_err(not_a_time)?,
            idempotency_key: header(&parts.headers, IDEMPOTENCY_KEY)?,
            if_match: IfMatch::in_headers(&parts.headers),
            query,
            now: clock::now(),
            deadline: app.waiter.deadline(),
        })
    }
}

impl<Q: JsonSchema> Reads for RequestContext<Q> {
    fn describe(operation: &mut Operation<'_>) {
        operation.needs_key();
        operation.query::<Q>();
    }
}

/// Describes the header of writes that an account's test clock takes its time from.
///
/// As plain text: generators of clients refuse headers that are times.
pub fn timed(operation: &mut Operation<'_>) {
    let said = "On accounts with a test clock: when the write is recorded, by RFC 3339. Without it the clock stands still; going back is ignored.";
    operation.header::<String>(LEDGER_TIME, false, said);
}

/// Describes the header of writes whose body has no id.
pub fn keyed(operation: &mut Operation<'_>) {
    let said = "Names the write: the same key with the same content gets the first answer.";
    operation.header::<EventId>(IDEMPOTENCY_KEY, true, said);
}

/// Describes the header of changes of a setting.
pub fn conditional(operation: &mut Operation<'_>) {
    let said = "The `ETag` of the state in which the setting may be changed.";
    operation.header::<String>("If-Match", false, said);
}

fn not_a_time(mut problem: Problem) -> Problem {
    for error in &mut problem.errors {
        if error.code == "invalid" {
            error.code = "not_a_time".into();
        }
    }
    problem
}

/// Returns 422 unless the given time is after the account's ledger time.
pub fn require_future(field: &str, time: Option<Time>, ledger_time: Time) -> Result<(), Problem> {
    match time {
        Some(time) if time <= ledger_time => {
            Err(Problem::bad_field(field, "not_in_future", "must be in the future"))
        }
        _ => Ok(()),
    }
}
