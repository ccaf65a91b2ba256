//! Member tokens `ldm_<claims>.<signature>`: what a member's key can do, for minutes and without a row.
//!
//! A token is signed with the stored hash of the key that issued it, which no answer shows. So it needs no secret of its
//! own, and it ends with that key.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use ledger_core::event::field_error::FieldError;
use ledger_core::request;
use ledger_core::value::id::{AccountId, UserId};
use ledger_core::value::time::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::role::{Accounts, Action, Principal, Role};
use crate::http::MEMBER_TOKEN_PREFIX;

/// Separates these signatures from all others.
const PURPOSE: &[u8] = b"ledger member token 1\n";
/// How long a token holds by default.
const TTL_SECONDS: u32 = 300;
/// Longest time that a token holds.
const TTL_SECONDS_MAX: u32 = 86_400;
/// How far the clocks of two processes may differ.
const SKEW: Duration = Duration::from_secs(5);
const MICROS: i64 = 1_000_000;

/// The request body that makes a token.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMemberToken {
    pub user_id: UserId,
    #[serde(default)]
    pub ttl_seconds: Option<u32>,
}

impl request::Body for NewMemberToken {
    const GOOD: &'static str = r#"{"user_id":"someone"}"#;

    fn check(&self, errors: &mut Vec<FieldError>) {
        if self.ttl_seconds.is_some_and(|seconds| !(1..=TTL_SECONDS_MAX).contains(&seconds)) {
            errors.push(FieldError::new("ttl_seconds", "out_of_range", "must be 1 to 86400"));
        }
    }
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct MemberToken {
    /// The bearer token.
    pub token: String,
    pub user_id: UserId,
    pub expires_at: Time,
}

/// A key that signs tokens.
pub(super) struct Issuer {
    pub principal: Principal,
    pub secret: Vec<u8>,
}

/// What a token says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Claims {
    /// Id of the key that issued it.
    key: String,
    account: AccountId,
    user: UserId,
    /// Seconds since 1970.
    from: i64,
    until: i64,
}

pub(super) fn is_one(token: &str) -> bool {
    token.starts_with(MEMBER_TOKEN_PREFIX)
}

pub(super) fn issue(issuer: &Issuer, account: &AccountId, new: &NewMemberToken, now: Time) -> MemberToken {
    let from = now.micros().div_euclid(MICROS);
    let until = from + i64::from(new.ttl_seconds.unwrap_or(TTL_SECONDS));
    let (key, user) = (issuer.principal.key_id.to_string(), new.user_id.clone());
    let claims = Claims { key, account: account.clone(), user: user.clone(), from, until };
    let claims = serde_json::to_vec(&claims).expect("claims are plain JSON");
    let claims = URL_SAFE_NO_PAD.encode(claims);
    let signature = signing(&issuer.secret, &claims).finalize().into_bytes();
    let token = format!("{MEMBER_TOKEN_PREFIX}{claims}.{}", URL_SAFE_NO_PAD.encode(signature));
    MemberToken { token, user_id: user, expires_at: Time::from_micros(until * MICROS) }
}

fn signing(secret: &[u8], claims: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length");
    mac.update(PURPOSE);
    mac.update(claims.as_bytes());
    mac
}

impl Claims {
    /// Reads the claims of a token, without checking its signature.
    pub fn in_token(token: &str) -> Option<Claims> {
        let (claims, _) = token.strip_prefix(MEMBER_TOKEN_PREFIX)?.split_once('.')?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        Some(claims)
    }

    pub fn issuer(&self) -> &str {
        &self.key
    }

    /// Returns whether the time is within the token's, and that no longer than any token may hold: a caller with a key
    /// could sign others.
    pub fn hold_at(&self, now: Time) -> bool {
        let now = now.micros().div_euclid(MICROS);
        let skew = i64::try_from(SKEW.as_secs()).unwrap_or_default();
        let ttl = self.until.checked_sub(self.from);
        let is_short = ttl.is_some_and(|ttl| (1..=i64::from(TTL_SECONDS_MAX)).contains(&ttl));
        is_short && self.from <= now.saturating_add(skew) && now < self.until
    }

    /// Returns the member if the issuer has signed the token and may still issue tokens for the account.
    pub fn admit(&self, issuer: &Issuer, token: &str) -> Option<Principal> {
        let (claims, signature) = token.strip_prefix(MEMBER_TOKEN_PREFIX)?.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        signing(&issuer.secret, claims).verify_slice(&signature).ok()?;
        let may = issuer.principal.may(Action::MemberTokens, self.account.as_str());
        may.then(|| Principal {
            // Each user has a rate of its own.
            key_id: format!("{}/{}", self.key, self.user).into(),
            role: Role::Member,
            accounts: Accounts::Named(Arc::from([self.account.to_string()])),
            user_id: Some(self.user.as_str().into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-02-03T10:00:00.5Z";

    fn issuer(role: Role, secret: &[u8]) -> Issuer {
        let accounts = Accounts::Named(Arc::from(["acme".to_owned()]));
        let principal = Principal { key_id: "0123456789abcdef".into(), role, accounts, user_id: None };
        Issuer { principal, secret: secret.to_vec() }
    }

    fn token(ttl_seconds: Option<u32>, account: &str) -> String {
        let new = NewMemberToken { user_id: UserId::new("ana").expect("an id"), ttl_seconds };
        let account = AccountId::new(account).expect("an id");
        issue(&issuer(Role::Producer, b"secret"), &account, &new, NOW.parse().expect("a time")).token
    }

    fn admit(token: &str, issuer: &Issuer, after_seconds: i64) -> Option<Principal> {
        let now = NOW.parse::<Time>().expect("a time").plus_micros(after_seconds * MICROS);
        Claims::in_token(token).filter(|claims| claims.hold_at(now))?.admit(issuer, token)
    }

    #[test]
    fn a_token_lets_one_user_in_until_it_ends() {
        let issuer = issuer(Role::Producer, b"secret");
        let member = admit(&token(None, "acme"), &issuer, 0).expect("a member");
        assert_eq!((member.role, member.only_user()), (Role::Member, Some("ana")));
        assert!(member.may(Action::OwnRead, "acme") && !member.may(Action::OwnRead, "beta"));
        assert!(admit(&token(None, "acme"), &issuer, 299).is_some());
        assert!(admit(&token(None, "acme"), &issuer, 300).is_none());
        assert!(admit(&token(Some(86_400), "acme"), &issuer, 86_399).is_some());
    }

    #[test]
    fn a_token_that_its_issuer_has_not_signed_or_may_not_sign_lets_nobody_in() {
        let good = token(None, "acme");
        assert!(admit(&good, &issuer(Role::Producer, b"other"), 0).is_none());
        assert!(admit(&good, &issuer(Role::Member, b"secret"), 0).is_none());
        let signed = issuer(Role::Producer, b"secret");
        assert!(admit(&token(None, "beta"), &signed, 0).is_none(), "another account");
        assert!(admit(&token(Some(86_401), "acme"), &signed, 0).is_none(), "too long");
        let (claims, signature) = good.split_once('.').expect("two parts");
        assert!(admit(&format!("{claims}.{}", signature.to_lowercase()), &signed, 0).is_none());
        for bad in ["ldm_", "ldm_.", "ldm_e30.", "ldm_!.!", claims] {
            assert!(admit(bad, &signed, 0).is_none(), "{bad}");
        }
    }
}
