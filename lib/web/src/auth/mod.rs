//! Authenticates callers by API key, and authorizes them by role.

mod key;
mod lookup;
mod member_token;
mod role;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use ledger_core::value::id::AccountId;
use ledger_core::value::time::Time;
use sqlx::PgPool;
use subtle::ConstantTimeEq;
use tokio::time::{Instant, sleep};

pub use key::{
    CreatedKey, Key, NewKey, OPERATOR_KEY_ID, create_key, list_keys, load_key, new_webhook_secret, revoke_key,
};
pub use member_token::{MemberToken, NewMemberToken};
pub use role::{Accounts, Action, Principal, Role};

use crate::http::{Peer, Problem};
use crate::quota::Rates;
use key::{Hash, StoredKey, hash_of, is_key_id, key_id_in};
use lookup::Lookups;
use member_token::{Claims, Issuer};
use platform::{clock, pg};

/// Least characters of the operator key from the environment.
pub const OPERATOR_KEY_CHARS_MIN: usize = 32;
/// How long a key from the database is cached, so that a revocation takes effect within a second.
const KEPT: Duration = Duration::from_secs(1);
/// Most existing keys cached; beyond that, the cache is cleared.
const KNOWN_MAX: usize = 100_000;
/// Pause between two looks at whether a key still holds: with the cached second, a stream ends well within five.
const RECHECK: Duration = Duration::from_secs(2);
/// Requests a second of one key by default.
const RATE_PER_KEY: u32 = 1_000;
/// Requests a second with unknown or wrong keys of one peer by default.
const RATE_UNKNOWN: u32 = 20;

/// Where the first key comes from, and how much each caller may ask.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AuthConfig {
    /// Key of the operator, any text of 32 characters or more.
    #[arg(long, env = "LEDGER_OPERATOR_KEY", hide_env_values = true)]
    pub operator_key: Option<String>,
    /// Requests a second of one key, of each process that serves it; twice as many at once; 0 means no limit
    #[arg(long, env = "LEDGER_RATE_PER_KEY", default_value_t = RATE_PER_KEY)]
    pub rate_per_key: u32,
    /// Requests a second with unknown or wrong keys of one address; twice as many at once; 0 means no limit
    #[arg(long, env = "LEDGER_RATE_UNKNOWN", default_value_t = RATE_UNKNOWN)]
    pub rate_unknown: u32,
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
    /// Keys that exist. Unknown ones can't push them out: [`Lookups`] has those.
    known: Mutex<HashMap<String, Arc<Slot>>>,
    lookups: Lookups,
    /// Of each key, by its id.
    per_key: Rates<Arc<str>>,
    /// Of each peer that sends unknown or wrong keys.
    unknown: Rates<Peer>,
}

/// One cached key; the lock makes requests that find it stale share one read.
type Slot = tokio::sync::Mutex<(Instant, Arc<StoredKey>)>;

impl Auth {
    /// Checks the operator key and stores its hash.
    pub fn new(pool: PgPool, config: &AuthConfig) -> Result<Self, OperatorKeyTooShort> {
        let operator = match config.operator_key.as_deref() {
            // An empty variable counts as absent: compose files set variables that they do not fill.
            None | Some("") => None,
            Some(key) if key.chars().count() < OPERATOR_KEY_CHARS_MIN => return Err(OperatorKeyTooShort),
            Some(key) => Some(hash_of(key)),
        };
        Ok(Self(Arc::new(Inner {
            lookups: Lookups::new(pool.clone()),
            pool,
            operator,
            known: Mutex::default(),
            per_key: Rates::per_second(config.rate_per_key),
            unknown: Rates::per_second(config.rate_unknown),
        })))
    }

    /// Returns the caller of these headers, within its rate: 401 without a valid key, 429 beyond the rate of the key or,
    /// for keys that are unknown or wrong, of the peer.
    async fn admit(&self, headers: &HeaderMap, peer: Option<Peer>) -> Result<(Principal, Ticket), Problem> {
        let token = bearer(headers).ok_or_else(Problem::unauthorized)?;
        let principal = match self.principal_of(token).await {
            Ok(principal) => principal,
            Err(problem) => {
                if let Some(peer) = peer.filter(|_| problem.status == StatusCode::UNAUTHORIZED) {
                    self.0.unknown.take(&peer)?;
                }
                return Err(problem);
            }
        };
        self.0.per_key.take(&principal.key_id)?;
        Ok((principal, Ticket { auth: self.clone(), token: token.into() }))
    }

    /// Returns the caller of these headers; 401 without a valid key.
    pub async fn principal(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        self.principal_of(bearer(headers).ok_or_else(Problem::unauthorized)?).await
    }

    async fn principal_of(&self, token: &str) -> Result<Principal, Problem> {
        let (hash, now) = (hash_of(token), clock::now());
        if self.0.operator.is_some_and(|operator| bool::from(operator.ct_eq(&hash))) {
            return Ok(Principal::operator(OPERATOR_KEY_ID));
        }
        if member_token::is_one(token) {
            let claims = Claims::in_token(token).filter(|claims| claims.hold_at(now));
            let claims = claims.ok_or_else(Problem::unauthorized)?;
            let issuer = self.issuer(claims.issuer(), now).await?.ok_or_else(Problem::unauthorized)?;
            return claims.admit(&issuer, token).ok_or_else(Problem::unauthorized);
        }
        let key_id = key_id_in(token).ok_or_else(Problem::unauthorized)?;
        let stored = self.stored(key_id).await?.ok_or_else(Problem::unauthorized)?;
        stored.admit(&hash, now).ok_or_else(Problem::unauthorized)
    }

    /// Makes a token by which one user can do what a `member` key can, until it or the caller's key ends.
    pub async fn issue_member_token(
        &self,
        caller: &Principal,
        account: &AccountId,
        new: &NewMemberToken,
        now: Time,
    ) -> Result<MemberToken, Problem> {
        let issuer = self.issuer(&caller.key_id, now).await?.ok_or_else(Problem::forbidden)?;
        Ok(member_token::issue(&issuer, account, new, now))
    }

    /// Returns a key that signs member tokens; none if there is no such key, or no more.
    async fn issuer(&self, key_id: &str, now: Time) -> Result<Option<Issuer>, Problem> {
        if key_id == OPERATOR_KEY_ID {
            let principal = Principal::operator(OPERATOR_KEY_ID);
            return Ok(self.0.operator.map(|hash| Issuer { principal, secret: hash.to_vec() }));
        }
        if !is_key_id(key_id) {
            return Ok(None);
        }
        Ok(self.stored(key_id).await?.and_then(|stored| stored.issuer(now)))
    }

    async fn stored(&self, key_id: &str) -> Result<Option<Arc<StoredKey>>, Problem> {
        let Some(slot) = self.slot(key_id) else {
            let found = self.0.lookups.find(key_id).await?;
            if let Some((read_at, stored)) = &found {
                self.keep(key_id, *read_at, stored);
            }
            return Ok(found.map(|(_, stored)| stored));
        };
        let mut kept = slot.lock().await;
        if kept.0.elapsed() < KEPT {
            return Ok(Some(Arc::clone(&kept.1)));
        }
        // The age counts from before the read, so that a key revoked after the read does not live longer.
        let asked_at = Instant::now();
        let mut read = key::load_stored(pg::bounded(&self.0.pool), &[key_id]).await?;
        let Some(stored) = read.remove(key_id).map(Arc::new) else {
            self.0.known.lock().unwrap_or_else(PoisonError::into_inner).remove(key_id);
            return Ok(None);
        };
        *kept = (asked_at, Arc::clone(&stored));
        Ok(Some(stored))
    }

    fn slot(&self, key_id: &str) -> Option<Arc<Slot>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).get(key_id).map(Arc::clone)
    }

    fn keep(&self, key_id: &str, read_at: Instant, stored: &Arc<StoredKey>) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        let slot = || Arc::new(Slot::new((read_at, Arc::clone(stored))));
        known.entry(key_id.to_owned()).or_insert_with(slot);
    }
}

/// What a request was let in by, for answers that go on after the key may have ended.
#[derive(Clone)]
pub struct Ticket {
    auth: Auth,
    token: Arc<str>,
}

impl Ticket {
    /// Returns once the key is revoked or expired. An unreachable database ends nothing.
    pub async fn ended(self) {
        loop {
            sleep(RECHECK).await;
            let again = self.auth.principal_of(&self.token).await;
            if again.is_err_and(|problem| problem.status == StatusCode::UNAUTHORIZED) {
                return;
            }
        }
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
        admitted(parts, state).await.map(|(principal, _)| principal)
    }
}

impl<S> FromRequestParts<S> for Ticket
where
    S: Send + Sync,
    Auth: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        admitted(parts, state).await.map(|(_, ticket)| ticket)
    }
}

/// Admits a request once, however many of its extractors ask.
async fn admitted<S>(parts: &mut Parts, state: &S) -> Result<(Principal, Ticket), Problem>
where
    S: Send + Sync,
    Auth: FromRef<S>,
{
    if let Some(known) = parts.extensions.get::<(Principal, Ticket)>() {
        return Ok(known.clone());
    }
    let peer = parts.extensions.get::<Peer>().copied();
    let admitted = Auth::from_ref(state).admit(&parts.headers, peer).await?;
    parts.extensions.insert(admitted.clone());
    Ok(admitted)
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
        Auth::new(pool, &AuthConfig { operator_key: Some(operator_key.to_owned()), ..AuthConfig::default() })
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
