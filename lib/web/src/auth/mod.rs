//! Authenticates callers by API key, and authorizes them by role.

mod key;
mod role;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use sqlx::PgPool;
use subtle::ConstantTimeEq;
use tokio::time::Instant;

pub use key::{CreatedKey, Key, NewKey, create_key, list_keys, load_key, new_webhook_secret, revoke_key};
pub use role::{Accounts, Action, Principal, Role};

use crate::http::Problem;
use key::{Hash, StoredKey, hash_of, key_id_in};
use platform::clock;

/// Least characters of the operator key from the environment.
pub const OPERATOR_KEY_CHARS_MIN: usize = 32;
/// Key id of the operator key from the environment.
pub const OPERATOR_KEY_ID: &str = "operator";
/// How long a key from the database is cached, so that a revocation takes effect within a second.
const KEPT: Duration = Duration::from_secs(1);
/// Most keys cached; beyond that, the cache is cleared.
const KEPT_KEYS_MAX: usize = 10_000;

/// Where the first key comes from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AuthConfig {
    /// Key of the operator, any text of 32 characters or more.
    #[arg(long, env = "LEDGER_OPERATOR_KEY", hide_env_values = true)]
    pub operator_key: Option<String>,
}

/// The operator key is too short.
#[derive(Debug, thiserror::Error)]
#[error("LEDGER_OPERATOR_KEY must have {OPERATOR_KEY_CHARS_MIN} characters or more")]
pub struct OperatorKeyTooShort;

/// Authenticates all keys; cheap to clone. A state from which handlers take a [`Principal`] provides it by `FromRef`.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    pool: PgPool,
    operator: Option<Hash>,
    kept: Mutex<HashMap<String, Arc<Slot>>>,
}

/// One cached key; the lock makes requests that find it stale share one read.
type Slot = tokio::sync::Mutex<Option<(Instant, Option<Arc<StoredKey>>)>>;

impl Auth {
    /// Checks the operator key and stores its hash.
    pub fn new(pool: PgPool, config: &AuthConfig) -> Result<Self, OperatorKeyTooShort> {
        let operator = match config.operator_key.as_deref() {
            // An empty variable counts as absent: compose files set variables that they do not fill.
            None | Some("") => None,
            Some(key) if key.chars().count() < OPERATOR_KEY_CHARS_MIN => return Err(OperatorKeyTooShort),
            Some(key) => Some(hash_of(key)),
        };
        Ok(Self(Arc::new(Inner { pool, operator, kept: Mutex::default() })))
    }

    /// Returns the caller of these headers; 401 without a valid key.
    pub async fn principal(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        let token = bearer(headers).ok_or_else(Problem::unauthorized)?;
        let hash = hash_of(token);
        if self.0.operator.is_some_and(|operator| bool::from(operator.ct_eq(&hash))) {
            return Ok(Principal::operator(OPERATOR_KEY_ID));
        }
        let key_id = key_id_in(token).ok_or_else(Problem::unauthorized)?;
        let stored = self.stored(key_id).await?.ok_or_else(Problem::unauthorized)?;
        stored.admit(&hash, clock::now()).ok_or_else(Problem::unauthorized)
    }

    async fn stored(&self, key_id: &str) -> Result<Option<Arc<StoredKey>>, Problem> {
        let slot = self.slot(key_id);
        let mut kept = slot.lock().await;
        if let Some((read_at, stored)) = kept.as_ref()
            && read_at.elapsed() < KEPT
        {
            return Ok(stored.clone());
        }
        // The age counts from before the read, so that a key revoked after the read does not live longer.
        let asked_at = Instant::now();
        let stored = key::load_stored(&self.0.pool, key_id).await?.map(Arc::new);
        *kept = Some((asked_at, stored.clone()));
        Ok(stored)
    }

    fn slot(&self, key_id: &str) -> Arc<Slot> {
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_KEYS_MAX && !kept.contains_key(key_id) {
            kept.clear();
        }
        Arc::clone(kept.entry(key_id.to_owned()).or_default())
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

impl<S> FromRequestParts<S> for Principal
where
    S: Send + Sync,
    Auth: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Auth::from_ref(state).principal(&parts.headers).await
    }
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::PgPoolOptions;

    use super::*;

    const OPERATOR: &str = "0123456789abcdef0123456789abcdef";

    /// Its database is never used: the operator key needs none.
    fn auth(operator_key: &str) -> Result<Auth, OperatorKeyTooShort> {
        let pool = PgPoolOptions::new()
            .acquire_timeout(Duration::from_millis(100))
            .connect_lazy("postgres://nobody@127.0.0.1:1/none")
            .expect("a well-formed address");
        Auth::new(pool, &AuthConfig { operator_key: Some(operator_key.to_owned()) })
    }

    async fn check(authorization: Option<&str>, expected: Result<Role, u16>) {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().expect("a header"));
        }
        let found = auth(OPERATOR).expect("long enough").principal(&headers).await;
        let found = found.map(|principal| principal.role).map_err(|problem| problem.status.as_u16());
        assert_eq!(found, expected, "{authorization:?}");
    }

    #[tokio::test]
    async fn the_operator_key_of_the_environment_may_come_in() {
        check(Some(&format!("Bearer {OPERATOR}")), Ok(Role::Operator)).await;
        check(Some(&format!("bearer {OPERATOR}")), Ok(Role::Operator)).await;
    }

    #[tokio::test]
    async fn no_key_or_a_wrong_one_may_not() {
        check(None, Err(401)).await;
        check(Some("Bearer"), Err(401)).await;
        check(Some("Bearer "), Err(401)).await;
        check(Some(OPERATOR), Err(401)).await;
        check(Some(&format!("Basic {OPERATOR}")), Err(401)).await;
        check(Some(&format!("Bearer {OPERATOR}x")), Err(401)).await;
        check(Some("Bearer ldg_"), Err(401)).await;
    }

    #[tokio::test]
    async fn a_key_that_the_database_can_not_be_asked_about_is_not_refused_as_wrong() {
        let key = format!("Bearer ldg_0123456789abcdef_{}", "a".repeat(43));
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, key.parse().expect("a header"));
        let problem = auth(OPERATOR).expect("long enough").principal(&headers).await.expect_err("away");
        assert_eq!(problem.status, 503);
    }

    #[tokio::test]
    async fn a_short_operator_key_is_refused_at_the_start() {
        assert!(auth("short").is_err());
        assert!(auth("").is_ok());
    }
}
